"use strict";
// Images stand in groups of one guess, drawn only where they are seen. A label is a class's number, NONE for none.
const NONE = -1, GAP = 8, PAD = 12, TITLE = 38, CAPTION = 20, FRAME = 5, OVERSCAN = 400, SIDE = 88, DRAG = 6;
const data = JSON.parse(document.getElementById("data").textContent);
const { classes, files, given, best, shares } = data;
const at = id => document.getElementById(id);
const list = at("list"), label = given.slice(), selected = new Set(), done = [], undone = [];
const side = data.cell * Math.max(1, Math.round(SIDE / data.cell)), capacity = data.columns ** 2;
const height = side + 2 * FRAME + CAPTION + GAP;  // of a row
const tiles = new Map(), groups = new Map();
const position = new Int32Array(files.length);  // of each image among those shown, NONE of the others
let sections = [], shown = [], columns = 1, pitch = 0, active = NONE, anchor = NONE, unsaved = false, drag = null, dropped = false;
let notice = "";  // of what was done last, until a hand moves again

function made(kind, name, text) {
  const element = document.createElement(kind);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

const percent = share => `${Math.floor(100 * share)} %`;  // 100 % is said of certainty alone
const nameOf = k => k === NONE ? "no label" : classes[k];
const isChanged = i => label[i] !== given[i];
const count = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;

// Which images are shown, in which groups, and where

function choose() {
  const only = at("class").value, state = at("state").value;
  const [low, high] = ["from", "to"].map(id => at(id).valueAsNumber / 100);
  const admitted = i => {
    const share = shares[i][0], from = !(share < low), to = !(share > high);  // an empty field admits all
    const states = { open: label[i] === NONE, changed: isChanged(i), other: label[i] !== NONE && label[i] !== best[i][0] };
    return from && to && (only === "all" || best[i][0] === Number(only)) && (state === "all" || states[state]);
  };
  const found = new Map();
  files.forEach((_, i) => {
    if (!admitted(i)) return;
    const key = i < data.next ? "next" : best[i][0];
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(i);
  });
  sections = [...found].map(([key, images]) => ({ key, images, name: key === "next" ? "Next to label" : classes[key] }));
  shown = sections.flatMap(section => section.images);
  position.fill(NONE);
  shown.forEach((i, place) => { position[i] = place; });
  for (const i of selected) if (position[i] === NONE) selected.delete(i);
  if (active === NONE || position[active] === NONE) active = anchor = shown.length ? shown[0] : NONE;
  at("empty").hidden = shown.length > 0;
  arrange();
}

function arrange() {
  const width = list.clientWidth - 2 * PAD + GAP;
  columns = Math.max(1, Math.floor(width / (side + 2 * FRAME + GAP)));
  pitch = Math.floor(width / columns);
  let top = 0, first = 0;
  for (const section of sections) {
    Object.assign(section, { top, first, height: TITLE + Math.ceil(section.images.length / columns) * height + GAP });
    top += section.height;
    first += section.images.length;
  }
  clear();
  const room = made("div");
  room.id = "room";
  room.setAttribute("role", "presentation");
  room.style.height = `${top}px`;
  list.append(room);
  draw();
}

function clear() {
  tiles.clear();
  groups.clear();
  list.replaceChildren();
}

function place(i) {
  const section = sections.findLast(each => each.first <= position[i]), inner = position[i] - section.first;
  return { section, inner, top: section.top + TITLE + Math.floor(inner / columns) * height };
}

function draw() {
  const low = list.scrollTop - OVERSCAN, high = list.scrollTop + list.clientHeight + OVERSCAN;
  const seen = new Set();
  for (const section of sections) {
    if (section.top > high || section.top + section.height < low) {
      groups.get(section)?.remove();
      groups.delete(section);
      continue;
    }
    const group = groups.get(section) || groupOf(section);
    const from = Math.max(0, Math.floor((low - section.top - TITLE) / height) * columns);
    const to = Math.min(section.images.length, Math.ceil((high - section.top - TITLE) / height) * columns);
    let before = group.firstChild;
    for (let inner = from; inner < to; inner++) {
      const i = section.images[inner];
      seen.add(i);
      if (!tiles.has(i)) {
        const tile = tileOf(i, section.first + inner);
        tile.style.left = `${PAD + inner % columns * pitch}px`;
        tile.style.top = `${TITLE + Math.floor(inner / columns) * height}px`;
        tiles.set(i, tile);
        before.after(tile);  // in the order of the page, for those who hear it
      }
      before = tiles.get(i);
    }
  }
  for (const [i, tile] of tiles) if (!seen.has(i)) tile.remove(), tiles.delete(i);
}

function groupOf(section) {
  const group = made("div", "group"), title = made("div", "title");
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", `${section.name}, ${count(section.images.length, "image")}`);
  title.setAttribute("aria-hidden", "true");  // the group says the same
  title.append(made("bdi", "", section.name), made("span", "", count(section.images.length, "image")));
  title.onclick = () => selectAll(section);
  if (section.key !== "next") group.dataset.label = section.key;
  group.style.top = `${section.top}px`;
  group.style.height = `${section.height}px`;
  group.append(title);
  const below = sections.slice(sections.indexOf(section) + 1).map(each => groups.get(each)).find(Boolean);
  groups.set(section, group);
  list.insertBefore(group, below || null);
  return group;
}

function tileOf(i, position) {
  const tile = made("div", "tile"), picture = made("div", "picture");
  tile.id = `image${i}`;
  tile.style.width = `${side + 2 * FRAME}px`;
  tile.setAttribute("role", "option");
  tile.setAttribute("aria-setsize", shown.length);
  tile.setAttribute("aria-posinset", position + 1);
  frame(picture, i, side);
  tile.append(picture, made("div", "caption"));
  paint(i, tile);
  return tile;
}

function frame(picture, i, size) {
  const inner = i % capacity;
  picture.className = `picture sheet${Math.floor(i / capacity)}`;
  picture.style.width = picture.style.height = `${size}px`;
  picture.style.backgroundSize = `${data.columns * size}px auto`;
  picture.style.backgroundPosition = `-${inner % data.columns * size}px -${Math.floor(inner / data.columns) * size}px`;
}

// In a group of one guess the guess need not be said again
const unsure = i => i >= data.next ? [percent(shares[i][0])] : [`${percent(shares[i][0])} `, made("bdi", "", classes[best[i][0]])];

function paint(i, tile = tiles.get(i)) {
  if (!tile) return;
  const wrong = label[i] !== best[i][0], sure = percent(shares[i][0]);
  tile.classList.toggle("current", i === active);
  tile.classList.toggle("labelled", label[i] !== NONE);
  tile.classList.toggle("changed", isChanged(i));
  tile.classList.toggle("wrong", wrong);
  tile.setAttribute("aria-selected", selected.has(i));
  const state = !isChanged(i) ? (label[i] === NONE ? "" : `, labelled ${nameOf(label[i])}`)
    : label[i] === NONE ? ", label removed" : wrong ? `, corrected to ${nameOf(label[i])}` : ", confirmed";
  tile.setAttribute("aria-label", `${files[i]}: ${classes[best[i][0]]}, ${sure} certain${state}`);
  const caption = tile.lastChild, told = made("bdi", "", label[i] === NONE ? nameOf(NONE) : classes[label[i]]);
  caption.replaceChildren(...(label[i] === NONE && !isChanged(i) ? unsure(i) : isChanged(i) && !wrong ? ["✓ ", told] : [told]));
}

// What is active, and what is selected

function move(i, extend) {
  if (i === NONE || i === undefined) return;
  const before = active;
  active = i;
  if (extend) {
    const [low, high] = [position[anchor], position[i]].sort((a, b) => a - b);
    select(shown.slice(low, high + 1));
  } else anchor = i;
  const { top } = place(i), bottom = top + height;
  if (top - TITLE < list.scrollTop) list.scrollTop = top - TITLE;
  else if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  draw();
  paint(before);
  paint(i);
  tell();
}

function select(images) {
  const before = [...selected];
  selected.clear();
  images.forEach(i => selected.add(i));
  new Set([...before, ...images]).forEach(i => paint(i));
  tell();
}

function toggle(i) {
  if (!selected.delete(i)) selected.add(i);
  paint(i);
  tell();
}

function selectAll(section) {
  if (!section) return;
  const whole = section.images.every(i => selected.has(i));
  select(whole ? [] : section.images);
}

function neighbour(step) {
  const { section, inner } = place(active), last = section.images.length - 1;
  const column = inner % columns, target = inner + step * columns;
  if (Math.abs(step) > 1) {  // a page
    return shown[Math.min(shown.length - 1, Math.max(0, position[active] + step * columns))];
  }
  if (target >= 0 && target <= last) return section.images[target];
  if (step > 0 && Math.floor(inner / columns) < Math.floor(last / columns)) return section.images[last];
  const other = sections[sections.indexOf(section) + step];
  if (!other) return active;
  if (step > 0) return other.images[Math.min(column, other.images.length - 1)];
  const end = other.images.length - 1, row = end - end % columns;
  return other.images[Math.min(row + column, end)];
}

// Labels

function assign(choice) {
  const images = (selected.size ? shown.filter(i => selected.has(i)) : [active]).filter(i => i !== NONE);
  if (!images.length) return;
  const next = shown[Math.min(shown.length - 1, position[images[images.length - 1]] + 1)];
  const changes = images.map(i => [i, label[i], choice === "guess" ? best[i][0] : choice]);
  change(changes.filter(([, before, after]) => before !== after));
  select([]);
  move(next);
  const what = images.length === 1 ? files[images[0]] : count(images.length, "image");
  say(choice === "guess" ? `${what}: the guess is right` : `${what}: ${nameOf(choice)}`);
}

function change(changes) {
  if (!changes.length) return;
  done.push(changes);
  undone.length = 0;
  apply(changes, 2);
}

function apply(changes, which) {
  for (const each of changes) label[each[0]] = each[which];
  changes.forEach(each => paint(each[0]));
  unsaved = true;
  keep();
  tell();
}

function back(from, to, which, word) {
  const changes = from.pop();
  if (!changes) return;
  to.push(changes);
  apply(changes, which);
  const first = changes.map(each => each[0]).find(i => position[i] !== NONE);
  move(first);
  say(`${word}: ${count(changes.length, "image")}`);
}

const undo = () => back(done, undone, 1, "undone");
const redo = () => back(undone, done, 2, "done again");

// What was labelled survives a page that is closed; where a browser keeps nothing, `beforeunload` asks before that
const KEY = `ssl-gen review ${data.id}`;

function keep() {
  const changed = label.map((k, i) => [i, k]).filter(([i]) => isChanged(i));
  try { localStorage.setItem(KEY, JSON.stringify(changed)); } catch (refused) { console.info(refused.message); }
}

function restore() {
  let kept = [];
  try { kept = JSON.parse(localStorage.getItem(KEY)) || []; } catch (refused) { console.info(refused.message); }
  change(kept.map(([i, k]) => [i, given[i], k]));
  if (kept.length) say(`${count(kept.length, "change")} of an earlier visit taken up`);
}

// The table, as ssl_gen.core.cells and Python's csv write and read it

function cell(text) {
  const safe = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function table() {
  const rows = files.map((file, i) =>
    [cell(file), label[i] === NONE ? "" : cell(classes[label[i]]), cell(classes[best[i][0]]), shares[i][0].toFixed(4)]);
  const others = data.elsewhere.map(([file, name]) => [cell(file), cell(name), "", ""]);
  return [["file", "label", "guess", "probability"], ...rows, ...others].map(row => row.join(",") + "\r\n").join("");
}

function save() {
  if (label.every(k => k === NONE) && !data.elsewhere.length) return say("nothing is labelled yet");
  const link = made("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "labels.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  unsaved = false;
  say(`saved: put labels.csv into ${data.folder}`);
}

// What the page says

function say(text) {
  notice = text;
  tell();
}

function tell() {
  const changed = label.map((_, i) => i).filter(isChanged);
  const right = changed.filter(i => label[i] === best[i][0]).length;
  const summary = `${changed.length.toLocaleString("en")} changed: ${right} confirmed, ${changed.length - right} corrected`;
  const chosen = selected.size ? `; ${selected.size} selected` : "";
  const line = `${summary}${chosen}${notice ? `; ${notice}` : ""}`;
  if (at("count").textContent !== line) at("count").textContent = line;  // else a screen reader says it again
  at("undo").disabled = !done.length;
  at("redo").disabled = !undone.length;
  const labelled = new Array(classes.length).fill(0);
  label.forEach(k => { if (k !== NONE) labelled[k]++; });
  for (const button of at("classes").children) {
    if (button.dataset.label >= 0) button.lastChild.textContent = labelled[button.dataset.label];
  }
  if (active === NONE) {
    list.removeAttribute("aria-activedescendant");
    at("active").hidden = true;
    return;
  }
  list.setAttribute("aria-activedescendant", `image${active}`);
  at("active").hidden = false;
  const narrow = matchMedia("(max-width:700px)").matches;
  frame(at("large"), active, data.cell * Math.max(1, Math.round((narrow ? 72 : 200) / data.cell)));
  const file = made("bdi", "file", files[active]), guesses = made("ol");
  best[active].forEach((k, place) => {
    const item = made("li");
    item.append(made("bdi", "", classes[k]), percent(shares[active][place]));
    guesses.append(item);
  });
  at("facts").replaceChildren(file, guesses, made("div", "", label[active] === NONE ? "no label yet" : "label: "));
  if (label[active] !== NONE) at("facts").lastChild.append(made("bdi", "", classes[label[active]]));
}

// Hands

function typed(event) {
  if (at("keys").open || event.target.matches("input, select")) return;
  notice = "";
  const command = event.ctrlKey || event.metaKey, onButton = event.target.matches("button, summary");
  const acts = {
    z: command && (event.shiftKey ? redo : undo), y: command && redo, a: command && (() => selectAll(place(active).section)),
    u: !command && undo, r: !command && redo, s: save, l: !command && (() => at("classes").querySelector("button").focus()),
    "?": () => at("keys").showModal(), Escape: () => (select([]), list.focus()),
    Delete: () => assign(NONE), Backspace: () => assign(NONE), 0: !command && (() => assign(NONE)),
    Enter: !onButton && (() => assign("guess")), " ": !onButton && (() => toggle(active)),
  };
  const steps = event.target === list || event.target === document.body ? {
    ArrowLeft: () => shown[position[active] - 1], ArrowRight: () => shown[position[active] + 1],
    ArrowUp: () => neighbour(-1), ArrowDown: () => neighbour(1), Home: () => shown[0], End: () => shown.at(-1),
    PageUp: () => neighbour(-rows()), PageDown: () => neighbour(rows()),
  } : {};
  const inClasses = at("classes").contains(event.target);
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (inClasses && !command && /^[\p{L}]$/u.test(key)) return hop(key, event);
  if (active === NONE && key !== "?" && key !== "s") return;
  if (/^[1-9]$/.test(key) && !command && !event.altKey) {
    if (Number(key) > classes.length) return say(`there is no class ${key}`);
    assign(Number(key) - 1);
  } else if (steps[key] && !command) move(steps[key](), event.shiftKey);
  else if (acts[key]) acts[key]();
  else return;
  event.preventDefault();
}

const rows = () => Math.max(2, Math.floor(list.clientHeight / height));

function hop(letter, event) {
  const buttons = [...at("classes").children], now = buttons.indexOf(event.target);
  const found = [...buttons.slice(now + 1), ...buttons.slice(0, now + 1)].find(each =>
    each.querySelector("bdi").textContent.toLowerCase().startsWith(letter));
  if (found) found.focus();
  event.preventDefault();
}

const imageAt = target => { const tile = target.closest(".tile"); return tile ? Number(tile.id.slice(5)) : NONE; };
const targetAt = event => document.elementFromPoint(event.clientX, event.clientY)?.closest("[data-label]");

list.addEventListener("click", event => {
  const i = imageAt(event.target);
  if (i === NONE || dropped) return;
  if (event.shiftKey) return move(i, true);
  if (event.ctrlKey || event.metaKey || event.pointerType === "touch") {
    toggle(i);
    return move(i);
  }
  select([i]);
  move(i);
});
list.addEventListener("pointerdown", event => {
  const i = imageAt(event.target);
  dropped = false;
  notice = "";
  if (i !== NONE && event.pointerType === "mouse" && event.button === 0) drag = { i, x: event.clientX, y: event.clientY };
});
addEventListener("pointermove", event => {
  if (!drag) return;
  if (!drag.ghost) {
    if (Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < DRAG) return;
    if (!selected.has(drag.i)) select([drag.i]);
    drag.ghost = made("div", "", count(selected.size, "image"));
    drag.ghost.id = "ghost";
    document.body.append(drag.ghost);
  }
  drag.ghost.style.left = `${event.clientX + 12}px`;
  drag.ghost.style.top = `${event.clientY + 12}px`;
  const over = targetAt(event);
  if (over === drag.over) return;
  drag.over?.classList.remove("over");
  over?.classList.add("over");
  drag.over = over;
});
addEventListener("pointerup", event => {
  if (!drag) return;
  const { ghost, over } = drag, target = ghost && targetAt(event);
  ghost?.remove();
  over?.classList.remove("over");
  drag = null;
  if (!ghost) return;
  dropped = true;  // a click follows where it ends on the tile that it began on
  if (target) assign(Number(target.dataset.label));
});
addEventListener("beforeunload", event => { if (unsaved) event.preventDefault(); });
list.addEventListener("scroll", draw, { passive: true });
list.addEventListener("focus", () => { if (active !== NONE) move(active); });
addEventListener("keydown", typed);
new ResizeObserver(() => { arrange(); if (active !== NONE) move(active); }).observe(list);

function button(name, key, choice, act) {
  const item = made("button");
  item.type = "button";
  if (key) item.append(made("kbd", "", key)), item.setAttribute("aria-keyshortcuts", key);
  item.append(made("bdi", "", name), made("span"));
  if (choice !== undefined) item.dataset.label = choice;
  item.onclick = act;
  at("classes").append(item);
}

at("told").textContent = `${count(files.length, "image")}, guessed by ${data.run}`
  + (data.calibrated ? "" : "; its certainty is not calibrated");
at("class").append(new Option("all", "all"), ...classes.map((name, k) => new Option(name, k)));
button("the guess is right", "Enter", undefined, () => assign("guess"));
classes.forEach((name, k) => button(name, k < 9 ? String(k + 1) : "", k, () => assign(k)));
button("no label", "0", NONE, () => assign(NONE));
for (const id of ["class", "state", "from", "to"]) at(id).addEventListener("input", choose);
Object.assign(at("undo"), { onclick: undo });
Object.assign(at("redo"), { onclick: redo });
Object.assign(at("all"), { onclick: () => { if (active !== NONE) selectAll(place(active).section); } });
Object.assign(at("help"), { onclick: () => at("keys").showModal() });
Object.assign(at("save"), { onclick: save });
at("filters").open = !matchMedia("(max-width:700px)").matches;
document.body.classList.toggle("photograph", data.cell >= 64);
choose();
restore();
list.focus({ preventScroll: true });
