// The review page: a list of events, one event, and the groups of those that look alike.
// What the server says is only ever put into the page as text.

import { alikeView, planView, whatIfView } from "./tools.js";

export const S = {
  events: new Map(), version: "", meta: {}, problems: [],
  filter: "all", sort: "newest", folder: "", chosen: null, order: [], undo: [], taken: new Set(),
};
export const VERDICTS = ["normal", "anomaly", "unsure"];
const KEYS = { n: "normal", a: "anomaly", u: "unsure" };
const POLL_MS = 2000;
const main = document.querySelector("main");
let view = null;

export function h(tag, properties = {}, ...children) {
  const node = tag === "svg" || h.svg.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;  // which the page's policy allows
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}
// As replaceChildren, without what is null.
export const put = (node, ...children) => node.replaceChildren(...children.filter((child) => child != null && child !== false));
h.svg = new Set(["path", "rect", "line", "circle", "polyline", "g", "image", "title"]);

export async function ask(path, content) {
  const options = content === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(content),
  };
  const response = await fetch(path, options);
  if (response.status === 204) return null;
  const result = await response.json();
  if (!response.ok) throw new Error(result.error ?? response.statusText);
  return result;
}

export const state = (event) => event.verdict?.verdict ?? "unreviewed";
export const number = (value) => value == null ? "no number" : Number(value).toPrecision(4).replace(/\.?0+$/, "");
export const badge = (event) => h("span", { class: `badge ${state(event)}`, hidden: state(event) === "unreviewed" }, state(event));
export function when(event) {
  const time = typeof event.time === "number" ? new Date(event.time * 1000) : new Date(event.time);
  const two = (value) => String(value).padStart(2, "0");
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}
export const duration = (seconds) => seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;

export function picture(event, how, frame, properties = {}) {
  const image = h("img", {
    class: "picture", src: `/${how}/${event.id}/${frame}`, loading: "lazy", decoding: "async",
    alt: `frame ${frame} of ${event.name}`, ...properties,
  });
  image.addEventListener("error", () => image.replaceWith(
    h("div", { class: `${image.className} missing` }, "picture missing")));
  return image;
}

// What is shown, and in which order.
export function visible() {
  const found = [...S.events.values()].filter((event) =>
    (S.filter === "all" || state(event) === S.filter) && (!S.folder || event.folder === S.folder));
  const time = (event) => typeof event.time === "number" ? event.time : Date.parse(event.time) / 1000;
  const score = (event) => event.normalized ?? -1;
  const orders = {
    newest: (a, b) => time(b) - time(a),
    oldest: (a, b) => time(a) - time(b),
    highest: (a, b) => score(b) - score(a) || time(b) - time(a),
    lowest: (a, b) => score(a) - score(b) || time(b) - time(a),
  };
  return found.sort(orders[S.sort]);
}

export function toast(text, { bad = false, undo = false } = {}) {
  const node = document.querySelector("#toast");
  node.className = bad ? "bad" : "";
  node.replaceChildren(h("span", {}, text), ...(undo ? [h("button", { type: "button", onclick: takeBack }, "Undo (z)")] : []));
  node.hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { node.hidden = true; }, bad ? 9000 : 4000);
}

// Verdicts: each says which one it saw, so that of two pages none is lost without a word.
// One is written after the other: the next one sees what the last one wrote.
let writing = Promise.resolve(true), written = 0;
export function judge(...all) {
  writing = writing.then(() => write(...all));
  return writing;
}

