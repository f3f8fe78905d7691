// Views over many events at once: those that look alike, the plan, and what if.

import { S, VERDICTS, ask, badge, duration, filters, h, judge, number, picture, put, state, toast, visible, when } from "./review.js";

const KEYS = { n: "normal", a: "anomaly", u: "unsure" };

// Groups. A verdict counts for those events alone whose picture was on the screen.
export function alikeView(main) {
  let groups = [], chosen = 0, member = 0, alike = alikeView.alike ?? 0.9, waiting = 0, timer = 0, left = false;
  let asking = Promise.resolve();
  const seen = new Set(), masks = alikeView.masks ??= new Map();
  const watcher = new IntersectionObserver((found) => {
    for (const item of found) {
      const image = item.target.querySelector("img");
      if (item.isIntersecting && image?.complete && image.naturalWidth) add(item.target.dataset.id);
      else if (item.isIntersecting) image?.addEventListener("load", () => { if (inView(item.target)) add(item.target.dataset.id); }, { once: true });
    }
  }, { threshold: 0.6 });
  const inView = (node) => { const box = node.getBoundingClientRect(); return box.top < innerHeight && box.bottom > 0; };
  function add(id) { if (!seen.has(id)) { seen.add(id); labels(); } }
  const status = h("p", { class: "muted" });
  const list = h("div");
  const slider = h("input", { type: "range", min: 0.5, max: 0.99, step: 0.01, value: alike, "aria-label": "How alike",
    oninput: () => { alike = alikeView.alike = Number(slider.value); value.textContent = alike.toFixed(2); load(); } });
  const value = h("output", {}, alike.toFixed(2));
  main.replaceChildren(h("div", { class: "tools" }, h("label", { style: "display:flex;gap:9px;align-items:center" }, "how alike", slider, value), status), list);

  async function load() {
    clearTimeout(timer);
    try {
      const found = await ask(`/api/groups?alike=${alike}`);
      if (left) return;
      ({ groups, waiting } = found);
      status.textContent = `${groups.length} groups, by ${found.by}${waiting ? `; ${waiting} events are still to be compared` : ""}`;
      draw(true);
    } catch (error) { toast(error.message, { bad: true }); }
    if (waiting && !left) timer = setTimeout(load, 1000);
  }
  const label = (event) => `${when(event).slice(5, 16)} · ${number(event.score)}`;
  const members = (group) => group.map((id) => S.events.get(id)).filter(Boolean);
  const open = (group) => members(group).filter((event) => state(event) === "unreviewed" && !S.taken.has(event.id));
  const ready = (group) => open(group).filter((event) => seen.has(event.id) && event.writable);
  let boxes = [];
  function labels() {
    for (const { group, buttons, text } of boxes) {
      const count = ready(group).length, all = open(group).length;
      buttons.forEach((button) => { button.disabled = !count; });
      text.textContent = !all ? "all judged or taken out" : count < all ? `${count} of ${all} unreviewed were shown` : `${all} unreviewed`;
    }
  }
  function draw(again = false) {
    const key = JSON.stringify([groups, [...S.taken], groups.flat().map((id) => state(S.events.get(id) ?? {}))]);
    if (!again && key === draw.key) return;
    draw.key = key;
    watcher.disconnect();
    // What waits for a verdict comes first.
    const sorted = [...groups].sort((a, b) => open(b).length - open(a).length).filter((group) => members(group).length > 1);
    const alone = groups.filter((group) => members(group).length === 1).flatMap(members);
    boxes = sorted.map((group, index) => {
      const buttons = VERDICTS.map((name) => h("button", { type: "button", class: name, onclick: () => decide(index, name) }, name, h("kbd", {}, name[0])));
      const text = h("span", { class: "muted" });
      const cells = members(group).map((event) => {
        const out = S.taken.has(event.id);
        const node = h("div", { class: `member${out ? " out" : ""}`, "data-id": event.id },
          h("a", { href: `#/events/${event.id}`, title: event.name }, picture(event, "small", event.peak), h("div", { class: "text" }, label(event))),
          badge(event), h("button", { type: "button", title: "take it out of the group (x)", onclick: () => take(event.id) }, out ? "put back" : "✕"));
        return node;
      });
      const node = h("section", { class: "group" }, h("div", { class: "head" },
        h("b", {}, `${group.length} events alike`), text, h("div", { class: "verdicts" }, buttons)),
        h("div", { class: "members" }, cells));
      propose(group, node);
      return { group, buttons, text, node, cells };
    });
    put(list, ...boxes.map((box) => box.node),
      alone.length ? h("section", { class: "group" }, h("div", { class: "head" }, h("b", {}, `${alone.length} unlike the others`), h("span", { class: "muted" }, "open each to judge it")),
        h("div", { class: "members" }, alone.map((event) => h("div", { class: "member" }, h("a", { href: `#/events/${event.id}`, title: event.name, onclick: () => { S.order = alone.map((item) => item.id); } },
          picture(event, "small", event.peak), h("div", { class: "text" }, label(event))), badge(event))))) : null,
      boxes.length || alone.length ? null : h("p", { class: "empty" }, waiting ? "Comparing the events…" : "No recorded event."));
    for (const box of boxes) for (const cell of box.cells) watcher.observe(cell);
    labels();
    mark();
  }
  // One after the other: each takes the server some pictures.
  function propose(group, node) {
    if (!S.meta.least_masked || group.length < S.meta.least_masked) return;
    const key = group.join();
    if (!masks.has(key)) masks.set(key, asking = asking.then(() => left ? null : ask("/api/mask", { events: group })).catch(() => null));
    masks.get(key).then((found) => {
      const mask = found?.proposal;
      if (!found) masks.delete(key);
      if (mask) node.append(h("div", { class: "mask" }, h("img", { src: mask.picture, alt: "the proposed mask, hatched" }),
        h("div", {}, h("p", {}, "The heat of these events stays at the same pixels of the camera while the rest moves: the robot's own bumper, a clock, a screen? A mask leaves such a place out, and an anomaly there too."),
          h("a", { href: mask.mask, download: "mask.png" }, "Download mask.png"), h("pre", {}, mask.command))));
    });
  }
  function mark(scroll = false) {
    chosen = Math.min(boxes.length - 1, Math.max(0, chosen));
    boxes.forEach((box, index) => {
      box.node.classList.toggle("chosen", index === chosen);
      if (index === chosen) member = Math.min(box.cells.length - 1, Math.max(0, member));
      box.cells.forEach((cell, place) => cell.classList.toggle("chosen", index === chosen && place === member));
    });
    if (scroll) boxes[chosen]?.cells[member]?.scrollIntoView({ block: "nearest" });
    if (scroll && member === 0) boxes[chosen]?.node.scrollIntoView({ block: "nearest" });
  }
  function take(id) {
    if (!S.taken.delete(id)) S.taken.add(id);
    draw();
  }
  async function decide(index, verdict) {
    const events = ready(boxes[index].group);
    if (!events.length) { toast("Nothing here is unreviewed and was on the screen"); return; }
    await judge(events, { verdict }, { shown: events.map((event) => event.picture) });
  }
  function pressed(name) {
    if (name in KEYS) { if (boxes[chosen]) decide(chosen, KEYS[name]); }
    else if (name === "ArrowDown") { chosen += 1; member = 0; mark(true); }
    else if (name === "ArrowUp") { chosen -= 1; member = 0; mark(true); }
    else if (name === "ArrowRight") { member += 1; mark(true); }
    else if (name === "ArrowLeft") { member -= 1; mark(true); }
    else if (name === "x") { const id = boxes[chosen]?.cells[member]?.dataset.id; if (id) take(id); }
    else if (name === "Enter") { const id = boxes[chosen]?.cells[member]?.dataset.id; if (id) { S.order = boxes[chosen].group; location.hash = `#/events/${id}`; } }
    else return false;
    return true;
  }
  load();
  return { draw, key: pressed, leave: () => { left = true; clearTimeout(timer); watcher.disconnect(); } };
}

