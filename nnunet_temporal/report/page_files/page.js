"use strict";
// A viewer for one study at a time, a table that sorts, and nothing from outside the page.

const GRAIN = 2; // places per pixel of an outline
const PAGE = 50; // studies per page of the table
const LABELS = JSON.parse(document.getElementById("labels").textContent);
const PAINTED = [...LABELS.keys()].sort((a, b) => LABELS[a].layer - LABELS[b].layer);
const EXPERT = "#ffb020";
const still = matchMedia("(prefers-reduced-motion: reduce)");

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// ---------------------------------------------------------------- viewer

class Viewer {
  constructor(place, film, chart) {
    this.film = film;
    this.cursors = chart.querySelectorAll(".cursor");
    this.index = 0; // of the frames that there are pictures of
    this.slice = -1; // all
    this.pictures = film.pictures.map(source => Object.assign(new Image(), { src: source, onload: () => this.draw() }));
    this.shown = new Set(["expert", ...LABELS.keys()]);
    this.canvas = make("canvas", { role: "img", onclick: event => this.zoom(event) });
    this.range = make("input", {
      type: "range", min: 0, max: film.frames.length - 1, value: 0, "aria-label": "Frame", oninput: () => this.step(this.range.value - this.index)
    });
    this.place = make("span", { class: "place" });
    this.button = make("button", { type: "button", onclick: () => this.toggle() }, "Play");
    this.screen = make("div", {}, this.canvas);
    place.replaceChildren(this.screen, this.track(), this.controls());
    this.range.disabled = this.button.disabled = film.frames.length < 2;
    this.goTo(Math.max(0, film.frames.indexOf(film.ed)));
    new ResizeObserver(() => this.draw()).observe(this.screen);
  }

  track() {
    const marks = make("div", { class: "marks", "aria-hidden": "true" });
    const last = Math.max(1, this.film.frames.length - 1);
    const at = frame => {
      const index = this.film.frames.findIndex(shown => shown >= frame);
      return `left:${100 * (index < 0 ? last : index) / last}%`;
    };
    const put = (tag, frame, text) => {
      const mark = make(tag, {}, text);
      mark.style.cssText = at(frame);
      marks.append(mark);
    };
    for (const frame of new Set(this.film.flags.flatMap(flag => flag.frames))) put("i", frame, "");
    for (const [name, frame] of [["ED", this.film.ed], ["ES", this.film.es]]) if (frame !== null) put("span", frame, name);
    return make("div", { class: "track" }, this.range, marks);
  }

  controls() {
    const back = make("button", { type: "button", "aria-label": "Previous frame", onclick: () => this.step(-1) }, "\u25c0");
    const next = make("button", { type: "button", "aria-label": "Next frame", onclick: () => this.step(1) }, "\u25b6");
    const row = make("div", { class: "row" });
    if (this.film.slices.length > 1) {
      this.select = make("select", { onchange: () => { this.slice = +this.select.value; this.draw(); } },
        make("option", { value: -1 }, "all slices"), ...this.film.slices.map((name, z) => make("option", { value: z }, name)));
      row.append(make("label", {}, "Show ", this.select));
    }
    const entries = LABELS.map((label, place) => [place, label.name, label.colour]);
    if (Object.keys(this.film.truth).length) entries.push(["expert", "expert", EXPERT]);
    for (const [key, name, colour] of entries) {
      const box = make("input", { type: "checkbox", onchange: () => { this.shown[box.checked ? "add" : "delete"](key); this.draw(); } });
      box.checked = true;
      const swatch = make("span", { class: "swatch" });
      swatch.style.background = colour;
      row.append(make("label", {}, box, " ", swatch, name));
    }
    // The words beside the buttons change from frame to frame: in a row of their own they push nothing around.
    return make("div", {}, make("div", { class: "row" }, this.button, back, next, this.place), row);
  }

  get frame() { return this.film.frames[this.index]; }

  goTo(index) {
    this.index = (index + this.film.frames.length) % this.film.frames.length;
    this.range.value = this.index;
    const { film, frame } = this, phase = frame === film.ed ? "ED" : frame === film.es ? "ES" : "";
    const ms = film.ms === null ? "" : `, ${Math.round(frame * film.ms)} ms`;
    const flags = film.flags.filter(flag => flag.frames.includes(frame));
    const words = `frame ${frame} of 0\u2013${film.n - 1}${ms}`;
    this.place.replaceChildren(words, " ", ...(phase ? [make("span", { class: "phase" }, phase)] : []),
      ...(flags.length ? [` \u26a0 ${[...new Set(flags.map(flag => flag.title))].join(", ")}`] : []));
    this.range.setAttribute("aria-valuetext", [words, phase, ...flags.map(flag => flag.title)].filter(Boolean).join(", "));
    this.canvas.setAttribute("aria-label", `${film.name}, ${this.range.getAttribute("aria-valuetext")}, with outlines`);
    for (const cursor of this.cursors) {
      const x = +cursor.dataset.left + frame * cursor.dataset.step;
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
    }
    this.draw();
  }

