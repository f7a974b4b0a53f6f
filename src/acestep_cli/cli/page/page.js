"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const find = (selector, within = document) => within.querySelector(selector);
const STEP = 5, POLL = 2000;
const takes = [];
const store = `acestep listen ${location.pathname}`;
let current = null, before = null, matched = true;
// What somebody kept elsewhere and is picked here already: unpicked, it stays so.
const known = new Set();

// What outlives a reload; a browser may refuse it to a page from a folder.
function remembered() {
  try { return JSON.parse(localStorage.getItem(store)) || {}; } catch { return {}; }
}
function remember() {
  const picks = takes.filter((take) => take.picked).map((take) => take.file);
  const shade = document.documentElement.dataset.shade;
  const told = [...known];
  try { localStorage.setItem(store, JSON.stringify({ picks, shade, matched, told })); } catch { /* it stays as it is */ }
}

function clock(seconds) {
  const whole = Math.floor(seconds + 1e-6);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

// A word for a shell: in single quotes, where one that it holds is led out and in again.
function word(text) {
  if (/^[\w./:=@%+,-]+$/.test(text)) return text;
  if (/[\p{Cc}\p{Cs}\u2028\u2029]/u.test(text)) return `$'${Array.from(text, escaped).join("")}'`;
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
// Bytes of a name that are not UTF-8 come as halves of characters; bash and zsh take them as numbers.
function escaped(sign) {
  if (!/[\p{Cc}\p{Cs}\u2028\u2029\\']/u.test(sign)) return sign;
  const bytes = /\p{Cs}/u.test(sign) ? [sign.charCodeAt(0) & 0xff] : [...new TextEncoder().encode(sign)];
  return bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
}
function command(...words) { return words.map(word).join(" "); }
// A file that begins with a dash would be taken for a flag.
function here(name) { return name.startsWith("-") ? `./${name}` : name; }

function outline(take) {
  const [low, high] = take.outline;
  const top = high.map((value, column) => `L${column} ${(100 - value).toFixed(0)}`).join("");
  const bottom = low.map((value, column) => `L${column} ${(100 - value).toFixed(0)}`).reverse().join("");
  return `M0 100${top}${bottom}Z`;
}

function build(take) {
  const card = find("#take").content.cloneNode(true).firstElementChild;
  take.card = card;
  take.audio = find("audio", card);
  take.audio.src = take.src;
  find(".number", card).textContent = take.index + 1;
  find("h2", card).textContent = take.title;
  find(".facts", card).textContent = take.facts.join(" · ");
  const svg = find("svg", card);
  svg.setAttribute("viewBox", `0 0 ${take.outline[0].length - 1} 200`);
  for (const path of svg.children) path.setAttribute("d", outline(take));
  const wave = find(".wave", card);
  wave.setAttribute("aria-valuemax", take.seconds.toFixed(1));
  take.sections.forEach((section, number) => {
    const end = take.sections[number + 1]?.seconds ?? take.seconds;
    const button = document.createElement("button");
    const name = document.createElement("span");
    button.type = "button";
    button.tabIndex = -1;
    button.classList.toggle("sure", section.sure);
    button.title = `${section.name}, ${section.sure ? "" : "about "}${clock(section.seconds)}`;
    button.style.left = `${100 * section.seconds / take.seconds}%`;
    button.style.width = `${100 * (end - section.seconds) / take.seconds}%`;
    name.textContent = section.name;
    name.addEventListener("click", (event) => { event.stopPropagation(); choose(take, section.seconds); });
    button.append(name);
    find(".sections", card).append(button);
  });
  find(".spectrum img", card).src = take.spectrogram;
  find(".caption", card).textContent = take.caption;
  fill(".words", take.lyrics);
  fill(".recipe", take.spec);
  const figures = find(".figures dl", card);
  for (const [name, value] of take.figures) {
    const [term, what] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    what.textContent = value;
    figures.append(term, what);
  }
  find(".recipe .copy", card).addEventListener("click", (event) => copy(take.spec, event.currentTarget));
  find(".star", card).addEventListener("click", () => pick(take));
  find(".head", card).addEventListener("click", (event) => { if (!event.target.closest("button")) choose(take); });
  for (const place of [wave, find(".spectrum", card)]) {
    const seek = (event) => {
      const box = place.getBoundingClientRect();
      choose(take, Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * take.seconds);
    };
    place.addEventListener("pointerdown", (event) => {
      if (event.button || event.target.closest(".sections span")) return;
      place.setPointerCapture(event.pointerId);
      seek(event);
    });
    place.addEventListener("pointermove", (event) => { if (place.hasPointerCapture(event.pointerId)) seek(event); });
  }
  take.audio.addEventListener("error", () => {
    card.classList.add("lost");
    find(".facts", card).textContent = "cannot be played: is the file still beside this page?";
  });
  take.audio.addEventListener("ended", paint);
  if (take.group !== (takes[take.index - 1]?.group ?? null)) {
    const heading = document.createElement("h2");
    heading.className = "group";
    heading.textContent = take.group ?? "others";
    find("#takes").append(heading);
  }
  find("#takes").append(card);

  function fill(place, text) {
    find(`${place} pre`, card).textContent = text;
    find(place, card).hidden = !text;
  }
}

// Another take from the same second on, or from the one given; sounding if the last one did.
function choose(take, seconds = current?.audio.currentTime ?? 0) {
  const sounding = current !== null && !current.audio.paused;
  if (current !== take) {
    if (current) {
      current.audio.pause();
      current.card.classList.remove("current");
      before = current;
    }
    current = take;
    take.card.classList.add("current");
    level();
    take.card.scrollIntoView({ block: "nearest" });
  }
  place(take, Math.min(seconds, Math.max(take.seconds - 0.01, 0)));
  if (sounding) take.audio.play().catch(() => {});
  list(take);
  paint();
}

// A file that is not open yet takes no time: it gets it when it is.
function place(take, seconds) {
  take.wanted = seconds;
  if (take.audio.readyState > 0) take.audio.currentTime = seconds;
  else take.audio.addEventListener("loadedmetadata", () => { take.audio.currentTime = take.wanted; }, { once: true });
}

function at() { return current.audio.readyState > 0 ? current.audio.currentTime : current.wanted ?? 0; }

function toggle() {
  if (current.audio.paused) current.audio.play().catch(() => {});
  else current.audio.pause();
  paint();
}

// Louder takes are turned down to the softest: loudness wins every comparison else.
function level() {
  const known = takes.map((take) => take.lufs).filter((lufs) => lufs !== null);
  const softest = Math.min(...known);
  for (const take of takes) {
    take.audio.volume = matched && take.lufs !== null ? Math.min(1, 10 ** ((softest - take.lufs) / 20)) : 1;
  }
}

function pick(take) {
  take.picked = !take.picked;
  show(take);
  remember();
}
function show(take) {
  find(".star", take.card).setAttribute("aria-pressed", Boolean(take.picked));
  find("#count").textContent = takes.filter((one) => one.picked).length;
}

// Takes join at the end, whatever their names: what is on the page keeps its number until it is opened anew.
function join(found) {
  for (const take of found) {
    if (takes.some((one) => one.file === take.file)) continue;
    const added = { ...take, index: takes.length };
    takes.push(added);
    build(added);
    show(added);
  }
}
function pickKept(names) {
  const found = takes.filter((take) => names.includes(take.file) && !known.has(take.file));
  for (const take of found) {
    known.add(take.file);
    take.picked = true;
    show(take);
  }
  if (found.length) remember();
}

// What is new, as long as takes are being made; a page from a folder may read scripts alone. Where there is none any
// more, the takes have come to their end.
let named = data.kept;
function read(script, failed = () => {}, done = () => {}) {
  const element = document.createElement("script");
  element.src = `${script}?${Date.now()}`;
  element.addEventListener("load", () => { element.remove(); done(); });
  element.addEventListener("error", () => { element.remove(); failed(); });
  document.head.append(element);
}
function poll() {
  find("#growing").hidden = false;
  read(data.scripts.news, () => { find("#growing").hidden = true; }, () => setTimeout(poll, POLL));
}
function news({ files, kept }) {
  named = kept;
  pickKept(named);
  if (files.some((file) => !takes.some((take) => take.file === file))) read(data.scripts.all);
}
function arrived(found) {
  join(found);
  level();
  pickKept(named);
}

// The part that a repaint would make anew: as marked, else the section that is heard.
function region(take) {
  if (take.from !== undefined && take.to !== undefined && take.from < take.to) return [take.from, take.to];
  const now = take === current ? at() : take.wanted ?? 0;
  const number = take.sections.findLastIndex((section) => section.seconds <= now);
  if (number < 0) return [0, Math.min(10, take.seconds)];
  return [take.sections[number].seconds, take.sections[number + 1]?.seconds ?? take.seconds];
}

function commands(take) {
  if (!take.again) return [];
  const [start, end] = region(take).map((seconds) => seconds.toFixed(2));
  const words = [...(take.caption ? ["-c", take.caption] : []), ...(take.lyrics ? ["--lyrics", take.lyrics] : [])];
  const found = [["Repaint", command("acestep", "repaint", here(take.file), "--start", start, "--end", end, ...words)]];
  if (take.varies) {
    found.push(["Four takes a little different", command("acestep", take.varies, here(take.again), "--variation", "15%", "-n", "4")]);
  }
  if (take.steps) {
    found.push(["Render again in more steps", command("acestep", "render", here(take.again), "--steps", String(take.steps), "-o", here(`${take.stem}-${take.steps}-steps.${take.format}`))]);
  }
  if (take.format !== "mp3") {
    found.push(["Export as MP3", command("acestep", "render", here(take.again), "-o", here(`${take.stem}.mp3`))]);
  }
  return found;
}

function list(take) {
  const ways = find(".next ul", take.card);
  ways.replaceChildren(...commands(take).map(([name, line]) => {
    const [item, button, code] = ["li", "button", "code"].map((kind) => document.createElement(kind));
    button.type = "button";
    button.textContent = name;
    button.title = "Copy the command";
    code.textContent = line;
    button.addEventListener("click", () => copy(line, button));
    item.append(button, code);
    return item;
  }));
  find(".next", take.card).hidden = !ways.children.length;
}

async function copy(text, button) {
  const said = button.textContent;
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page from a folder may have no clipboard
    const area = document.createElement("textarea");
    area.value = text;
    (button.closest("dialog") || document.body).append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
  }
  button.textContent = done ? "Copied" : "Not copied";
  setTimeout(() => { button.textContent = said; }, 1200);
}

function picksText() {
  const picked = takes.filter((take) => take.picked);
  if (!picked.length) return "Nothing is picked yet: P picks the take that plays.\n";
  const files = picked.map((take) => take.file).join("\n");
  const lines = picked.flatMap((take) => ["", `# ${take.file}`, ...commands(take).map(([name, line]) => `# ${name}:\n${line}`)]);
  return `# Picks of ${data.folder}\n${files.replace(/^/gm, "# ")}\n${lines.join("\n")}\n`;
}
function exported() {
  find("#picks textarea").value = picksText();
  find("#picks").showModal();
  find("#picks textarea").scrollTop = 0;
}

function paint() {
  const now = at(), share = current.seconds ? now / current.seconds : 0;
  find("#clock").textContent = `${clock(now)} / ${clock(current.seconds)}`;
  find("#play span").textContent = current.audio.paused ? "▶" : "❚❚";
  find("#line").textContent = `${current.index + 1}  ${current.title}`;
  for (const line of current.card.querySelectorAll(".head-line")) line.style.left = `${100 * share}%`;
  find(".gone", current.card).style.clipPath = `inset(0 ${100 * (1 - share)}% 0 0)`;
  const wave = find(".wave", current.card);
  wave.setAttribute("aria-valuenow", now.toFixed(1));
  wave.setAttribute("aria-valuetext", clock(now));
}
function tick() {
  if (!current.audio.paused) paint();
  requestAnimationFrame(tick);
}

function mark(take, side) {
  take[side] = at();
  const [from, to] = [take.from ?? 0, take.to ?? take.seconds];
  const shown = find(".mark", take.card);
  shown.style.left = `${100 * from / take.seconds}%`;
  shown.style.width = `${100 * Math.max(to - from, 0) / take.seconds}%`;
  list(take);
}

function section(way) {
  const starts = current.sections.map((one) => one.seconds);
  const now = at();
  const next = way > 0 ? starts.find((start) => start > now + 0.05) : starts.findLast((start) => start < now - 1);
  if (next !== undefined) choose(current, next);
  else if (way < 0) choose(current, 0);
}

function shade() {
  const root = document.documentElement;
  const dark = root.dataset.shade ? root.dataset.shade === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.shade = dark ? "light" : "dark";
  remember();
}
function match() {
  matched = !matched;
  find("#match").setAttribute("aria-pressed", matched);
  level();
  remember();
}

const KEYS = {
  " ": toggle,
  ArrowUp: () => choose(takes[Math.max(current.index - 1, 0)]),
  ArrowDown: () => choose(takes[Math.min(current.index + 1, takes.length - 1)]),
  ArrowLeft: (event) => choose(current, Math.max(at() - (event.shiftKey ? 1 : STEP), 0)),
  ArrowRight: (event) => choose(current, at() + (event.shiftKey ? 1 : STEP)),
  a: () => { if (before) choose(before); },
  p: () => pick(current),
  e: exported,
  i: () => mark(current, "from"),
  o: () => mark(current, "to"),
  l: match,
  d: shade,
  "[": () => section(-1),
  "]": () => section(1),
  "?": () => find("#keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.target.matches("button") && (event.key === " " || event.key === "Enter")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const act = KEYS[key] ?? (/^[1-9]$/.test(key) && takes[key - 1] ? () => choose(takes[key - 1]) : null);
  if (!act) return;
  event.preventDefault();
  act(event);
});

document.title = `${data.folder} – takes`;
find("h1").textContent = data.folder;
join(data.takes);
const kept = remembered();
for (const take of takes) {
  take.picked = (kept.picks || []).includes(take.file);
  show(take);
}
for (const file of kept.told || []) known.add(file);
if (kept.shade) document.documentElement.dataset.shade = kept.shade;
if (kept.matched === false) match();
pickKept(data.kept);
find("#play").addEventListener("click", toggle);
find("#match").addEventListener("click", match);
find("#shade").addEventListener("click", shade);
find("#export").addEventListener("click", exported);
find("#help").addEventListener("click", KEYS["?"]);
find("#copy").addEventListener("click", (event) => copy(find("#picks textarea").value, event.currentTarget));
find("#save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([find("#picks textarea").value], { type: "text/plain" }));
  link.download = "picks.txt";
  link.click();
  URL.revokeObjectURL(link.href);
});
choose(takes[0]);
tick();
if (data.scripts) poll();