async function write(chosen, changes, { shown = [], silent = false } = {}) {
  const events = chosen.map((event) => S.events.get(event.id) ?? event);
  const before = events.map((event) => ({ id: event.id, verdict: event.verdict }));
  let answer;
  try {
    answer = await ask("/api/verdicts", {
      ...changes, shown, events: events.map((event) => ({ id: event.id, seen: event.verdict?.when ?? "" })),
    });
  } catch (error) {
    toast(`Not written: ${error.message}`, { bad: true });
    return false;
  }
  written += 1;
  const done = Object.keys(answer.written);
  for (const id of done) S.events.set(id, { ...S.events.get(id), verdict: answer.written[id], problem: "" });
  const refused = Object.values(answer.refused);
  if (done.length && !silent) S.undo.push(before.filter((item) => item.id in answer.written));
  if (refused.length) toast(`Not written: ${refused[0]}${refused.length > 1 ? ` (and ${refused.length - 1} more)` : ""}`, { bad: true });
  else if (!silent) toast(done.length === 1 ? `Judged ${changes.verdict}` : `${done.length} judged ${changes.verdict}`, { undo: true });
  if (refused.length) await refresh();
  render();
  return !refused.length;
}

async function takeBack() {
  const last = S.undo.pop();
  if (!last) { toast("Nothing to undo"); return; }
  for (const { id, verdict } of last) {
    const event = S.events.get(id);
    const old = verdict ?? { verdict: "unreviewed" };
    if (event) await judge([event], { verdict: old.verdict, note: old.note, frames: old.frames, keep: old.keep }, { silent: true });
  }
  S.chosen = last[0].id;
  toast(last.length === 1 ? "Taken back" : `${last.length} taken back`);
  if (view?.id && view.id !== last[0].id) location.hash = `#/events/${last[0].id}`;
  render();
}

async function refresh() {
  try {
    const before = written;
    const found = await ask(`/api/events?version=${S.version}`);
    // What was asked for before a verdict may not know it: the next answer does.
    if (found && written === before) {
      S.version = found.version;
      S.meta = found;
      S.events = new Map(found.events.map((event) => {
        const old = S.events.get(event.id);
        return [event.id, old && JSON.stringify(old) === JSON.stringify(event) ? old : event];
      }));
    }
    if (S.lost) { S.lost = false; render(); }
    return Boolean(found);
  } catch {
    if (!S.lost) { S.lost = true; render(); }
    return false;
  }
}

function notices() {
  const events = [...S.events.values()];
  const locked = events.filter((event) => !event.writable);
  const damaged = events.filter((event) => event.problem);
  const found = [];
  if (S.lost) found.push(h("p", { class: "notice" }, "The server does not answer: verdicts are not written now."));
  if (locked.length) {
    const folders = [...new Set(locked.map((event) => event.folder))].join(", ");
    found.push(h("p", { class: "notice" }, `No write access: verdicts on ${locked.length} events of ${folders} cannot be written.`));
  }
  const problems = [...damaged.map((event) => [event.name, event.problem]), ...(S.meta.problems ?? [])];
  if (problems.length) {
    const count = problems.length + (S.meta.more_problems ?? 0);
    found.push(h("details", { class: "notice" },
      h("summary", {}, `${count === 1 ? "1 thing in the folders is" : `${count} things in the folders are`} not shown or not whole`),
      h("ul", {}, problems.map(([path, reason]) => h("li", {}, h("code", {}, path), `: ${reason}`)))));
  }
  const node = document.querySelector("#notices");
  const open = node.querySelector("details")?.open;
  node.replaceChildren(...found);
  if (open) node.querySelector("details")?.setAttribute("open", "");
}