  step(by) { this.stop(); this.goTo(this.index + by); }
  toggle() { this.timer ? this.stop() : this.play(); }

  play() {
    if (this.film.frames.length < 2) return;
    const shown = this.film.n / this.film.frames.length; // thinned films play as fast as whole ones
    this.timer = setInterval(() => this.goTo(this.index + 1), Math.max(30, Math.min(1000, (this.film.ms ?? 60) * shown)));
    this.button.textContent = "Pause";
  }

  stop() {
    clearInterval(this.timer);
    this.timer = 0;
    this.button.textContent = "Play";
  }

  zoom(event) {
    if (this.film.slices.length < 2) return;
    const { columns, slices } = this.film, rows = Math.ceil(slices.length / columns), area = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - area.left) / area.width * columns);
    const row = Math.floor((event.clientY - area.top) / area.height * rows);
    const z = row * columns + column;
    this.slice = this.slice < 0 && z < slices.length ? z : -1;
    this.select.value = this.slice;
    this.draw();
  }

  draw() {
    const { film, canvas } = this, picture = this.pictures[this.index];
    if (!picture.complete || !this.screen.clientWidth) return;
    const all = this.slice < 0, columns = all ? film.columns : 1, rows = all ? Math.ceil(film.slices.length / columns) : 1;
    const height = (all ? 0.5 : 0.7) * innerHeight; // the movie, the figures above and its controls fit on a screen
    const side = Math.floor(Math.min(this.screen.clientWidth / columns, height / rows, 620));
    const density = devicePixelRatio || 1, size = side * density;
    canvas.style.width = `${side * columns}px`;
    canvas.width = size * columns;
    canvas.height = size * rows;
    canvas.style.cursor = film.slices.length > 1 ? (all ? "zoom-in" : "zoom-out") : "default";
    const brush = canvas.getContext("2d");
    for (const z of all ? film.slices.keys() : [this.slice]) {
      const place = all ? z : 0, x = place % columns * size, y = Math.floor(place / columns) * size;
      brush.save();
      brush.beginPath();
      brush.rect(x, y, size, size);
      brush.clip();
      brush.drawImage(picture, z % film.columns * film.panel, Math.floor(z / film.columns) * film.panel, film.panel, film.panel, x, y, size, size);
      brush.translate(x, y);
      this.outline(brush, z, size, density);
      brush.restore();
    }
  }

  outline(brush, z, size, density) {
    const scale = size / (this.film.box * GRAIN), truth = this.film.truth[this.frame];
    const line = Math.max(1, Math.min(2.2, size / density / 110)) * density;
    if (truth && this.shown.has("expert"))
      for (const polygons of truth[z]) paint(brush, polygons, scale, { colour: EXPERT, width: 2.4 * line });
    for (const label of PAINTED)
      if (this.shown.has(label)) paint(brush, this.film.outlines[this.index][z][label], scale, { colour: LABELS[label].colour, width: line, fill: true });
    const name = this.film.slices[z], flagged = this.film.flags.some(flag => flag.slice === z && flag.frames.includes(this.frame));
    brush.font = `${12 * density}px sans-serif`;
    brush.fillStyle = flagged ? "#ff8a6b" : "#aab4bf";
    brush.strokeStyle = "#000";
    brush.lineWidth = 3 * density; // to be read on bright tissue, too
    brush.lineJoin = "round";
    for (const write of ["strokeText", "fillText"]) brush[write](flagged ? `${name} \u26a0` : name, 5 * density, 14 * density);
  }
}

function paint(brush, polygons, scale, { colour, width, fill = false }) {
  brush.beginPath();
  for (const polygon of polygons) {
    let x = polygon[0], y = polygon[1];
    brush.moveTo(x * scale, y * scale);
    for (let i = 2; i < polygon.length; i += 2) brush.lineTo((x += polygon[i]) * scale, (y += polygon[i + 1]) * scale);
    brush.closePath();
  }
  brush.strokeStyle = brush.fillStyle = colour;
  brush.lineWidth = width;
  brush.stroke();
  if (fill) {
    brush.globalAlpha = 0.14;
    brush.fill("evenodd");
    brush.globalAlpha = 1;
  }
}

// ---------------------------------------------------------------- studies

const rows = [...document.querySelectorAll("#studies tbody tr")];
const articles = document.querySelectorAll(".study");
let viewers = [];

