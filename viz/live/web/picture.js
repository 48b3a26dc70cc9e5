// The unrolled network: a column for each step, boxes with what their units hold, and lines between them whose colour
// and width tell the gradient that flows back along them.  It is built once for a network; then only numbers change.

const COLUMN = 108, GAP = 52, CARD = 36, TOP = 46, PAD = 8;

/** @param {number} v @param {number} digits */
function short(v, digits = 2) {
  if (!Number.isFinite(v)) return Number.isNaN(v) ? "NaN" : v > 0 ? "∞" : "−∞";
  if (v === 0) return "0";
  const size = Math.abs(v);
  const said = size < 1e-3 || size >= 1e4 ? v.toExponential(digits - 1).replace("e+", "e") : String(Number(v.toPrecision(digits)));
  return said.replace(/-/g, "−");
}

/** @param {Float32Array} values */
const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

/** Words are only touched where they change. @param {Element} e @param {string} said */
function say(e, said) {
  if (e.textContent !== said) e.textContent = said;
}

/** @param {Element} e @param {Record<string, string>} given */
function put(e, given) {
  for (const [key, v] of Object.entries(given)) if (e.getAttribute(key) !== v) e.setAttribute(key, v);
}

class Picture {
  /** @param {HTMLElement} host @param {Network} network @param {string[]} letters @param {string[]} alphabet @param {any} style @param {(t: number) => void} chosen */
  constructor(host, network, letters, alphabet, style, chosen) {
    this.network = network;
    this.alphabet = alphabet;
    this.style = style;
    const { T } = network.sizes, { quantities, state } = network.cell;
    // From top to bottom: the output's state, the gates, the memory.
    this.rows = [state[0], ...quantities.filter((q) => !state.includes(q)), ...state.slice(1)];
    this.at = this.rows.map((_, k) => TOP + 40 + k * (CARD + 6));
    const low = TOP + 40 + this.rows.length * (CARD + 6);
    this.size = [2 * PAD + T * (COLUMN + GAP) - GAP, low + 62];
    const { make, rect } = shapes, [w, h] = this.size;
    const svg = make("svg", { width: w, height: h, viewBox: `0 0 ${w} ${h}`, class: "picture", role: "group", "aria-label": tr("The unrolled network") });
    for (const name of state) svg.append(rect(0, this.y(name) - 3, w, CARD + 6, { rx: 8, fill: "#fbeec3" }));
    this.over = make("g"); // lines between columns lie over them
    this.steps = Array.from({ length: T }, (_, t) => this.column(svg, t, letters, low, chosen));
    svg.append(this.over);
    this.canvas = document.createElement("canvas");
    const dots = Math.min(window.devicePixelRatio || 1, 2, Math.sqrt(6e6 / (w * h)));
    this.canvas.width = Math.round(w * dots);
    this.canvas.height = Math.round(h * dots);
    this.canvas.style.cssText = `width:${w}px;height:${h}px`;
    this.canvas.setAttribute("aria-hidden", "true");
    this.ink = /** @type {CanvasRenderingContext2D} */ (this.canvas.getContext("2d"));
    this.ink.scale(dots, dots);
    const sheet = document.createElement("div");
    sheet.className = "drawn";
    sheet.append(svg, this.canvas);
    host.replaceChildren(sheet);
    this.svg = svg;
  }

  /** @param {string} name */
  y(name) {
    return this.at[this.rows.indexOf(name)];
  }