function head() {
  const all = [...S.events.values()];
  const done = all.filter((event) => state(event) !== "unreviewed").length;
  document.querySelector("#progress").textContent = all.length ? `${done} of ${all.length} reviewed` : "";
  document.querySelector("#bar div").style.width = `${all.length ? 100 * done / all.length : 0}%`;
  document.title = all.length > done ? `(${all.length - done}) Review` : "Review";
  document.querySelector("nav a[href='#/plan']").hidden = !all.some((event) => event.pose?.x != null);
  for (const link of document.querySelectorAll("nav a")) {
    const here = (location.hash || "#/events").startsWith(link.getAttribute("href"));
    link.classList.toggle("here", here);
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
}

export function filters() {
  const all = [...S.events.values()].filter((event) => !S.folder || event.folder === S.folder);
  const chips = ["all", "unreviewed", ...VERDICTS].map((name) => h("button", {
    type: "button", "aria-pressed": String(S.filter === name), "data-filter": name,
    onclick: () => { S.filter = name; render(); },
  }, name, h("b", {}, String(name === "all" ? all.length : all.filter((event) => state(event) === name).length))));
  const folders = [...new Set([...S.events.values()].map((event) => event.folder))].sort();
  const choose = (label, value, options, change) => {
    const node = h("select", { "aria-label": label, onchange: (e) => { change(e.target.value); render(); } },
      options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
    return node;
  };
  return h("div", { class: "tools" }, h("div", { class: "chips", role: "group", "aria-label": "Filter" }, chips),
    h("div", { class: "right" },
      folders.length > 1 && choose("Folder", S.folder, [["", "all folders"], ...folders.map((f) => [f, f])], (v) => { S.folder = v; }),
      choose("Order", S.sort, [["newest", "newest first"], ["oldest", "oldest first"], ["highest", "highest score"], ["lowest", "lowest score"]], (v) => { S.sort = v; })));
}

// The list.
function listView() {
  const cards = new Map();
  const grid = h("div", { class: "grid" });
  const tools = h("div");
  const empty = h("p", { class: "empty" });
  main.replaceChildren(tools, grid, empty);
  function card(event) {
    const old = cards.get(event.id);
    if (old?.event === event) return old.node;
    if (old) { old.node.querySelector(".badge").replaceWith(badge(event)); old.event = event; return old.node; }
    const node = h("a", { class: "card", href: `#/events/${event.id}`, "data-id": event.id },
      picture(event, "small", event.peak), badge(event),
      h("div", { class: "text" },
        h("div", { class: "when" }, h("span", {}, when(event)), h("span", {}, duration(event.seconds))),
        h("div", { class: "more" }, h("span", {}, event.folder), h("span", { title: "highest score" }, `score ${number(event.score)}`)),
        event.kind !== "alarm" || event.repeat_of ? h("div", { class: "more" }, event.repeat_of ? `repeat of ${event.repeat_of}` : event.kind) : null));
    node.addEventListener("focus", () => choose(event.id, false));
    cards.set(event.id, { event, node });
    return node;
  }
  function choose(id, focus = true) {
    S.chosen = id;
    for (const { node } of cards.values()) node.classList.toggle("chosen", node.dataset.id === id);
    const node = cards.get(id)?.node;
    if (node && focus) { node.focus({ preventScroll: true }); node.scrollIntoView({ block: "nearest" }); }
  }
  function draw() {
    const inside = grid.contains(document.activeElement);
    S.order = visible().map((event) => event.id);
    tools.replaceChildren(filters());
    grid.replaceChildren(...S.order.map((id) => card(S.events.get(id))));
    empty.textContent = S.order.length ? "" : S.events.size ? "No event is left here." : "No recorded event.";
    if (!S.order.includes(S.chosen)) S.chosen = S.order[0] ?? null;
    choose(S.chosen, inside);
  }
  function columns() { return getComputedStyle(grid).gridTemplateColumns.split(" ").length; }
  async function key(name) {
    const place = S.order.indexOf(S.chosen);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
    if (name in steps) {
      const next = S.order[Math.min(S.order.length - 1, Math.max(0, place + steps[name]))];
      if (next) choose(next);
    } else if (name === "Enter" && S.chosen) location.hash = `#/events/${S.chosen}`;
    else if (name in KEYS && S.chosen) {
      const next = S.order[place + 1] ?? S.order[place - 1];
      const event = S.events.get(S.chosen);
      if (await judge([event], { verdict: KEYS[name], note: event.verdict?.note, keep: event.verdict?.keep }) && next) choose(next);
    } else return false;
    return true;
  }
  return { draw, key };
}

// One event.
function eventView(id) {
  let frames = [], place = 0, playing = false, overlay = Boolean(eventView.overlay), range = null, drawn = null;
  const order = S.order.includes(id) ? S.order : [id];
  const event = () => S.events.get(id);
  if (!event()) {
    main.replaceChildren(h("p", { class: "empty" }, "This event is gone: it was removed or moved. ", h("a", { href: "#/events" }, "Back to the list")));
    return { draw() {}, key: () => false };
  }
  S.chosen = id;
  const image = h("img", { alt: "" });
  const phase = h("span", { class: "phase" });
  const slider = h("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": "Frame", oninput: () => show(Number(slider.value)) });
  const output = h("output");
  const play = h("button", { type: "button", onclick: toggle, "aria-label": "Play" }, "▶ Play");
  const check = h("input", { type: "checkbox", checked: overlay, onchange: () => { overlay = eventView.overlay = check.checked; show(place); } });
  const curve = h("div", { class: "curve", role: "img", "aria-label": "Score of each frame" });
  const note = h("textarea", { placeholder: "Note", "aria-label": "Note", maxlength: 4000, onchange: () => save({}) });
  const keep = h("input", { type: "checkbox", onchange: () => save({}) });
  const buttons = VERDICTS.map((name) => h("button", { type: "button", class: name, onclick: () => decide(name) }, name, h("kbd", {}, name[0])));
  const rangeText = h("p", { class: "muted" });
  const nearest = h("div", { class: "nearest", hidden: !S.meta.normal });
  const facts = h("dl", { class: "facts" });
  const title = h("h2");
  main.replaceChildren(h("div", { class: "event" },
    h("div", { class: "back" }, h("a", { href: "#/events" }, "← list"), title, h("span", { class: "right" },
      h("span", { class: "muted" }, `${order.indexOf(id) + 1} of ${order.length}`),
      h("button", { type: "button", onclick: () => go(-1), "aria-label": "Event before" }, "‹"),
      h("button", { type: "button", onclick: () => go(1), "aria-label": "Next event" }, "›"))),
    h("div", {},
      h("div", { class: "screen" }, image, phase),
      h("div", { class: "controls" }, play, slider, S.meta.model ? h("label", {}, check, " overlay") : null, output),
      curve,
      h("p", { class: "legend muted" }, h("span", {}, h("i", { style: "background:#fbe3d3" }), "alarm on"),
        h("span", {}, h("i", { style: "background:var(--anomaly);height:2px;vertical-align:4px" }), "threshold"),
        h("span", {}, h("i", { style: "background:#d5e9f5" }), "frames that the verdict is for"))),
    h("div", { class: "side" },
      h("div", { class: "judge" }, h("div", { class: "verdicts" }, buttons)),
      rangeText, note, h("label", {}, keep, " keep: the black box shall not remove it"), facts, nearest)));
  const key = Object.assign(image, { onerror: () => { output.textContent = "picture missing"; } });

  function show(number, load = true) {
    place = Math.min(frames.length - 1, Math.max(0, number));
    const frame = frames[place];
    if (!frame) return;
    slider.value = place;
    if (load) key.src = source(place);
    key.alt = `frame ${place + 1} of ${frames.length}`;
    phase.textContent = { before: "before the alarm", during: "alarm on", after: "after the alarm", sample: "sample", saved: "saved on demand" }[frame.phase] ?? frame.phase;
    output.textContent = `${place + 1} of ${frames.length}, ${frame.t.toFixed(1)} s, score ${frame.score == null ? "none" : Number(frame.score).toPrecision(4)}`;
    const x = place / Math.max(1, frames.length - 1) * 1000;
    for (const name of ["x1", "x2"]) curve.querySelector(".cursor")?.setAttribute(name, x);
    clearTimeout(show.timer);
    show.timer = setTimeout(showNearest, 250);
  }
  const source = (number) => `/${overlay && S.meta.model ? "overlay" : "full"}/${id}/${number}`;
  function showNearest() {
    if (!S.meta.normal || playing || nearest.dataset.place === String(place)) return;
    nearest.dataset.place = place;
    nearest.replaceChildren(h("p", { class: "muted", style: "margin:0 0 5px" }, "Nearest normal frame of training"),
      h("img", { src: `/nearest/${id}/${place}`, alt: "nearest normal frame of training" }));
  }
  async function toggle() {
    playing = !playing;
    play.textContent = playing ? "❚❚ Stop" : "▶ Play";
    if (playing && place === frames.length - 1) place = -1;
    while (playing && place < frames.length - 1) {
      const next = new Image();
      next.src = source(place + 1);
      const wait = place < 0 ? 0 : Math.min(1000, Math.max(40, (frames[place + 1].t - frames[place].t) * 1000));
      await Promise.all([next.decode().catch(() => {}), new Promise((done) => setTimeout(done, wait))]);
      if (!playing || view.id !== id) break;
      show(place + 1);
    }
    playing = false;
    play.textContent = "▶ Play";
    showNearest();
  }
  function drawCurve() {
    const scores = frames.map((frame) => frame.score).filter((score) => score != null);
    const limit = event().threshold;
    const values = limit == null ? scores : [...scores, limit];
    const low = Math.min(...values), high = Math.max(...values);
    const y = (score) => 122 - 112 * (score - low) / (high - low || 1);
    const x = (number) => number / Math.max(1, frames.length - 1) * 1000;
    const during = frames.map((frame, number) => frame.phase === "during" ? number : -1).filter((number) => number >= 0);
    let path = "", pen = "M";
    frames.forEach((frame, number) => {
      if (frame.score == null) { pen = "M"; return; }
      path += `${pen}${x(number).toFixed(1)} ${y(frame.score).toFixed(1)}`;
      pen = "L";
    });
    const box = (first, last, kind) => h("rect", { class: kind, x: x(first), width: Math.max(2, x(last) - x(first)), y: 0, height: 130 });
    curve.replaceChildren(h("svg", { viewBox: "0 0 1000 130", preserveAspectRatio: "none" },
      during.length ? box(during[0], during.at(-1), "alarm") : null,
      range ? box(range[0], range[1], "range") : null,
      limit == null ? null : h("path", { class: "limit", d: `M0 ${y(limit)}H1000` }),
      h("path", { class: "score", d: path }),
      h("line", { class: "cursor", x1: x(place), x2: x(place), y1: 0, y2: 130 })),
      limit == null ? "" : h("span", { style: `top:${6 + y(limit)}px` }, `threshold ${Number(limit).toPrecision(4)}`));
  }
  function pointed(e) {
    if (e.type === "pointermove" && !e.buttons) return;
    const box = curve.getBoundingClientRect();
    show(Math.round((e.clientX - box.left) / box.width * (frames.length - 1)));
  }
  curve.addEventListener("pointerdown", pointed);
  curve.addEventListener("pointermove", pointed);

  function draw() {
    const now = event();
    if (!now) { location.hash = "#/events"; return; }
    if (drawn === now) return;
    const first = drawn === null;
    drawn = now;
    title.replaceChildren(when(now), " ", badge(now));
    buttons.forEach((button, index) => button.setAttribute("aria-pressed", String(state(now) === VERDICTS[index])));
    for (const node of [...buttons, note, keep]) node.disabled = !now.writable;
    if (document.activeElement !== note) note.value = now.verdict?.note ?? "";
    keep.checked = now.verdict?.keep ?? false;
    if (first || now.verdict) range = now.verdict?.frames ?? null;
    drawRange();
    const row = (name, value) => value == null || value === "" ? [] : [h("dt", {}, name), h("dd", {}, String(value))];
    const pose = now.pose?.x == null ? now.pose?.problem : `${now.pose.frame_id} ${now.pose.x.toFixed(2)}, ${now.pose.y.toFixed(2)} m`;
    facts.replaceChildren(...row("peak score", `${number(now.score)}, threshold ${number(now.threshold)}`),
      ...row("duration", duration(now.seconds)), ...row("folder", now.folder), ...row("event", now.name),
      ...row("model", now.model), ...row("where", pose), ...row("alarms", now.alarms > 1 ? now.alarms : null),
      ...row("part", now.part > 1 || now.continues ? `${now.part}${now.continues ? ", goes on" : ""}` : null),
      ...row("kind", now.kind === "alarm" ? null : now.kind), ...row("repeat of", now.repeat_of), ...row("judged", now.verdict?.when?.slice(0, 19).replace("T", " ")),
      ...row("problem", now.problem));
    if (first) {
      ask(`/api/events/${id}`).then((found) => {
        frames = found.frames;
        slider.max = frames.length - 1;
        place = now.peak;
        drawCurve();
        show(place);
      }).catch((error) => toast(error.message, { bad: true }));
    } else drawCurve();
  }
  function drawRange() {
    rangeText.replaceChildren(range ? `The verdict is for frames ${range[0] + 1} to ${range[1] + 1} alone. ` : "The verdict is for all frames. ",
      range ? h("button", { type: "button", onclick: () => limit(null) }, "for all") : h("span", {}, h("kbd", {}, "["), " ", h("kbd", {}, "]"), " limit it to some."));
  }
  function limit(value) {
    range = value;
    drawRange();
    drawCurve();
    if (state(event()) !== "unreviewed") save({});
  }
  const save = (changes, options = { silent: true }) => judge([event()], {
    verdict: state(event()), note: note.value, keep: keep.checked, frames: range, ...changes,
  }, options);
  async function decide(name) {
    if (!event().writable) { toast("No write access to this event's folder", { bad: true }); return; }
    if (await save({ verdict: name }, {})) go(1, true);
  }
  function go(step, quiet = false) {
    const next = order[order.indexOf(id) + step];
    if (next) { playing = false; location.hash = `#/events/${next}`; }
    else if (!quiet) toast(step > 0 ? "This is the last one" : "This is the first one");
  }
  function pressed(name) {
    if (name in KEYS) decide(KEYS[name]);
    else if (name === "ArrowLeft" || name === "ArrowUp") go(-1);
    else if (name === "ArrowRight" || name === "ArrowDown") go(1);
    else if (name === "Escape") location.hash = "#/events";
    else if (name === " ") toggle();
    else if (name === ",") show(place - 1);
    else if (name === ".") show(place + 1);
    else if (name === "o" && S.meta.model) { check.checked = !check.checked; check.dispatchEvent(new Event("change")); }
    else if (name === "[") limit([place, Math.max(place, range?.[1] ?? frames.length - 1)]);
    else if (name === "]") limit([Math.min(place, range?.[0] ?? 0), place]);
    else return false;
    return true;
  }
  return { draw, key: pressed, id, leave: () => { playing = false; } };
}

export function render() {
  notices();
  head();
  view?.draw();
}

function route() {
  view?.leave?.();
  const [, name, id] = (location.hash || "#/events").split("/");
  if (name === "alike") view = alikeView(main);
  else if (name === "what-if") view = whatIfView(main);
  else if (name === "plan") view = planView(main);
  else view = id ? eventView(id) : listView();
  if (id || name !== "events") window.scrollTo(0, 0);
  render();
  if (!id && name === "events" && S.chosen) document.querySelector(`[data-id="${S.chosen}"]`)?.focus();
}

document.addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
  const typing = e.target.matches("textarea, select, input:not([type=range]):not([type=checkbox])");
  if (typing) { if (e.key === "Escape") e.target.blur(); return; }
  if (e.target.matches("input[type=range]") && e.key.startsWith("Arrow")) return;
  if (e.target.matches("button, summary, input[type=checkbox]") && [" ", "Enter"].includes(e.key)) return;
  if (e.key === "?") document.querySelector("#help").showModal();
  else if (e.key === "z") takeBack();
  else if (e.repeat && e.key in KEYS) return;
  else if (e.key === "Enter" && e.target.matches("a")) return;
  else if (!handled(view?.key?.(e.key))) return;
  e.preventDefault();
});
// A view answers at once or, after a verdict, later: then it was its key as well.
const handled = (answer) => answer instanceof Promise || Boolean(answer);

document.querySelector("#help-button").addEventListener("click", () => document.querySelector("#help").showModal());
addEventListener("hashchange", route);
await refresh();
route();
setInterval(async () => { if (!document.hidden && await refresh()) render(); }, POLL_MS);
document.addEventListener("visibilitychange", async () => { if (!document.hidden && await refresh()) render(); });