// What another threshold and alarm filter would have made of the stored scores.
export function whatIfView(main) {
  const tools = h("div"), form = h("div"), result = h("div", { "aria-live": "polite" });
  const kept = whatIfView.kept ??= {};
  let model = kept.model ?? "", asked = 0, shownKey = "";
  main.replaceChildren(tools, h("div", { class: "what-if" }, form, result));
  // A sample is a normal frame of its own, and no alarm.
  const events = () => visible().filter((event) => event.model === model && event.kind === "alarm");

  function field(name, text, { min, max, step, value }, tip = "") {
    const slide = h("input", { type: "range", min, max, step, value, "aria-label": text });
    const box = h("input", { type: "number", step: "any", value, "aria-label": `${text}, number` });
    slide.addEventListener("input", () => { box.value = slide.value; kept[name] = Number(slide.value); soon(); });
    box.addEventListener("change", () => { slide.value = box.value; kept[name] = Number(box.value); soon(); });
    return h("label", { title: tip }, text, h("div", { class: "row" }, slide, box));
  }
  function draw() {
    const all = visible();
    const models = [...new Set([...S.events.values()].map((event) => event.model))];
    if (!models.includes(model)) {
      const count = (name) => all.filter((event) => event.model === name).length;
      model = models.sort((a, b) => count(b) - count(a))[0] ?? "";
    }
    tools.replaceChildren(filters());
    const key = JSON.stringify([model, events().map((event) => [event.id, state(event)])]);
    if (key === shownKey) return;
    shownKey = key;
    drawForm(models);
    soon();
  }
  function drawForm(models) {
    const own = [...S.events.values()].filter((event) => event.model === model);
    const limits = own.map((event) => event.threshold).filter((value) => value != null);
    const peaks = own.map((event) => event.score).filter((value) => value != null);
    const base = limits.at(-1) ?? 0, top = Math.max(base, ...peaks), reach = top - base || Math.abs(base) || 1;
    if (kept.model !== model) { kept.threshold = base; kept.model = model; }
    kept.mode ??= "frames";
    const parts = [h("p", { class: "muted" }, `Over the ${events().length} events that the filters above leave${S.meta.drives?.length ? ` and ${S.meta.drives.length} drives` : ""}. Drag to try.`)];
    if (models.length > 1) parts.push(h("label", {}, "model ", h("select", { onchange: (e) => { model = e.target.value; shownKey = ""; draw(); } },
      models.map((name) => h("option", { value: name, selected: name === model }, name)))));
    parts.push(field("threshold", `threshold (recorded ${number(base)})`, { min: base - reach / 2, max: top, step: reach / 400, value: kept.threshold }));
    for (const option of S.meta.alarm ?? []) {
      kept[option.name] ??= option.default;
      if (option.name === "mode") {
        parts.push(h("label", {}, "mode ", h("select", { onchange: (e) => { kept.mode = e.target.value; drawForm(models); soon(); } },
          option.choices.map((name) => h("option", { value: name, selected: name === kept.mode }, name)))));
        continue;
      }
      const mode = option.name.endsWith("_frames") ? "frames" : option.name.endsWith("_seconds") ? "seconds" : "";
      if (kept.mode === "off" || (mode && mode !== kept.mode)) continue;
      const max = mode === "frames" ? 60 : mode === "seconds" ? 10 : option.maximum;
      parts.push(field(option.name, option.name.replaceAll("_", " "), { min: option.minimum, max, step: option.is_whole ? 1 : 0.01, value: kept[option.name] }, option.description));
    }
    parts.push(h("button", { type: "button", onclick: () => { for (const option of S.meta.alarm) kept[option.name] = option.default; kept.threshold = base; drawForm(models); soon(); } }, "as recorded, with the default filter"));
    form.replaceChildren(...parts);
  }
  function soon() { clearTimeout(soon.timer); soon.timer = setTimeout(compute, 150); }
  async function compute() {
    const mine = ++asked;
    const alarm = Object.fromEntries((S.meta.alarm ?? []).map((option) => [option.name, kept[option.name]]));
    let found;
    try { found = await ask("/api/what-if", { threshold: kept.threshold, alarm, events: events().map((event) => event.id) }); }
    catch (error) { if (mine === asked) result.replaceChildren(h("p", { class: "notice" }, error.message)); return; }
    if (mine !== asked) return;
    const names = ["anomaly", "normal", "unsure", "unreviewed"];
    const get = (kind, name) => found[kind][name] ?? 0;
    const figure = (name, text, more, bad = false) => h("div", { class: `key${bad ? " bad" : ""}` }, h("div", { class: "muted" }, name), h("div", { class: "value" }, text), h("div", { class: "muted" }, more));
    // A parameter of type double needs a point.
    const real = (value) => String(Number(Number(value).toPrecision(6))).replace(/^(-?\d+)$/, "$1.0");
    const yaml = ["/**:", "  ros__parameters:", `    threshold: ${real(kept.threshold)}`, ...Object.entries(alarm).map(([name, value]) => `    alarm_${name}: ${typeof value === "string" ? `"${value}"` : S.meta.alarm.find((o) => o.name === name).is_whole ? value : real(value)}`)].join("\n");
    put(result,
      h("div", { class: "keys" },
        figure("alarms a day", found.a_day.toFixed(1), `${names.reduce((sum, name) => sum + get("kept", name), 0)} of the events in ${found.days.toFixed(1)} days`),
        found.drives_a_day != null ? figure("alarms a day, drives", found.drives_a_day.toFixed(1), `${found.drives.reduce((sum, drive) => sum + drive.alarms, 0)} in ${duration(found.drives.reduce((sum, drive) => sum + drive.seconds, 0))}`) : null,
        figure("true anomalies lost", String(get("lost", "anomaly")), `of ${get("lost", "anomaly") + get("kept", "anomaly")} judged anomaly`, get("lost", "anomaly") > 0),
        figure("false alarms gone", String(get("lost", "normal")), `of ${get("lost", "normal") + get("kept", "normal")} judged normal`)),
      h("table", {}, h("thead", {}, h("tr", {}, ["verdict", "alarm stays", "alarm goes"].map((text) => h("th", {}, text)))),
        h("tbody", {}, names.map((name) => h("tr", {}, h("td", {}, name), h("td", {}, String(get("kept", name))), h("td", {}, String(get("lost", name))))))),
      found.lost_anomalies.length ? h("div", {}, h("h2", {}, "Lost"), h("div", { class: "members" }, found.lost_anomalies.slice(0, 24).map((id) => S.events.get(id)).filter(Boolean).map((event) =>
        h("div", { class: "member" }, h("a", { href: `#/events/${event.id}` }, picture(event, "small", event.peak), h("div", { class: "text" }, when(event))))))) : null,
      h("h2", {}, "Parameters"),
      h("pre", {}, yaml),
      h("button", { type: "button", onclick: () => navigator.clipboard?.writeText(yaml).then(() => toast("Copied"), () => toast("Select and copy the text", { bad: true })) }, "Copy"),
      found.left_out ? h("p", { class: "muted" }, `${found.left_out} events have too few scores and are left out.`) : null,
      h("p", { class: "muted" }, "An event holds a few frames a second; each stands for those until the next. What never raised an alarm was never recorded: a lower threshold would raise more than the events can show. Give tables of drives with --scores for that."));
  }
  return { draw, key: () => false, leave: () => { asked += 1; clearTimeout(soon.timer); } };
}