  /** @param {SVGElement} svg @param {number} t @param {string[]} letters @param {number} low @param {(t: number) => void} chosen */
  column(svg, t, letters, low, chosen) {
    const { make, word, rect, fitted, SOFT, FAINT, PANEL, INK } = shapes, { state } = this.network.cell;
    const x = PAD + t * (COLUMN + GAP), middle = x + COLUMN / 2;
    const g = make("g", { class: "step", tabindex: t ? -1 : 0, role: "button", "data-t": t });
    g.addEventListener("click", () => chosen(t));
    g.addEventListener("focus", () => chosen(t));
    g.addEventListener("pointerenter", () => chosen(t));
    g.append(rect(x, TOP + 14, COLUMN, low - TOP - 8, { rx: 6, fill: PANEL, stroke: FAINT, "fill-opacity": 0.6 }));
    const read = `t = ${t + 1}`;
    g.append(word(x + 8, TOP + 27, read, 12, { bold: true, anchor: "start" }));
    const output = rect(x + 10, 2, COLUMN - 20, 34, { rx: 4, fill: "#eef4fb", stroke: INK });
    const guess = word(middle, 12, "", 13, { bold: true }), sure = word(middle, 27, "", 9, { fill: SOFT });
    g.append(output, guess, sure);
    g.append(rect(x + 24, low + 24, COLUMN - 48, 28, { rx: 4, fill: "#ffffff", stroke: INK }));
    const given = `x  ${visible(letters[t])}`;
    g.append(word(middle, low + 38, given, fitted(given, 14, COLUMN - 52), { bold: true }));
    const cards = this.rows.map((name, k) => {
      const kept = state.includes(name), y = this.at[k];
      g.append(rect(x + 6, y, COLUMN - 12, CARD, { rx: 4, fill: kept ? "#fff9e8" : "#ffffff", stroke: INK, "stroke-width": kept ? 1.4 : 0.8 }));
      const said = word(x + COLUMN - 11, y + 9, "", 9.5, { anchor: "end" });
      g.append(word(x + 11, y + 9, shown(name), 12, { bold: true, anchor: "start" }), said);
      return said;
    });
    const lines = [
      this.line(g, [[middle, low + 24], [middle, low + 7]]),
      this.line(g, [[middle, TOP + 14], [middle, 36]]),
    ];
    const links = t + 1 < this.network.sizes.T ? state.map((name) => this.line(this.over, [[x + COLUMN - 6, this.y(name) + CARD / 2], [x + COLUMN + GAP + 6, this.y(name) + CARD / 2]])) : [];
    svg.append(g);
    return { g, guess, sure, output, cards, lines, links };
  }

  /** A line with its head and a place for words. @param {SVGElement} g @param {number[][]} points */
  line(g, points) {
    const { make, straight, head, word } = shapes, { d, tip, base } = straight(points, 8);
    const path = make("path", { d, fill: "none" }), arrow = head(base, tip, 5, "#000000");
    const [[a, b], [c]] = points, label = word((a + c) / 2, b - 10, "", 9.5, { bold: true });
    g.append(path, arrow, label);
    return { path, arrow, label };
  }

  /** @param {{path: Element, arrow: Element, label: Element}} line @param {number|null} v null: cut @param {string} said */
  draw(line, v, said) {
    const status = v === null ? "cut" : shapes.statusOf(this.style, v);
    const [colour, width, dash, mark] = shapes.strokeOf(this.style, status, v);
    put(line.path, { stroke: colour, "stroke-width": width.toFixed(1), "stroke-dasharray": { dashed: "5 4", dotted: "1.5 3" }[dash] || "none" });
    put(line.arrow, { fill: colour });
    say(line.label, v === null ? tr("✂ cut") : said || mark);
  }

