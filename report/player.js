"use strict";
// The player of app.py's page and of the listening pages. The sounds of a section share one
// position: a click on another card, or its key, goes on at the moment where the last one was.
// A click in a picture plays from there, the space bar pauses. They are equally loud, unless the
// box #match is there and empty.
const sounds = new Map(); // Audio by address, for app.py's page is written anew with each result
let current = null; // address of the sound that plays, or played last
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

const all = (where, what = document) => [...what.querySelectorAll(where)];
const findCard = address => document.querySelector(`[data-sound="${CSS.escape(address)}"]`);
const findSection = card => card?.closest("section");
const clock = seconds => {
  const whole = Math.floor(seconds || 0);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
};

const findSound = address => {
  if (!sounds.has(address)) {
    const sound = new Audio(address);
    for (const event of ["play", "pause", "seeked", "ended", "loadedmetadata"])
      sound.addEventListener(event, () => draw(findSection(findCard(address))));
    sound.addEventListener("error", () => {
      if (sound.error.code !== MediaError.MEDIA_ERR_SRC_NOT_SUPPORTED) sound.load();
    });
    sounds.set(address, sound);
  }
  return sounds.get(address);
};

// Buttons, playheads and the time of a section; of the one that plays, all playheads are together
const draw = section => {
  if (!section) return;
  const shared = findSection(current && findCard(current)) === section ? current : null;
  for (const card of all("[data-sound]", section)) {
    const sound = sounds.get(card.dataset.sound);
    const isPlaying = Boolean(sound && !sound.paused);
    const time = sounds.get(shared || card.dataset.sound)?.currentTime || 0;
    card.classList.toggle("playing", isPlaying);
    card.querySelector(".play").setAttribute("aria-pressed", String(isPlaying));
    const at = Math.min(1, time / card.dataset.seconds || 0);
    card.querySelector("i").style.setProperty("--at", at);
  }
  const shown = shared ? findCard(shared) : section.querySelector("[data-sound]");
  const output = section.querySelector("output");
  if (!output || !shown) return;
  const time = sounds.get(shown.dataset.sound)?.currentTime;
  output.textContent = `${clock(time)} / ${clock(shown.dataset.seconds)}`;
};
const follow = () => {
  if (!current) return;
  draw(findSection(findCard(current)));
  if (!findSound(current).paused) requestAnimationFrame(follow);
};

// The louder ones of a section are turned down to the softest one, none is turned up
const matchLoudness = section => {
  const known = all("[data-loudness]", section);
  const softest = Math.min(...known.map(card => Number(card.dataset.loudness)));
  const isMatched = document.querySelector("#match")?.checked ?? true;
  for (const card of known) {
    const louder = isMatched ? card.dataset.loudness - softest : 0;
    findSound(card.dataset.sound).volume = 10 ** (-louder / 20);
  }
};

const start = sound => {
  sound.play().catch(error => { // a pause before it has begun is no error
    if (error.name !== "AbortError") throw error;
  });
  follow();
};

const play = (address, at) => {
  const card = findCard(address);
  const sound = findSound(address);
  const before = current && findSound(current);
  const isSwitch = before && before !== sound;
  if (isSwitch) {
    const isBeside = findSection(findCard(current)) === findSection(card);
    if (at === undefined && isBeside) at = before.ended ? 0 : before.currentTime;
    before.pause();
  }
  current = address;
  matchLoudness(findSection(card));
  // Chromium's FLAC reader may fail on a seek into the last moments of a file
  if (at !== undefined)
    sound.currentTime = Math.max(0, Math.min(at, card.dataset.seconds - 0.5));
  card.closest("details")?.setAttribute("open", "");
  card.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  start(sound);
};
const toggle = address => {
  const sound = findSound(address);
  if (!sound.paused) sound.pause();
  else play(address);
};

document.addEventListener("click", event => {
  const card = event.target.closest?.("[data-sound]");
  if (!card) return;
  if (event.target.closest(".play")) toggle(card.dataset.sound);
  if (!event.target.closest(".picture")) return;
  const plot = card.querySelector("i").getBoundingClientRect(); // without a picture's axes
  const share = Math.min(1, Math.max(0, (event.clientX - plot.left) / plot.width));
  play(card.dataset.sound, share * card.dataset.seconds);
});

document.addEventListener("change", event => {
  if (event.target.id === "match") all("section").forEach(matchLoudness);
});

// Keys switch between the sounds of the section that has the focus, or was heard last
document.addEventListener("keydown", event => {
  const place = event.target.closest?.("input:not([type=checkbox]), textarea, select");
  if (place || event.ctrlKey || event.altKey || event.metaKey) return;
  const focused = findSection(document.activeElement);
  const heard = [focused, findSection(current && findCard(current)), ...all("section")];
  const section = heard.find(each => each?.querySelector("[data-key]")) || focused;
  const isButton = event.target.closest?.("summary, button, input, a"); // space has a use there
  const address = current || section?.querySelector("[data-sound]")?.dataset.sound;
  if (event.key === " ") {
    if (isButton || !address) return;
    event.preventDefault();
    toggle(address);
    return;
  }
  const cards = section ? all("[data-key]", section) : [];
  const card = cards.find(each => each.dataset.key === event.key);
  if (card && card.dataset.sound !== current) play(card.dataset.sound);
  else if (card) start(findSound(current));
});

all("section").forEach(draw);
