// Players of the results: of one recording, all sounds are at the same moment.
// Sounds live here, not in the page's HTML, which is written anew with each result.
const sounds = new Map();
let current = null; // address of the sound that plays, or played last

const find = address => {
  if (!sounds.has(address)) {
    const sound = new Audio(address);
    sound.preload = "auto";
    for (const event of ["timeupdate", "play", "pause", "ended"])
      sound.addEventListener(event, draw);
    sounds.set(address, sound);
  }
  return sounds.get(address);
};
const batchOf = address => {
  const button = element.querySelector(`[data-sound="${address}"]`);
  return button && button.closest(".batch");
};
const draw = () => {
  for (const button of element.querySelectorAll("[data-sound]")) {
    const sound = find(button.dataset.sound);
    button.setAttribute("aria-pressed", String(!sound.paused));
    const shown = batchOf(current) === button.closest(".batch") ? find(current) : sound;
    const line = button.closest(".card").querySelector("i");
    line.style.left = `${100 * (shown.currentTime / shown.duration || 0)}%`;
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
element.addEventListener("click", event => {
  const card = event.target.closest(".card");
  if (!card) return;
  const address = card.querySelector("[data-sound]").dataset.sound;
  const picture = event.target.closest(".picture");
  if (event.target.closest("[data-sound]")) toggle(address);
  else if (picture) {
    const box = picture.getBoundingClientRect();
    const sound = find(address);
    play(address, ((event.clientX - box.left) / box.width) * (sound.duration || 0));
  }
});
watch("value", () => {
  const shown = new Set([...element.querySelectorAll("[data-sound]")].map(b => b.dataset.sound));
  for (const [address, sound] of sounds)
    if (!shown.has(address)) {
      sound.pause();
      sounds.delete(address);
    }
  if (!shown.has(current)) current = null;
  draw();
});
