// The part to convert, drawn in the wave: its text is in #part
const partInput = () => document.querySelector("#part input, #part textarea");
const readTime = text => text.trim().split(":").reduce((sum, word) => 60 * sum + Number(word), 0);
const lengthOf = wave => Number(wave.closest(".card").dataset.seconds);
const drawPart = () => {
  const wave = document.querySelector(".wave");
  if (!wave || !partInput()) return;
  const length = lengthOf(wave);
  const words = partInput().value.replace("–", "-").split("-");
  let [start, end] = words.length > 1 ? words.map(readTime) : [0, readTime(words[0])];
  if (!(end > start)) [start, end] = [0, length];
  const mark = wave.querySelector("b");
  mark.style.left = `${(100 * start) / length}%`;
  mark.style.right = `${Math.max(0, 100 - (100 * end) / length)}%`;
};
const writePart = (from, to, length) => {
  const write = share => {
    const seconds = Math.round(10 * share * length) / 10;
    const rest = (seconds % 60).toFixed(1).replace(/\.0$/, "");
    return `${Math.floor(seconds / 60)}:${rest.padStart(rest.includes(".") ? 4 : 2, "0")}`;
  };
  const input = partInput();
  if (!input) return;
  input.value = `${write(Math.min(from, to))} - ${write(Math.max(from, to))}`;
  input.dispatchEvent(new Event("input", { bubbles: true }));
};

// A finger or the mouse that moves on the wave draws the part; what follows is then no click
let drag = null; // {wave, share, moved} where it went down
const shareOf = event => {
  const box = drag.wave.getBoundingClientRect();
  return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
};
document.addEventListener("pointerdown", event => {
  const wave = event.target.closest?.(".wave");
  if (!wave) return;
  drag = { wave, moved: false };
  drag.share = shareOf(event);
  event.preventDefault();
});
document.addEventListener("pointermove", event => {
  if (!drag) return;
  const share = shareOf(event);
  drag.moved ||= Math.abs(share - drag.share) * drag.wave.offsetWidth > 6;
  if (drag.moved) writePart(drag.share, share, lengthOf(drag.wave));
});
document.addEventListener("pointerup", () => {
  if (drag?.moved) {
    const stop = event => event.stopPropagation();
    window.addEventListener("click", stop, { capture: true, once: true });
    setTimeout(() => window.removeEventListener("click", stop, { capture: true }));
  }
  drag = null;
});
document.addEventListener("pointercancel", () => (drag = null));
document.addEventListener("input", event => {
  if (event.target === partInput()) drawPart();
});

const refresh = () => {
  const shown = new Set(all("[data-sound]").map(card => card.dataset.sound));
  for (const [address, sound] of sounds)
    if (!shown.has(address)) {
      sound.pause();
      sounds.delete(address);
    }
  if (!shown.has(current)) current = null;
  all("section").forEach(draw);
  drawPart();
};
for (const place of all("#summary, #results"))
  new MutationObserver(changes => {
    const own = change => change.target.closest?.("output, .card");
    if (!changes.every(own)) refresh();
  }).observe(place, { childList: true, subtree: true });
