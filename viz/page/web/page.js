"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const sheet = $("sheet");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const { tr, INK, SOFT, FAINT, PANEL, NS, make, word, fitted, rect, straight, head, inkOn } = shapes;
  const FIELDS = [tr("shape"), tr("‖value‖"), tr("‖gradient‖"), tr("status of the gradient"), tr("smallest"), tr("largest"), tr("mean"), tr("saturated")];
  const LEVELS = ["steps", "gates", "operations"];
  const MOST = { steps: 40, gates: 16 }; // steps in sight
  const FILLS = ["#ffffff", "#fff9e8", "#eef4fb", PANEL];
  const T = data.steps.length;
  const now = {
    recording: data.recordings.length - 1,
    view: T ? "steps" : "operations",
    k: Math.max(T - 1, 0), // the step that one looks at, by its place in time
    svg: null,
    shown: new Map(), // by place in time: the groups of a step
    beat: 0, // 0: the whole backward pass is shown
    timer: 0,
    asked: 0,
    pointed: null,
  };
  const rec = () => data.recordings[now.recording];

  // Numbers.  Python rounded them: four digits, and a bit that says how the short form is rounded.

  async function load(r) {
    if (r.D) return;
    const [D, E, C, of] = await Promise.all([r.digits, r.powers, r.cells, r.of].map(unpack));
    Object.assign(r, { E: new Int16Array(joined(E, 2)), C, of: new Uint16Array(joined(of, 2)), beats_: {} });
    const count = r.sizes.map(() => 0);
    r.at = Array.from(r.of, (kind) => count[kind]++);
    let n = 0, c = 0;
    r.from = r.sizes.map(([columns, cells, steps]) => {
      const own = [n, c];
      n += columns * steps;
      c += cells * steps;
      return own;
    });
    for (const level of Object.keys(r.beats)) r.beats_[level] = passes(r, level, new Uint32Array(joined(await unpack(r.beats[level]), 4)));
    r.D = new Uint16Array(joined(D, 2));
  }

  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  /** Low bytes of all numbers, then the higher ones, to numbers of `size` bytes (little-endian). */
  function joined(bytes, size) {
    const n = bytes.length / size, out = new Uint8Array(bytes.length);
    for (let b = 0; b < size; b++) for (let i = 0; i < n; i++) out[i * size + b] = bytes[b * n + i];
    return out.buffer;
  }

  const planOf = (r, k) => data.plans[r.plans[r.of[k]]];
  const layoutOf = (r, k) => data.layouts[planOf(r, k).layout][now.view];

  function place(r, k, column) {
    const kind = r.of[k];
    return r.from[kind][0] + column * r.sizes[kind][2] + r.at[k];
  }

  /** The number in a column at a step, as text of 4 or of few digits. */
  function text(r, k, column, short) {
    if (column < 0) return "";
    const at = place(r, k, column), code = r.D[at], e = r.E[at], m = code & 0x3fff;
    if (m === 10001) return "NaN";
    const sign = code >> 15 ? "−" : "";
    if (m === 10002) return `${sign}∞`;
    if (!m) return "0";
    const drop = short ? (e === 2 ? 1 : e === 3 ? 0 : 2) : 0;
    const digits = Math.floor(m / 10 ** drop) + (drop ? (code >> 14) & 1 : 0);
    if (e >= -3 && e < 4) return sign + Number(`${digits}e${e - 3 + drop}`);
    const more = String(digits).length - 1;
    return `${sign}${Number(`${digits}e-${more}`)}e${more + e - 3 + drop}`.replace("e-", "e−");
  }

  function value(r, k, column) {
    const at = place(r, k, column), code = r.D[at], m = code & 0x3fff;
    if (m === 10001) return NaN;
    return (m === 10002 ? Infinity : Number(`${m}e${r.E[at] - 3}`)) * (code >> 15 ? -1 : 1);
  }

  const style = data.style;

  function statusOf(r, k, column, otherwise) {
    if (column < 0) return otherwise || "not computed";
    return shapes.statusOf(style, value(r, k, column));
  }

  const stroke = (status, v) => shapes.strokeOf(style, status, v);

  // Shapes.

  function named(g, said, t, more = {}) {
    g.prepend(make("title", {}, said));
    for (const [key, v] of Object.entries({ tabindex: -1, role: t === null ? "img" : "button", ...more })) g.setAttribute(key, v);
    if (t !== null) g.dataset.t = t;
    return g;
  }

  /** A box with what its node has at a step. */
  function card(r, k, box) {
    const t = T ? data.steps[k] : null;
    const [x, y, w, h] = box.at;
    const g = make("g", { class: "node" });
    g.append(rect(x, y, w, h, {
      rx: 4, fill: FILLS[box.fill], stroke: box.n < 0 ? SOFT : INK, "stroke-width": 1,
      "stroke-dasharray": box.n < 0 || box.cut ? "4 3" : "",
    }));
    if (box.n < 0) {
      const said = leftOut(r, k, box.name);
      g.append(word(x + w / 2, y + h / 2 - (box.name === "end" ? 0 : 6), said, fitted(said, 11, w - 8), { bold: true }));
      if (box.name !== "end") g.append(word(x + w / 2, y + h / 2 + 9, tr("not drawn"), 9, { fill: SOFT }));
      return named(g, said, null);
    }
    const entry = planOf(r, k).nodes[box.n];
    const rows = box.op ? rowsOfOperation(r, k, box, entry) : rowsOfGroup(r, k, box, entry);
    const high = () => rows.reduce((sum, row) => sum + row[0], 0);
    while (high() > h - 2 && rows.some((row) => row.spare)) rows.splice(rows.findIndex((row) => row.spare), 1);
    const squeeze = Math.min(1, (h - 2) / high());
    let at = y + (h - high() * squeeze) / 2;
    for (const [tall, draw] of rows) {
      g.append(...[draw(x + w / 2, at + (tall * squeeze) / 2, w - 8)].flat());
      at += tall * squeeze;
    }
    const own = box.output ? "output" : box.key;
    const where = t === null ? null : t + (box.dt || 0);
    g.dataset.key = `${box.output ? "" : box.band || ""} ${where === null ? "" : `t=${where}`} ${own}`.trim();
    g.own = { k, n: box.n, t: where, all: box.all };
    return named(g, spoken(r, k, entry, where), box.op ? null : t);
  }

  function leftOut(r, k, what) {
    const s = data.steps;
    if (what === "end") return r.loss || tr("end");
    if (what !== "before" && what !== "after") return tr(what);
    const [a, b] = what === "before" ? [s[0], s[k - 1]] : [s[k + 1], s[T - 1]];
    return a === b ? `t = ${a}` : `t = ${a} … ${b}`;
  }

  function spoken(r, k, entry, t) {
    const [name, shape, columns, , why] = entry;
    const gradient = text(r, k, columns[1]), status = statusOf(r, k, columns[1], why);
    const said = gradient ? tr("gradient {size} ({status})", { size: gradient, status: tr(status) }) : tr("gradient: {status}", { status: tr(status) });
    return `${name}${t === null ? "" : ` t=${t}`}: ${shape}, ${tr("norm {size}", { size: text(r, k, columns[0]) || tr("unknown") })}, ${said}`;
  }

  /** A row of a box: its height, and how it is drawn. */
  const line = (content, size, more) => [size + 4, (x, y, w) => word(x, y, content, fitted(content, size, w), more)];

  function title(name, symbol, size) {
    return [size + 6, (x, y, w) => {
      const whole = name && symbol ? `${name}  ${symbol}` : name || symbol;
      const e = word(x, y, "", fitted(whole, size, w, 0.66), { bold: true });
      e.append(make("tspan", {}, name || symbol));
      if (name && symbol) e.append(make("tspan", { "font-weight": "normal", "font-size": "80%", fill: SOFT, dx: 4 }, symbol));
      return e;
    }];
  }

  function rowsOfGroup(r, k, box, entry) {
    const rows = [title(box.name, box.symbol, 13), ...values(r, k, entry), ...gradients(r, k, entry, box.name)];
    if (box.more.length) rows.push(line(`${box.more[0]} ${text(r, k, box.more[1], true) || "–"}`, 9, { fill: SOFT }));
    return rows.concat(wrong(r, k, entry));
  }

  function rowsOfOperation(r, k, box, entry) {
    const rows = [title(box.name, box.symbol && box.name ? `= ${box.symbol}` : box.symbol, 13)];
    if (box.shape) rows.push(line(box.shape, 8.5, { fill: SOFT }));
    rows.push(...values(r, k, entry));
    if (entry[6] === "f") rows.push(...gradients(r, k, entry, box.name, box.all && T ? `${tr("all t:")} ` : ""), ...wrong(r, k, entry));
    return rows;
  }

  function values(r, k, entry) {
    const [, shape, columns, strip, , gate] = entry;
    const say = (c) => text(r, k, c, true);
    if (columns[0] < 0) return [line(tr("no value"), 8, { fill: SOFT })];
    if (say(columns[2]) === say(columns[3]) && !strip) return [line(shape.includes("×") && !/^[1 ×]+$/.test(shape) ? tr("all {value}", { value: say(columns[2]) }) : say(columns[2]), 10)];
    const rows = strip ? [cells(r, k, strip, strip[2], false)] : [];
    if (gate) rows.push(line(`${say(columns[4])}${word_(r, k, columns[4])}`, 9, { bold: true }));
    else if (!strip) rows.push(line(`‖·‖ ${say(columns[0])}`, 9.5, { fill: SOFT }));
    if (Number.isFinite(value(r, k, columns[0]))) rows.push(Object.assign(line(`${say(columns[2])} … ${say(columns[3])}`, 8.5), { spare: true })); // where there is room
    return rows;
  }

  const word_ = (r, k, mean) => (value(r, k, mean) < 0.05 ? tr(" shut") : value(r, k, mean) > 0.95 ? tr(" open") : "");

  function gradients(r, k, entry, name, before = "") {
    const [, , columns, strip, why] = entry;
    const rows = strip && strip[3] >= 0 ? [cells(r, k, strip, strip[3], true)] : [];
    const called = [...name].length <= 3 && /^\p{L}/u.test(name) ? name : "";
    const said = columns[1] < 0 ? (why === "not computed" || !why ? "–" : tr(why)) : text(r, k, columns[1], true);
    rows.push(line(`${before}∂${called} ${said}`, 9.5, { fill: columns[1] < 0 ? SOFT : INK }));
    return rows;
  }

  function wrong(r, k, entry) {
    const status = statusOf(r, k, entry[2][1], "normal");
    return status === "normal" || status === "exactly zero" ? [] : [line(tr(status), 8, { fill: stroke(status)[0], bold: true })];
  }

  /** A small array as coloured cells; a mark tells the sign of a gradient, zero, and what is not a number. */
  function cells(r, k, [rows, columns, , , ...written], first, gradient) {
    const kind = r.of[k], steps = r.sizes[kind][2], column = written[gradient ? 1 : 0], high = column < 0 ? 9 : 14;
    return [rows * high + 3, (x, y, w) => {
      const size = column < 0 ? Math.max(1, Math.min(Math.floor(w / columns), 24)) : 38, found = [];
      for (let i = 0; i < rows * columns; i++) {
        const code = r.C[r.from[kind][1] + (first + i) * steps + r.at[k]];
        const [fill, mark] = gradient ? ofGradient(code) : code === 127 ? [style.nan, "?"] : [style.values[code - 4], ""];
        const left = x - (size * columns) / 2 + size * (i % columns), top = y - (rows * high) / 2 + high * Math.floor(i / columns);
        found.push(rect(left, top, size, high, { fill, stroke: "#d5d9de", "stroke-width": 0.8 }));
        const said = column < 0 ? (size < 5 ? "" : mark) : text(r, k, column + i, true);
        if (said) found.push(word(left + size / 2, top + high / 2, said, column < 0 ? 7 : 8, { fill: inkOn(fill) }));
      }
      return found;
    }];
  }

  function ofGradient(code) {
    const level = code & 63, minus = code > 63 ? "−" : "";
    if (!level) return ["#ffffff", "0"];
    const status = level === 61 ? "vanished" : level === 62 ? "exploded" : level === 63 ? "not a number" : "";
    return status ? [stroke(status)[0], level === 63 ? "!" : minus] : [style.ramp[level - 1], minus];
  }

  // Lines.

  /** A line, its arrow head and what is written on it. */
  function edge(r, k, own) {
    const [points, column, factor, otherwise, turn, from, fromDt, to, toDt, curve] = own;
    const t = T ? data.steps[k] : null;
    const status = statusOf(r, k, column, otherwise);
    const [colour, width, dash, mark] = stroke(status, column < 0 ? 0 : value(r, k, column));
    const g = make("g", { class: "edge" });
    const pairs = [];
    for (let i = 0; i < points.length; i += 2) pairs.push([points[i], points[i + 1]]);
    const { d, tip, base } = curve ? bent(pairs) : straight(pairs, 8 + width);
    const dashes = { dashed: "5 4", dotted: "1.5 3" }[dash] || "";
    g.append(make("path", { d, fill: "none", stroke: colour, "stroke-width": width.toFixed(2), "stroke-dasharray": dashes }), head(base, tip, width, colour));
    g.append(make("path", { d, class: "hit" }));
    const share = factor >= 0 && value(r, k, factor) >= 0 ? `×${text(r, k, factor, true)}` : mark === "✂" && now.view !== "operations" ? tr("✂ cut") : mark;
    if (share) {
      const [x, y] = beside(pairs, curve, width, factor >= 0);
      g.append(word(x, y, share, 8.5, { fill: factor >= 0 ? INK : colour, bold: true }));
    }
    const number = text(r, k, column);
    const end = (name, dt) => (dt === null ? name : `${name} t=${t + dt}`.trim());
    g.prepend(make("title", {}, `${end(from, fromDt)} → ${end(to, toDt)}: ${number ? tr("gradient {size} ({status})", { size: number, status: tr(status) }) : tr("gradient {status}", { status: tr(status) })}`));
    if (t !== null) g.dataset.t = fromDt === null ? t : t + fromDt;
    const beat = turn >= 0 ? r.beats_[now.view].of(k, turn) : 0;
    if (beat) g.dataset.beat = beat;
    light(g);
    return g;
  }

  function bent([tip, start, ...rest]) {
    return { d: `M${start}C${rest.map((p) => p.join()).join(" ")}`, tip, base: rest[rest.length - 1] };
  }

  /** Where words on a line stand: above the open piece of a lane or at its start, else beside the longest piece. */
  function beside(points, curve, width, start) {
    if (curve) {
      const middle = points[1 + Math.floor((points.length - 1) / 2)];
      return [middle[0], middle[1] - 7];
    }
    if (points.length === 2 && points[0][1] === points[1][1]) {
      const [[x, y], [end]] = points;
      const near = now.view === "gates" ? 26 : Infinity;
      return [end > x ? Math.min((x + end) / 2, x + near) : Math.max((x + end) / 2, x - near), y - 7 - width / 2];
    }
    if (start && points[0][1] === points[1][1]) return [points[0][0] + (points[1][0] > points[0][0] ? 20 : -20), points[0][1] - 5.5];
    let best = 0;
    const length = (i) => Math.abs(points[i][0] - points[i + 1][0]) + Math.abs(points[i][1] - points[i + 1][1]);
    for (let i = 1; i < points.length - 1; i++) if (length(i) > length(best)) best = i;
    const [a, b] = [points[best], points[best + 1]];
    const upright = Math.abs(a[0] - b[0]) < 0.1;
    return [(a[0] + b[0]) / 2 + (upright ? 14 : 0), (a[1] + b[1]) / 2 - (upright ? 0 : 8)];
  }

  // The picture: what is in sight is drawn, what leaves it goes.

  function bounds() {
    const r = rec();
    if (now.view === "operations") {
      const [w, h] = planOf(r, now.k).operations.size;
      return [-6, -6, w + 12, h + 12];
    }
    let [left, top, right, bottom] = [0, Infinity, 0, 0];
    for (const p of new Set(r.plans.map((p) => data.plans[p]))) {
      const { frames, boxes } = p[now.view];
      for (const [x, y, w, h] of [...frames.map((f) => f.slice(1)), ...boxes.map((b) => b.at)]) {
        [left, top] = [Math.min(left, x), Math.min(top, y)];
        [right, bottom] = [Math.max(right, x + w), Math.max(bottom, y + h)];
      }
    }
    const { pitch, end } = layoutOf(r, 0);
    if (end) top = Math.min(top, end[0]);
    return [left - 8, top - 8, (T - 1) * pitch + right - left + 16, bottom - top + 16];
  }

  const pitch = () => layoutOf(rec(), 0).pitch;

  function blank() {
    const svg = make("svg", { xmlns: NS, class: "picture", role: "group", "aria-label": document.title });
    for (const name of ["back", "frames", "lanes", "lines", "boxes"]) svg.append(make("g", { class: name }));
    now.shown.clear();
    now.svg = svg;
    const [x, y, w, h] = bounds();
    now.whole = [x, y, w, h];
    const back = svg.querySelector(".back");
    back.append(rect(x, y, w, h, { fill: "#ffffff" }));
    if (now.view === "operations") {
      step(now.k);
      return svg;
    }
    const { lanes, end, width } = layoutOf(rec(), 0);
    for (const [top, high] of lanes) svg.querySelector(".lanes").append(rect(-20, top, (T - 1) * pitch() + width + 20, high, { rx: 8, fill: "#fbeec3" }));
    if (end) {
      const g = make("g", { class: "node" });
      g.append(rect(0, end[0], (T - 1) * pitch() + width, end[1], { rx: 4, fill: "#ffffff", stroke: INK, "stroke-width": 1.2 }));
      now.endText = word(0, end[0] + end[1] / 2, rec().loss || rec().end[0], 13, { bold: true });
      g.append(now.endText);
      const e = rec().end;
      named(g, `${e[0]}: ${e[2]}, ${tr("gradient: {status}", { status: tr(e[5]) })}`, null).dataset.key = "loss";
      svg.querySelector(".boxes").append(g);
    }
    return svg;
  }

  /** Draw one step. */
  function step(k) {
    const r = rec(), t = T ? data.steps[k] : null, own = planOf(r, k)[now.view], operations = now.view === "operations";
    const at = operations ? "" : `translate(${k * pitch()},0)`;
    const groups = ["frames", "lines", "boxes"].map((name) => {
      const g = make("g", { transform: at });
      now.svg.querySelector(`.${name}`).append(g);
      return g;
    });
    for (const f of own.frames) groups[0].append(operations ? frame(k, f) : stepFrame(k, t, f));
    for (const l of own.lines) groups[1].append(edge(r, k, l));
    for (const b of own.boxes) groups[2].append(card(r, k, b));
    now.shown.set(k, groups);
  }

  function stepFrame(k, t, [band, x, y, w, h]) {
    const said = data.captions[k], g = make("g", { class: "step" });
    g.append(rect(x, y, w, h, { rx: 6, fill: PANEL, stroke: FAINT, "stroke-width": 1.2 }));
    const title = [band, `t = ${t}`, said].filter(Boolean).join("  ");
    g.append(word(x + w / 2, y + 11, title, fitted(title, 12, w - 8), { bold: true }));
    g.dataset.key = `${band} t=${t}`.trim();
    return named(g, `${band} ${tr("step t = {t}", { t })} ${said}`.trim(), t);
  }

  function frame(k, [name, x, y, w, h, depth]) {
    const g = make("g");
    g.append(rect(x, y, w, h, { rx: 6, fill: depth > 1 ? "#ffffff" : PANEL, stroke: FAINT }));
    const said = depth > 1 ? name : [`t = ${data.steps[k]}`, data.captions[k]].filter(Boolean).join("  ");
    g.append(word(x + w / 2, y + 11, said, fitted(said, depth > 1 ? 11 : 12, w - 6), { bold: true, fill: depth > 1 ? SOFT : INK }));
    return g;
  }

  /** Draw what came into sight, and take away what left it; what has the focus stays. */
  function update() {
    if (now.view === "operations") return;
    const [x, , w] = boxOf();
    const from = Math.max(0, Math.floor(x / pitch()) - 2), to = Math.min(T - 1, Math.ceil((x + w) / pitch()) + 1);
    const held = now.svg.contains(document.activeElement) ? data.steps.indexOf(Number(document.activeElement.dataset.t)) : -1;
    for (const [k, groups] of now.shown) {
      if (k >= from && k <= to || k === held) continue;
      for (const g of groups) g.remove();
      now.shown.delete(k);
    }
    for (let k = from; k <= to; k++) if (!now.shown.has(k)) step(k);
    if (now.endText) {
      const wide = (T - 1) * pitch() + layoutOf(rec(), 0).width;
      now.endText.setAttribute("x", (Math.max(x, 0) + Math.min(x + w, wide)) / 2);
    }
    map();
  }

  async function show(view, k = now.k, { keep = false, focus = null } = {}) {
    const asked = ++now.asked;
    try {
      await load(rec());
    } catch {
      $("status").textContent = tr("This browser cannot unpack the numbers; a newer one can.");
      return;
    }
    if (asked !== now.asked) return; // something else was asked for meanwhile
    const same = keep && now.view === view && sheet.classList.contains("live");
    const box = same && (view !== "operations" || planOf(rec(), k) === now.plan) ? boxOf() : null;
    const beat = same && !now.timer ? now.beat : 0;
    stop();
    const held = now.svg && sheet.contains(document.activeElement);
    const old = held ? document.activeElement.dataset.key : null;
    Object.assign(now, { view, k, beat, plan: planOf(rec(), k) });
    sheet.replaceChildren(blank());
    sheet.classList.add("live");
    $("atlas").hidden = T < 2;
    if (box) setBox(box);
    else home();
    pass(beat);
    tools();
    const target = focus || old;
    if (focus || held) land((target && byKey(target)) || ofStep(k) || stops()[0]);
    else inspect(null);
    if (!keep) tell();
  }

  const byKey = (key) => stops().find((e) => e.dataset.key === key);

  function ofStep(k) {
    const own = stops().filter((e) => e.dataset.t === String(data.steps[k]));
    return own.find((e) => e.classList.contains("step")) || own[0];
  }

  // Where one looks.

  const boxOf = () => now.box;

  function setBox(box) {
    now.box = box;
    now.svg.setAttribute("viewBox", box.map((v) => v.toFixed(2)).join(" "));
    update();
  }

  /** As much as can be read at the width of the page, around the step that one looks at. */
  function home() {
    const [x, y, w, h] = now.whole, room = sheet.clientWidth || 800;
    const all = room / w; // the scale at which all of it is seen
    const least = { steps: 0.8, gates: 0.8, operations: 0.6 }[now.view]; // at which it can be read
    const scale = Math.min(1.4, all > least ? all : Math.max(least, room < 600 ? 0.8 : 0.95));
    const tall = Math.min(Math.max(h * scale, 230), 0.72 * innerHeight);
    sheet.style.height = `${Math.round(tall)}px`;
    const real = Math.min(scale, tall / h), wide = room / real;
    if (wide > w - 1) whole();
    else if (now.view === "operations") setBox([x, y, wide, tall / real]);
    else near(now.k, wide, tall / real);
  }

  function near(k, wide = boxOf()[2], tall = boxOf()[3]) {
    const [x, y, w] = now.whole;
    const middle = k * pitch() + layoutOf(rec(), 0).width / 2;
    setBox([Math.min(Math.max(middle - wide / 2, x), Math.max(x + w - wide, x)), tall === boxOf()?.[3] ? boxOf()[1] : y, wide, tall]);
  }

  /** How far one may zoom out: no more steps than can be drawn at once. */
  function widest() {
    if (now.view === "operations" || T <= MOST[now.view]) return now.whole[2] * 1.5;
    return MOST[now.view] * pitch();
  }

  /** All of it, in the middle. */
  function whole() {
    const [x, y, w, h] = now.whole, aspect = sheet.clientWidth / sheet.clientHeight, wide = Math.max(w, h * aspect);
    setBox([x - (wide - w) / 2, y - (wide / aspect - h) / 2, wide, wide / aspect]);
  }

  const fit = () => (now.whole[2] <= widest() ? whole() : home());

  function zoom(factor, at = null) {
    const [x, y, w, h] = boxOf();
    const wide = Math.min(Math.max(w / factor, 40), widest());
    const f = w / wide;
    const c = at || { x: x + w / 2, y: y + h / 2 };
    setBox([c.x - (c.x - x) / f, c.y - (c.y - y) / f, wide, h / f]);
  }

  function pan(dx, dy) {
    const [x, y, w, h] = boxOf();
    const [left, , whole] = now.whole;
    setBox([Math.min(Math.max(x - dx, left - w / 2), left + whole - w / 2), y - dy, w, h]);
  }

  const point = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(now.svg.getScreenCTM().inverse());
  const perPixel = () => 1 / now.svg.getScreenCTM().a;

  /** The place of a part in the coordinates of the viewBox. */
  function placed(part) {
    const box = part.getBBox();
    const m = now.svg.getScreenCTM().inverse().multiply(part.getScreenCTM());
    const a = new DOMPoint(box.x, box.y).matrixTransform(m);
    return { x: a.x, y: a.y, width: box.width, height: box.height };
  }

  /** Bring a part into sight when it is not. */
  function reveal(part) {
    const b = placed(part);
    const [x, y, w, h] = boxOf();
    if (b.width > w) return;
    const dx = b.x < x ? x - b.x + 12 : b.x + b.width > x + w ? x + w - b.x - b.width - 12 : 0;
    const dy = b.y < y ? y - b.y + 12 : b.y + b.height > y + h ? y + h - b.y - b.height - 12 : 0;
    if (dx || dy) pan(dx, dy);
  }

  // The whole length in one strip: a row for each state, in the colours of its gradient.

  function map() {
    const canvas = $("map"), range = $("where"), r = rec();
    if (T < 2) return;
    const wide = Math.max(1, Math.round(canvas.clientWidth)), rows = states(r);
    canvas.width = wide;
    canvas.height = Math.max(1, rows.length) * 9;
    const ink = canvas.getContext("2d"), width = wide / T;
    rows.forEach(([band, name], row) => {
      for (let k = 0; k < T; k++) {
        const box = planOf(r, k).gates.boxes.find((b) => b.band === band && b.key === name && !b.dt);
        if (!box) continue;
        const [, , columns, , why] = planOf(r, k).nodes[box.n], status = statusOf(r, k, columns[1], why);
        ink.fillStyle = stroke(status, columns[1] < 0 ? 0 : value(r, k, columns[1]))[0];
        ink.fillRect(k * width, row * 9 + 1, Math.max(width + 0.5, 1), 7);
      }
    });
    const frame = $("frame");
    const [x, , w] = now.view === "operations" ? [now.k * 1, 0, 1] : boxOf().map((v) => v / pitch());
    const left = Math.min(Math.max(x / T, 0), 1), right = Math.min(Math.max((x + w) / T, 0), 1);
    frame.style.left = `${100 * left}%`;
    frame.style.width = `max(4px, ${100 * (right - left)}%)`;
    range.value = now.k;
    range.setAttribute("aria-valuetext", `t = ${data.steps[now.k]}`);
    $("rows").textContent = tr("‖gradient‖ of {names} over t = {first} … {last}", {
      names: rows.map(([band, , name]) => `${band} ${name}`.trim()).join(", "), first: data.steps[0], last: data.steps[T - 1],
    });
  }

  function states(r) {
    const found = new Map();
    for (const p of new Set(r.plans)) for (const b of data.plans[p].gates.boxes) if (b.fill === 1 && !b.dt) found.set(`${b.band} ${b.key}`, [b.band, b.key, b.name]);
    return [...found.values()].slice(0, 6);
  }

  // What is pointed at.

  const part = (target) => target instanceof Element && target.closest(".edge, [tabindex]");

  function inspect(pointed) {
    for (const e of now.svg.querySelectorAll(".pointed")) e.classList.remove("pointed");
    now.pointed = pointed && now.svg.contains(pointed) ? pointed : null;
    const list = $("numbers");
    list.replaceChildren();
    if (!now.pointed) {
      $("name").textContent = tr("Point at a box or a line");
      return;
    }
    if (pointed.classList.contains("edge")) pointed.classList.add("pointed");
    const [name, said] = numbersOf(pointed);
    $("name").textContent = name;
    said.forEach((content, i) => {
      if (!content) return;
      const row = document.createElement("div");
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = FIELDS[i];
      dd.textContent = content;
      row.append(dt, dd);
      list.append(row);
    });
  }

  function numbersOf(pointed) {
    const r = rec(), own = pointed.own;
    if (pointed.dataset.key === "loss") return [r.end[0], [...r.end.slice(2, 5), tr(r.end[5]), ...r.end.slice(6, 8), "", ""]];
    if (!own) return [pointed.querySelector("title").textContent, []];
    const [name, shape, columns, , why] = planOf(r, own.k).nodes[own.n];
    const say = (i) => text(r, own.k, columns[i]);
    const share = say(5) && `${say(5)} %`;
    const status = statusOf(r, own.k, columns[1], why);
    const where = own.t === null ? "" : own.all ? tr(", all steps together") : `, t = ${own.t}`;
    return [name + where, [shape, say(0), say(1), tr(status), say(2), say(3), say(4), share]];
  }

  // The backward pass.

  /** By beat the earliest step from which a line starts, and by step and target the beat. */
  function passes(r, level, beats) {
    const starts = [], first = [];
    let from = 0;
    r.plans.forEach((p, kind) => {
      starts.push(from);
      from += data.plans[p][level].turns * r.sizes[kind][2];
    });
    const of = (k, turn) => beats[starts[r.of[k]] + turn * r.sizes[r.of[k]][2] + r.at[k]];
    for (let k = 0; k < T; k++) {
      for (const [, , , , turn, , dt] of data.plans[r.plans[r.of[k]]][level].lines) {
        if (turn < 0) continue;
        const t = data.steps[k] + (dt || 0), beat = of(k, turn);
        if (first[beat] === undefined || t < first[beat]) first[beat] = t;
      }
    }
    return { of, first, last: Math.max(0, first.length - 1) };
  }

  const beats = () => rec().beats_[now.view]?.last || 0;
  const edges = () => [...now.svg.querySelectorAll(".edge")];

  function light(e) {
    const own = Number(e.dataset.beat || 0);
    e.classList.toggle("lit", own > 0 && own <= now.beat);
    e.classList.toggle("now", own > 0 && own === now.beat);
  }

  function pass(n) {
    now.beat = n;
    now.svg.classList.toggle("passing", n > 0);
    if (n) follow(rec().beats_[now.view].first[n]);
    const all = edges();
    all.forEach(light);
    if (!n) return;
    const said = all.filter((e) => e.classList.contains("now")).map((e) => e.querySelector("title").textContent);
    const more = said.length > 3 ? ` · ${tr("and {n} more", { n: said.length - 3 })}` : "";
    $("status").textContent = `${tr("Backward pass, {n} of {total}", { n, total: beats() })}: ${said.slice(0, 3).join(" · ")}${more}`;
  }

  /** Keep in sight where the pass is. */
  function follow(t) {
    const k = Math.max(data.steps.indexOf(t), 0), [x, , w] = boxOf(), left = k * pitch();
    if (left < x || left + pitch() > x + w) near(Math.max(0, k - Math.floor((0.3 * w) / pitch())));
  }

  function stop() {
    clearTimeout(now.timer);
    now.timer = 0;
    $("play").textContent = calm.matches ? tr("One step back in time") : tr("▶ Play the backward pass");
  }

  function next(by = 1) {
    const last = beats();
    if (!last) return false;
    pass(now.beat >= last ? 1 : Math.min(now.beat + by, last));
    return now.beat < last;
  }

  /** Without motion: on to the last piece of the next step back in time. */
  function leap() {
    const last = beats();
    if (!last) return;
    const { first } = rec().beats_[now.view];
    let n = now.beat >= last ? 1 : now.beat + 1;
    while (n < last && first[n + 1] === first[n]) n++;
    pass(n);
  }

  function play() {
    if (now.timer) return stop();
    if (calm.matches) return leap();
    const pause = Math.min(420, Math.max(40, 6000 / Math.max(1, beats())));
    const by = Math.max(1, Math.round((beats() * pause) / 20000)); // at most some 20 s
    const tick = () => {
      now.timer = next(by) ? setTimeout(tick, pause) : 0;
      if (!now.timer) stop();
    };
    pass(0);
    now.svg.classList.add("passing");
    tick();
    if (now.timer) $("play").textContent = tr("■ Stop");
  }

  // Keys: one stop for Tab, arrows within the picture.

  const stops = () => [...now.svg.querySelectorAll("[tabindex]")];

  function land(target) {
    if (!target) return;
    for (const e of stops()) e.setAttribute("tabindex", e === target ? "0" : "-1");
    if (target.dataset.t !== undefined) now.k = Math.max(data.steps.indexOf(Number(target.dataset.t)), 0);
    target.focus({ preventScroll: true });
    reveal(target);
    inspect(target);
    map();
  }

  function move(from, right, down) {
    const at = centre(from);
    const t = from.dataset.t;
    const others = stops().filter((e) => e !== from);
    if (down) {
      const column = others.filter((e) => e.dataset.t === t || e.dataset.t === undefined);
      const there = column.filter((e) => (centre(e).y - at.y) * down > 1);
      return best(there, (e) => Math.abs(centre(e).y - at.y) + 0.3 * Math.abs(centre(e).x - at.x));
    }
    const same = others.filter((e) => e.classList.contains("step") === from.classList.contains("step"));
    const name = (e) => (e.dataset.key || "").replace(/t=-?\d+/, "");
    const beside = t === undefined ? [] : same.filter((e) => e.dataset.t !== undefined && (e.dataset.t - t) * right > 0);
    if (now.view !== "operations" && beside.length) {
      return best(beside, (e) => Math.abs(e.dataset.t - t) * 1e4 + (name(e) === name(from) ? 0 : 1e3)
        + Math.abs(centre(e).y - at.y));
    }
    const there = same.filter((e) => (centre(e).x - at.x) * right > 1);
    return best(there, (e) => Math.abs(centre(e).x - at.x) + 2 * Math.abs(centre(e).y - at.y));
  }

  const centre = (e) => {
    const b = e.getBoundingClientRect();
    return { x: b.x + b.width / 2, y: b.y + b.height / 2 };
  };

  const best = (found, cost) => found.reduce((a, b) => (!a || cost(b) < cost(a) ? b : a), null);

  const has = (view) => (view === "operations" ? rec().deep : T > 0);

  function open(t, key) {
    if (t === undefined || t === null) return;
    const view = LEVELS[LEVELS.indexOf(now.view) + 1], k = data.steps.indexOf(Number(t));
    if (view && k >= 0 && has(view)) show(view, k, { focus: key || " " });
    else if (view === "operations" && !rec().deep) $("status").textContent = tr("Operations are drawn for the last recording only.");
  }

  function back() {
    const view = LEVELS[LEVELS.indexOf(now.view) - 1];
    if (view && has(view)) show(view, now.k, { focus: " " });
  }

  /** Look at a step. */
  function go(k) {
    if (now.view === "operations") return show("operations", k, { keep: true });
    now.k = k;
    near(k);
  }

  const shifts = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const from = part(event.target);
    const box = boxOf();
    const shift = shifts[event.key];
    if (shift && event.shiftKey) pan(shift[0] * box[2] * 0.1, shift[1] * box[2] * 0.1);
    else if (shift && from) land(move(from, -shift[0], -shift[1]));
    else if ((event.key === "Home" || event.key === "End") && T && now.view !== "operations") {
      go(event.key === "Home" ? 0 : T - 1);
      land(ofStep(now.k));
    } else if ((event.key === "PageUp" || event.key === "PageDown") && T) {
      const k = Math.min(Math.max(now.k + (event.key === "PageUp" ? -1 : 1), 0), T - 1);
      go(k);
      if (now.view !== "operations") land(ofStep(k));
    } else if ((event.key === "Enter" || event.key === " ") && from) open(from.dataset.t, from.dataset.key);
    else if (event.key === "Escape") back();
    else if (event.key === "+" || event.key === "=") zoom(1.25);
    else if (event.key === "-") zoom(0.8);
    else if (event.key === "0") fit();
    else if (event.key === "p") play();
    else return;
    event.preventDefault();
  }

  // Controls.

  function tell() {
    const t = data.steps[now.k];
    const where = { steps: () => tr("Steps"), gates: () => tr("Gates of step t = {t}", { t }), operations: () => tr("Operations of step t = {t}", { t }) }[now.view]();
    const more = now.view === "steps" ? tr("A click or Enter opens a step.") : tr("Esc goes back.");
    $("status").textContent = T ? `${where}. ${more}` : "";
  }

  function tools() {
    for (const b of $("levels").children) {
      b.setAttribute("aria-pressed", String(b.dataset.view === now.view));
      b.disabled = !has(b.dataset.view);
    }
    const none = !beats();
    for (const id of ["play", "beat", "reset"]) $(id).disabled = none;
    const r = rec();
    const said = [r.label, r.loss].filter(Boolean).join(" · ");
    $("label").textContent = said;
    $("recording").setAttribute("aria-valuetext", said);
    $("said").textContent = r.said.join(" ");
    const first = stops().find((e) => e.getAttribute("tabindex") === "0") || ofStep(now.k) || stops()[0];
    if (first) first.setAttribute("tabindex", "0");
    map();
  }

  const fingers = new Map();
  let drag = null;

  sheet.addEventListener("pointerdown", (e) => {
    fingers.set(e.pointerId, e);
    drag = { x: e.clientX, y: e.clientY, moved: false };
  });
  sheet.addEventListener("pointermove", (e) => {
    if (!fingers.has(e.pointerId)) return;
    const before = fingers.get(e.pointerId);
    const other = [...fingers.values()].find((f) => f.pointerId !== e.pointerId);
    if (Math.hypot(e.clientX - drag.x, e.clientY - drag.y) > 4 && !drag.moved) {
      drag.moved = true;
      sheet.setPointerCapture(e.pointerId);
      sheet.classList.add("dragging");
    }
    if (other) {
      const far = (f) => Math.hypot(f.clientX - other.clientX, f.clientY - other.clientY) || 1;
      zoom(far(e) / far(before), point(other));
    } else if (drag.moved) pan((e.clientX - before.clientX) * perPixel(), (e.clientY - before.clientY) * perPixel());
    fingers.set(e.pointerId, e);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    addEventListener(name, (e) => {
      fingers.delete(e.pointerId);
      sheet.classList.remove("dragging");
    });
  }
  sheet.addEventListener("click", (e) => {
    if (drag && drag.moved) return;
    const target = part(e.target);
    if (target && !target.classList.contains("edge")) open(target.dataset.t, target.dataset.key);
  });
  sheet.addEventListener("wheel", (e) => {
    e.preventDefault();
    if (Math.abs(e.deltaX) > Math.abs(e.deltaY) || e.shiftKey) pan(-(e.deltaX || e.deltaY) * perPixel(), 0);
    else zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0015)), point(e));
  }, { passive: false });
  sheet.addEventListener("pointerover", (e) => inspect(part(e.target) || now.pointed));
  sheet.addEventListener("focusin", (e) => inspect(part(e.target)));
  sheet.addEventListener("keydown", key);

  function listen() {
    for (const b of $("levels").children) b.addEventListener("click", () => show(b.dataset.view));
    $("in").addEventListener("click", () => zoom(1.4));
    $("out").addEventListener("click", () => zoom(1 / 1.4));
    $("fit").addEventListener("click", fit);
    $("play").addEventListener("click", play);
    $("beat").addEventListener("click", () => { stop(); next(); });
    $("reset").addEventListener("click", () => { stop(); pass(0); tell(); });
    $("where").addEventListener("input", (e) => go(Number(e.target.value)));
    $("recording").addEventListener("input", (e) => {
      now.recording = Number(e.target.value);
      show(has(now.view) ? now.view : "gates", now.k, { keep: true });
    });
    calm.addEventListener("change", stop);
    addEventListener("resize", map);
  }

  show(now.view).then(() => {
    if (!now.svg) return;
    listen();
    for (const id of ["tools", "inspector", "legend", "help"]) $(id).hidden = false;
    $("levels").hidden = !T;
    $("training").hidden = data.recordings.length < 2;
  });
})();