  /** Put in what the network has now. */
  update() {
    const { network } = this, { T, H } = network.sizes, { cell, settings } = network, S = cell.state.length;
    const wide = COLUMN - 22, size = wide / H;
    this.ink.clearRect(0, 0, this.size[0], this.size[1]);
    for (let t = 0; t < T; t++) {
      const own = this.steps[t], x = PAD + t * (COLUMN + GAP) + 11;
      this.rows.forEach((name, k) => {
        const q = cell.quantities.indexOf(name), values = network.values(q, t), middle = mean(values);
        say(own.cards[k], cell.gates.includes(name) ? `${short(middle)}${middle < 0.05 ? tr(" shut") : middle > 0.95 ? tr(" open") : ""}` : `‖${shown(name)}‖ ${short(norm(values))}`);
        for (let u = 0; u < H; u++) {
          this.ink.fillStyle = this.colour(values[u]);
          this.ink.fillRect(x + u * size, this.at[k] + 18, Math.max(size - 0.5, 0.5), CARD - 22);
        }
        this.ink.strokeStyle = "#c3c9d1";
        this.ink.strokeRect(x, this.at[k] + 18, wide, CARD - 22);
      });
      const [best, p] = network.best(t), right = best === network.codes[t + 1];
      say(own.guess, `${visible(this.alphabet[best])} ${right ? "✓" : "✗"}`);
      say(own.sure, right ? `p ${short(p)}` : tr("p {p}, not {letter}", { p: short(p), letter: visible(this.alphabet[network.codes[t + 1]]) }));
      put(own.output, { fill: right ? "#dff0d8" : "#fbe3c0" });
      put(own.lines[0].path, { stroke: "#5d6470", "stroke-width": "1.2" });
      put(own.lines[0].arrow, { fill: "#5d6470" });
      this.draw(own.lines[1], network.own[t], "");
      own.links.forEach((line, s) => {
        const isCut = settings.truncate > 0 && (t + 1) % settings.truncate === 0;
        const v = network.carried[(t + 1) * S + s], from = network.arrived[t + 1];
        this.draw(line, isCut ? null : v, from > 0 ? `×${short(v / from)}` : "");
      });
    }
  }

  /** Blue, white and orange from −1 to 1. @param {number} v @returns {string} */
  colour(v) {
    const { values, nan } = this.style, level = Math.max(-1, Math.min(1, v));
    return values[Math.round((level + 1) / 2 * (values.length - 1))] || nan;
  }

  /** A document of its own, with the units that the page has on its canvas. @returns {string} */
  copy() {
    const { make, rect } = shapes, { network } = this, { T, H } = network.sizes, size = (COLUMN - 22) / H, [w, h] = this.size;
    const svg = /** @type {Element} */ (this.svg.cloneNode(true)), units = make("g");
    put(svg, { xmlns: shapes.NS, "font-family": "DejaVu Sans, Verdana, Helvetica, sans-serif" });
    for (const e of svg.querySelectorAll("[tabindex]")) for (const name of ["tabindex", "role"]) e.removeAttribute(name);
    svg.prepend(rect(0, 0, w, h, { fill: "#ffffff" }));
    for (let t = 0; t < T; t++) {
      this.rows.forEach((name, k) => {
        const values = network.values(network.cell.quantities.indexOf(name), t), x = PAD + t * (COLUMN + GAP) + 11;
        for (let u = 0; u < H; u++) units.append(rect(x + u * size, this.at[k] + 18, Math.max(size - 0.5, 0.5), CARD - 22, { fill: this.colour(values[u]) }));
      });
    }
    svg.append(units);
    return new XMLSerializer().serializeToString(svg);
  }

  /** A step as a sentence. @param {number} t */
  spoken(t) {
    const { network } = this, [best, p] = network.best(t);
    const gates = network.cell.gates.map((g) => `${shown(g)} ${short(mean(network.values(network.cell.quantities.indexOf(g), t)))}`);
    return [
      tr("Step {t}: reads {read}, says {said} with probability {p}, should say {right}.", {
        t: t + 1, read: visible(this.alphabet[network.codes[t]]), said: visible(this.alphabet[best]), p: short(p), right: visible(this.alphabet[network.codes[t + 1]]),
      }),
      ...(gates.length ? [tr("Gates, on average: {gates}.", { gates: gates.join(", ") })] : []),
      tr("‖gradient of its states‖ {size}.", { size: short(network.arrived[t], 3) }),
    ].join(" ");
  }

  /** @param {number} t */
  mark(t) {
    this.steps.forEach(({ g }, k) => {
      g.classList.toggle("chosen", k === t);
      g.setAttribute("tabindex", k === t ? "0" : "-1");
      g.setAttribute("aria-label", this.spoken(k));
    });
  }
}

/** A quantity's name as it is written: c_tilde is c̃. @param {string} name */
const shown = (name) => name.replace(/_tilde$/, "\u0303");