// Where it was.
export function planView(main) {
  const box = h("div", { class: "plan" });
  let plans = null, place = 0, shown = "";
  main.replaceChildren(box);
  ask("/api/plans").then((found) => { plans = found.plans; draw(); }).catch((error) => toast(error.message, { bad: true }));
  function draw() {
    if (!plans) return;
    if (!plans.length) { box.replaceChildren(h("p", { class: "empty" }, "No event has a pose.")); return; }
    const key = JSON.stringify([place, visible().map((event) => [event.id, state(event)])]);
    if (key === shown) return;
    shown = key;
    const plan = plans[place];
    const left = Math.min(...plan.x), right = Math.max(...plan.x), low = Math.min(...plan.y), high = Math.max(...plan.y);
    const size = Math.max(right - left, high - low, 1), edge = size * 0.04;
    // y grows upwards on a map.
    const drawing = h("svg", { viewBox: `${left - edge} ${-high - edge} ${right - left + 2 * edge} ${high - low + 2 * edge}`, role: "img", "aria-label": "Plan of the events" });
    if (plan.map) {
      const { x, y, yaw, width, height } = plan.map;
      drawing.append(h("image", { href: "/map", x: 0, y: -height, width, height, preserveAspectRatio: "none", opacity: 0.65, transform: `translate(${x} ${-y}) rotate(${-yaw * 180 / Math.PI})` }));
    }
    for (const path of plan.paths) drawing.append(h("polyline", { class: "path", points: path.map(([x, y]) => `${x},${-y}`).join(" ") }));
    for (const event of visible()) {
      const at = plan.events[event.id];
      if (!at) continue;
      const open = () => { S.order = visible().map((item) => item.id); location.hash = `#/events/${event.id}`; };
      drawing.append(h("circle", { class: state(event), cx: at[0], cy: -at[1], r: size * 0.011, tabindex: 0, role: "link", onclick: open, onkeydown: (e) => { if (e.key === "Enter") open(); } },
        h("title", {}, `${when(event)}, ${state(event)}, score ${number(event.score)}`)));
    }
    const count = visible().filter((event) => plan.events[event.id]).length;
    put(box, filters(), plans.length > 1 ? h("label", {}, "frame ", h("select", { onchange: (e) => { place = Number(e.target.value); draw(); } }, plans.map((item, index) => h("option", { value: index, selected: index === place }, item.frame_id)))) : "",
      drawing, h("p", { class: "legend muted" },
        ...[["normal", "var(--normal)"], ["anomaly", "var(--anomaly)"], ["unsure", "var(--unsure)"], ["unreviewed", "var(--ink)"]].map(([name, color]) => h("span", {}, h("i", { style: `background:${color};border-radius:50%;width:10px` }), name)),
        h("span", {}, `${count} of ${visible().length} events have a place in frame ${plan.frame_id}`)));
  }
  return { draw, key: () => false };
}
