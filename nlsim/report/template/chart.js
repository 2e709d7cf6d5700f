"use strict";
// Figures of lines over time, in SVG: zoom by dragging, all figures together; hover to read values.
(() => {
  const page = JSON.parse(document.getElementById("figures").textContent);
  const dashes = ["", "6 3", "8 3 2 3", "2 3"];
  const left = 58, right = 10, top = 8, bottom = 34;
  const figures = [];
  let zoom = null; // the time that all figures show; null for all of it

  function element(parent, name, attributes = {}, text = null) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== null) made.textContent = text;
    parent.append(made);
    return made;
  }

  function format(value) {
    if (value === null) return "–";
    const size = Math.abs(value);
    return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : String(Number(value.toPrecision(5)));
  }

  function ticks(low, high, count) {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= raw * 0.999);
    const found = [];
    for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9 && found.length < 50; at++) found.push(at * step);
    return found;
  }

  function decades(low, high) {
    const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
    if (last - first < 1) return ticks(low, high, 4).filter((each) => each > 0);
    const found = [], every = Math.ceil((last - first + 1) / 6);
    for (let at = first; at <= last; at += every) found.push(10 ** at);
    return found;
  }

  // indices of the first and last point to draw: those in view and one beyond on either side
  function inView(x, range) {
    let first = x.findIndex((each) => each >= range[0]), last = x.length - 1;
    while (last > 0 && x[last] > range[1]) last--;
    if (first < 0) first = x.length - 1;
    return [Math.max(0, first - 1), Math.min(x.length - 1, last + 1)];
  }

  class Figure {
    constructor(box, chart) {
      Object.assign(this, { box, chart, isLog: chart.log, hidden: new Set() });
      const tools = document.createElement("div");
      tools.className = "tools";
      this.button(tools, "+", "zoom in", () => this.magnify(0.5));
      this.button(tools, "−", "zoom out", () => this.magnify(2));
      this.button(tools, "all", "show all", () => setZoom(null));
      if (chart.lines.some((line) => line.y.some((each) => each > 0))) {
        this.button(tools, "log", "logarithmic or linear", () => { this.isLog = !this.isLog; this.draw(); });
      }
      this.svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      this.svg.setAttribute("role", "img");
      this.svg.setAttribute("aria-label", chart.title);
      this.tip = document.createElement("div");
      this.tip.className = "tip";
      this.tip.hidden = true;
      box.append(tools, this.svg, this.legend(), this.tip);
      this.svg.addEventListener("pointerdown", (event) => this.press(event));
      this.svg.addEventListener("pointermove", (event) => this.move(event));
      this.svg.addEventListener("pointerup", (event) => this.release(event));
      this.svg.addEventListener("pointercancel", () => { this.from = null; this.leave(); });
      this.svg.addEventListener("pointerleave", () => this.leave());
      this.svg.addEventListener("dblclick", () => setZoom(null));
    }

    button(parent, text, label, action) {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = text;
      made.title = label;
      made.setAttribute("aria-label", label);
      made.addEventListener("click", action);
      parent.append(made);
    }

    look(number) {
      const colours = page.colours;
      const dash = dashes[Math.floor(number / colours.length) % dashes.length];
      return { stroke: colours[number % colours.length], ...(dash && { "stroke-dasharray": dash }) };
    }

    legend() {
      const list = document.createElement("div");
      list.className = "legend";
      this.chart.lines.forEach((line, number) => {
        const entry = document.createElement("span");
        const sample = element(entry, "svg", { viewBox: "0 0 22 8", "aria-hidden": "true" });
        element(sample, "line", { x1: 0, x2: 22, y1: 4, y2: 4, "stroke-width": 2, ...this.look(number) });
        entry.append(" " + line.name);
        list.append(entry);
      });
      return list;
    }

    everything() {
      let low = Infinity, high = -Infinity;
      for (const { x } of this.chart.lines) {
        for (const each of x) if (each !== null) { low = Math.min(low, each); high = Math.max(high, each); }
      }
      if (!(low <= high)) return [0, 1];
      return low < high ? [low, high] : [low - 0.5, high + 0.5];
    }

    vertical(range) {
      let low = Infinity, high = -Infinity;
      for (const { x, y } of this.chart.lines) {
        const [first, last] = inView(x, range);
        for (let at = first; at <= last; at++) {
          if (y[at] !== null && (!this.isLog || y[at] > 0)) { low = Math.min(low, y[at]); high = Math.max(high, y[at]); }
        }
      }
      if (!(low <= high)) return this.isLog ? [0.1, 1] : [0, 1];
      if (this.isLog) return low < high ? [low / 1.15, high * 1.15] : [low / 2, high * 2];
      const margin = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
      return [low - margin, high + margin];
    }

    draw() {
      const width = Math.max(this.svg.clientWidth, 120), height = Math.max(this.svg.clientHeight, 120);
      const range = zoom ?? this.everything();
      const [low, high] = this.vertical(range);
      const scale = this.isLog ? Math.log : (value) => value;
      const px = (t) => left + (t - range[0]) / (range[1] - range[0]) * (width - left - right);
      const py = (v) => height - bottom - (scale(v) - scale(low)) / (scale(high) - scale(low)) * (height - top - bottom);
      Object.assign(this, { range, px, py, width, height });
      this.svg.replaceChildren();
      this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      for (const value of this.isLog ? decades(low, high) : ticks(low, high, 5)) {
        element(this.svg, "line", { class: "grid", x1: left, x2: width - right, y1: py(value), y2: py(value) });
        element(this.svg, "text", { x: left - 6, y: py(value) + 4, "text-anchor": "end" }, format(value));
      }
      for (const value of ticks(range[0], range[1], Math.max(2, Math.floor(width / 90)))) {
        element(this.svg, "line", { class: "grid", x1: px(value), x2: px(value), y1: top, y2: height - bottom });
        element(this.svg, "text", { x: px(value), y: height - bottom + 15, "text-anchor": "middle" }, format(value));
      }
      const unit = this.chart.unit && this.chart.unit !== "1" ? ` · values in ${this.chart.unit}` : "";
      element(this.svg, "text", { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, "time" + unit);
      const name = `clip-${this.box.id}`;
      const clip = element(element(this.svg, "defs"), "clipPath", { id: name });
      element(clip, "rect", { x: left, y: top, width: width - left - right, height: height - top - bottom });
      const inside = element(this.svg, "g", { "clip-path": `url(#${name})` });
      this.chart.lines.forEach((line, number) => {
        element(inside, "path", { class: "trace", d: this.path(line), ...this.look(number) });
      });
      this.over = element(this.svg, "g");
    }

    path({ x, y }) {
      const [first, last] = inView(x, this.range);
      let text = "", isOpen = false;
      for (let at = first; at <= last; at++) {
        if (x[at] === null || y[at] === null || (this.isLog && y[at] <= 0)) { isOpen = false; continue; }
        text += `${isOpen ? "L" : "M"}${this.px(x[at]).toFixed(1)} ${this.py(y[at]).toFixed(1)}`;
        if (!isOpen) text += "h0"; // a point alone is a dot
        isOpen = true;
      }
      return text;
    }

    time(event) {
      const inside = event.clientX - this.svg.getBoundingClientRect().left;
      const share = Math.min(1, Math.max(0, (inside - left) / (this.width - left - right)));
      return this.range[0] + share * (this.range[1] - this.range[0]);
    }

    press(event) {
      this.from = this.time(event);
      this.svg.setPointerCapture(event.pointerId);
    }

    move(event) {
      const now = this.time(event);
      this.over.replaceChildren();
      if (this.from != null) {
        const [a, b] = [this.px(this.from), this.px(now)];
        element(this.over, "rect", { class: "select", x: Math.min(a, b), y: top, width: Math.abs(b - a),
          height: this.height - top - bottom });
      }
      this.read(now);
    }

    release(event) {
      const [from, to] = [this.from, this.time(event)];
      this.from = null;
      this.over.replaceChildren();
      if (from != null && Math.abs(this.px(from) - this.px(to)) > 6) setZoom([Math.min(from, to), Math.max(from, to)]);
    }

    leave() {
      this.tip.hidden = true;
      if (this.from == null) this.over.replaceChildren();
    }

    // the values nearest in time, beside the cursor
    read(now) {
      const rows = [];
      let at = null;
      this.chart.lines.forEach(({ name, x, y }, number) => {
        let best = -1;
        for (let i = 0; i < x.length; i++) {
          if (x[i] !== null && (best < 0 || Math.abs(x[i] - now) < Math.abs(x[best] - now))) best = i;
        }
        if (best < 0) return;
        at ??= x[best];
        rows.push([number, `${name}: ${format(y[best])}`]);
        if (y[best] !== null && (!this.isLog || y[best] > 0) && x[best] >= this.range[0] && x[best] <= this.range[1]) {
          element(this.over, "circle", { cx: this.px(x[best]), cy: this.py(y[best]), r: 3, fill: this.look(number).stroke });
        }
      });
      if (at === null) return;
      element(this.over, "line", { class: "cursor", x1: this.px(at), x2: this.px(at), y1: top, y2: this.height - bottom });
      this.tip.replaceChildren(`t = ${format(at)}`);
      for (const [number, text] of rows) {
        const row = document.createElement("div");
        row.textContent = "● " + text;
        row.style.color = this.look(number).stroke;
        this.tip.append(row);
      }
      this.tip.hidden = false;
      const [outer, inner] = [this.box, this.svg].map((each) => each.getBoundingClientRect());
      const x = inner.left - outer.left + this.px(at);
      const isRight = this.px(at) > this.width / 2;
      this.tip.style.left = `${Math.max(0, isRight ? x - this.tip.offsetWidth - 12 : x + 12)}px`;
      this.tip.style.top = `${inner.top - outer.top + top}px`;
    }

    magnify(factor) {
      const all = this.everything(), range = this.range;
      const middle = (range[0] + range[1]) / 2, half = (range[1] - range[0]) / 2 * factor;
      const next = [Math.max(all[0], middle - half), Math.min(all[1], middle + half)];
      setZoom(next[0] <= all[0] && next[1] >= all[1] ? null : next);
    }
  }

  function setZoom(range) {
    zoom = range && range[1] > range[0] ? range : null;
    for (const figure of figures) { figure.tip.hidden = true; figure.draw(); }
  }

  for (const box of document.querySelectorAll("figure.chart")) {
    figures.push(new Figure(box, page.charts[Number(box.dataset.chart)]));
  }
  const observer = new ResizeObserver(() => { for (const figure of figures) figure.draw(); });
  const holder = document.querySelector(".figures");
  if (holder) observer.observe(holder);
  for (const figure of figures) figure.draw();
  document.documentElement.dataset.figures = String(figures.length);
})();
