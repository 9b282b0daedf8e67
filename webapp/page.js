// Players of the page. All sounds of one batch are at the same moment: a click on another card goes
// on where the last one was. Sounds live here, for the page's HTML is written anew with each result.
const sounds = new Map(); // Audio by address
let current = null; // address of the sound that plays, or played last
const all = where => [...document.querySelectorAll(where)];
const clock = seconds => {
  const whole = Math.floor(seconds || 0);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

const find = address => {
  if (!sounds.has(address)) {
    const sound = new Audio(address);
    sound.preload = "auto";
    for (const event of ["timeupdate", "play", "pause", "ended", "loadedmetadata"])
      sound.addEventListener(event, draw);
    sounds.set(address, sound);
  }
  return sounds.get(address);
};
const batchOf = address =>
  document.querySelector(`[data-sound="${address}"]`)?.closest(".batch");

const draw = () => {
  const playing = current && batchOf(current);
  for (const button of all("[data-sound]")) {
    const sound = find(button.dataset.sound);
    button.setAttribute("aria-pressed", String(!sound.paused));
    const batch = button.closest(".batch");
    const shown = playing === batch ? find(current) : sound;
    button.closest(".card").querySelector("i").style.left =
      `${100 * (shown.currentTime / shown.duration || 0)}%`;
    const time = batch.querySelector("output");
    if (time) time.textContent = `${clock(shown.currentTime)} / ${clock(shown.duration)}`;
  }
};

const play = (address, time) => {
  const sound = find(address);
  if (current && current !== address) {
    const before = find(current);
    if (time === undefined && batchOf(current) === batchOf(address)) time = before.currentTime;
    before.pause();
  }
  if (time !== undefined) sound.currentTime = time;
  current = address;
  sound.play();
};
const toggle = address => {
  const sound = find(address);
  if (sound.paused) play(address);
  else sound.pause();
};

// The part to convert, drawn in the wave: its text is in #part
const partInput = () => document.querySelector("#part input, #part textarea");
const readTime = text => text.trim().split(":").reduce((sum, word) => 60 * sum + Number(word), 0);
const drawPart = () => {
  const wave = document.querySelector(".wave");
  if (!wave || !partInput()) return;
  const length = Number(wave.dataset.seconds);
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

let drag = null; // {picture, share} where a finger or the mouse went down
const shareOf = event => {
  const box = drag.picture.getBoundingClientRect();
  return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
};
document.addEventListener("pointerdown", event => {
  const picture = event.target.closest?.(".card .picture");
  if (!picture) return;
  drag = { picture, moved: false };
  drag.share = shareOf(event);
  event.preventDefault();
});
document.addEventListener("pointermove", event => {
  if (!drag) return;
  const share = shareOf(event);
  const width = drag.picture.getBoundingClientRect().width;
  drag.moved ||= Math.abs(share - drag.share) * width > 6;
  if (drag.moved && drag.picture.matches(".wave"))
    writePart(drag.share, share, Number(drag.picture.dataset.seconds));
});
document.addEventListener("pointerup", event => {
  if (!drag) return;
  const { picture, moved } = drag;
  const address = picture.closest(".card").querySelector("[data-sound]").dataset.sound;
  if (!moved) play(address, shareOf(event) * (find(address).duration || 0));
  drag = null;
});
document.addEventListener("pointercancel", () => (drag = null));
document.addEventListener("click", event => {
  const button = event.target.closest?.("[data-sound]");
  if (button) toggle(button.dataset.sound);
});
document.addEventListener("keydown", event => {
  if (event.target.closest("input, textarea, select, button, a") || event.metaKey || event.ctrlKey)
    return;
  const batch = (current && batchOf(current)) || document.querySelector("#results .batch");
  if (!batch) return;
  const addresses = [...batch.querySelectorAll("[data-sound]")].map(each => each.dataset.sound);
  const chosen = event.key === " " ? current || addresses[0] : addresses[Number(event.key) - 1];
  if (!chosen) return;
  event.preventDefault();
  if (event.key === " ") toggle(chosen);
  else play(chosen);
});
document.addEventListener("input", event => {
  if (event.target === partInput()) drawPart();
});

const refresh = () => {
  const shown = new Set(all("[data-sound]").map(button => button.dataset.sound));
  for (const [address, sound] of sounds)
    if (!shown.has(address)) {
      sound.pause();
      sounds.delete(address);
    }
  if (!shown.has(current)) current = null;
  draw();
  drawPart();
};
for (const place of all("#summary, #results"))
  new MutationObserver(changes => {
    const own = change => change.target.closest?.("output, .card");
    if (!changes.every(own)) refresh();
  }).observe(place, { childList: true, subtree: true });