function show(index) {
  viewers.forEach(viewer => viewer.stop());
  for (const [place, article] of articles.entries()) {
    article.classList.toggle("shown", place === index);
    // Pictures of studies that nobody looks at need no memory.
    if (place !== index) for (const viewer of article.querySelectorAll(".viewer")) viewer.replaceChildren();
  }
  for (const row of rows) row.setAttribute("aria-current", String(+row.dataset.study === index));
  const article = articles[index];
  for (const dot of document.querySelectorAll("svg .pair")) dot.classList.toggle("shown", +dot.dataset.study === index);
  const films = JSON.parse(article.querySelector(".film").textContent);
  viewers = [...article.querySelectorAll(".stack")].map((stack, place) => new Viewer(stack.querySelector(".viewer"), films[place], stack));
  linkFlags(article);
  if (!still.matches) viewers.forEach(viewer => viewer.play());
}

function visit(index, focus = false) {
  show(index);
  const place = document.getElementById("study"), top = place.getBoundingClientRect().top;
  if (focus) place.focus();
  else if (top < 0 || top > innerHeight / 2) place.scrollIntoView();
}

function linkFlags(article) {
  for (const item of article.querySelectorAll(".flags li")) {
    const frames = item.querySelector(".frames");
    if (!frames || frames.querySelector("button")) continue;
    frames.replaceChildren(make("button", { type: "button", onclick: () => lookAt(item.dataset) }, frames.textContent));
  }
}

function lookAt({ stack, slice, frames }) {
  const viewer = viewers[+stack], wanted = frames.split(" ").map(Number);
  // Pressed again, it goes on to the next of its frames.
  const frame = wanted.find(one => one > viewer.frame) ?? wanted[0];
  const index = viewer.film.frames.findIndex(shown => shown >= frame);
  viewer.stop();
  if (viewer.select) viewer.select.value = viewer.slice = +slice;
  viewer.goTo(index < 0 ? viewer.film.frames.length - 1 : index);
  viewer.canvas.scrollIntoView({ block: "nearest" });
}

// ---------------------------------------------------------------- table

const body = document.querySelector("#studies tbody"), find = document.getElementById("find");
let page = 0, sorted = { column: -1, down: false };

function list() {
  const wanted = find.value.trim().toLowerCase();
  const matching = rows.filter(row => row.cells[0].dataset.value.toLowerCase().includes(wanted));
  const last = Math.max(0, Math.ceil(matching.length / PAGE) - 1);
  page = Math.max(0, Math.min(page, last));
  const visible = new Set(matching.slice(page * PAGE, (page + 1) * PAGE));
  for (const row of rows) row.hidden = !visible.has(row);
  document.getElementById("pages").hidden = last === 0;
  document.getElementById("page-name").textContent = `page ${page + 1} of ${last + 1}`;
  document.getElementById("earlier").disabled = page === 0;
  document.getElementById("later").disabled = page === last;
  document.getElementById("found").textContent = wanted ? `${matching.length} of ${rows.length} studies` : "";
}

function sort(column) {
  sorted = { column, down: sorted.column === column && !sorted.down };
  const value = row => row.cells[column].dataset.value;
  const order = column === 0
    ? (a, b) => value(a).localeCompare(value(b), "en", { numeric: true })
    : (a, b) => value(a) - value(b);
  const known = rows.filter(row => value(row) !== ""), unknown = rows.filter(row => value(row) === "");
  known.sort((a, b) => (sorted.down ? -1 : 1) * order(a, b));
  rows.splice(0, rows.length, ...known, ...unknown); // what is not known stays below, whichever way
  body.append(...rows);
  document.querySelectorAll("#studies thead th").forEach((head, place) =>
    head.setAttribute("aria-sort", place !== column ? "none" : sorted.down ? "descending" : "ascending"));
  page = 0;
  list();
}

document.querySelectorAll("#studies thead button").forEach((button, column) => button.addEventListener("click", () => sort(column)));
body.addEventListener("click", event => {
  const row = event.target.closest("tr");
  if (row) visit(+row.dataset.study, event.detail === 0); // the focus follows the keyboard only
});
find.addEventListener("input", () => { page = 0; list(); });
document.getElementById("earlier").addEventListener("click", () => { page -= 1; list(); });
document.getElementById("later").addEventListener("click", () => { page += 1; list(); });
for (const dot of document.querySelectorAll("svg .pair"))
  dot.addEventListener("click", () => visit(+dot.dataset.study));

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, button, summary, a")) return;
  const action = {
    " ": viewer => viewer.toggle(), ArrowLeft: viewer => viewer.step(-1), ArrowRight: viewer => viewer.step(1),
  }[event.key];
  if (!action) return;
  event.preventDefault();
  viewers.forEach(action);
});

document.documentElement.classList.add("js");
list();
show(0);
