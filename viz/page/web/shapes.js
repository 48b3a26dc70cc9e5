"use strict";
// What all pages draw with: words, lines with their heads, and how a gradient looks by its size.

const shapes = (() => {
  const INK = "#1b1b1b", SOFT = "#5d6470", FAINT = "#c3c9d1", PANEL = "#f4f6f8";
  const NS = "http://www.w3.org/2000/svg";
  const catalogue = JSON.parse(document.getElementById("words")?.textContent || "{}");

  /** A message in the language of the page, its {names} filled in. */
  const tr = (message, values = {}) => (catalogue[message] || message).replace(/\{(\w+)\}/g, (all, name) => String(values[name] ?? all));

  function make(name, attributes = {}, content = "") {
    const e = document.createElementNS(NS, name);
    for (const [key, v] of Object.entries(attributes)) if (v !== "" && v !== undefined && v !== null) e.setAttribute(key, v);
    if (content !== "") e.textContent = content;
    return e;
  }

  const word = (x, y, content, size, { fill = INK, bold = false, anchor = "middle" } = {}) =>
    make("text", { x, y: y + size * 0.36, "font-size": size, fill, "font-weight": bold ? "bold" : "", "text-anchor": anchor }, content);

  /** The size of letters at which words fit a width. */
  const fitted = (content, size, width, share = 0.62) => Math.max(5, Math.min(size, width / (share * Math.max(1, [...content].length))));

  const rect = (x, y, width, height, more) => make("rect", { x, y, width, height, ...more });

  function towards(a, b, by) {
    const far = Math.hypot(b[0] - a[0], b[1] - a[1]) || 1;
    return [a[0] + ((b[0] - a[0]) * by) / far, a[1] + ((b[1] - a[1]) * by) / far];
  }

  /** Right angles with rounded corners; the end is pulled back for the arrow head. */
  function straight(points, gap) {
    const tip = points[points.length - 1];
    const base = towards(tip, points[points.length - 2], gap);
    const all = [...points.slice(0, -1), base];
    let d = `M${all[0]}`;
    for (let i = 1; i < all.length - 1; i++) {
      const far = (p) => Math.hypot(p[0] - all[i][0], p[1] - all[i][1]);
      const radius = Math.min(7, far(all[i - 1]) / 2, far(all[i + 1]) / 2);
      d += `L${towards(all[i], all[i - 1], radius)}Q${all[i]} ${towards(all[i], all[i + 1], radius)}`;
    }
    return { d: `${d}L${base}`, tip, base };
  }

  function head(base, tip, width, colour) {
    const far = Math.hypot(tip[0] - base[0], tip[1] - base[1]) || 1;
    const half = Math.min(2.6 + 0.5 * width, far * 0.6);
    const nx = (-(tip[1] - base[1]) / far) * half, ny = ((tip[0] - base[0]) / far) * half;
    return make("path", { class: "head", d: `M${tip}L${[base[0] + nx, base[1] + ny]}L${[base[0] - nx, base[1] - ny]}Z`, fill: colour });
  }

  function inkOn(colour) {
    const [red, green, blue] = [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140 ? "#ffffff" : INK;
  }

  /** The status of a gradient by its norm. */
  function statusOf(style, v) {
    if (!Number.isFinite(v)) return "not a number";
    return v === 0 ? "exactly zero" : v < style.vanished ? "vanished" : v > style.exploded ? "exploded" : "normal";
  }

  /** How a gradient is drawn: colour, width, dash and mark. */
  function strokeOf(style, status, v) {
    if (status !== "normal") return style.strokes[status];
    const share = Math.min(Math.max((Math.log10(v) - style.low) / (style.high - style.low), 0), 1);
    return [style.ramp[Math.round(share * (style.ramp.length - 1))], 1.2 + 4.8 * share, "solid", ""];
  }

  return { tr, INK, SOFT, FAINT, PANEL, NS, make, word, fitted, rect, straight, head, inkOn, statusOf, strokeOf };
})();
