// Three charts beside the picture: the loss, the gradient by distance, and the gates over time.

const WIDE = 360, HIGH = 190, LEFT = 70, RIGHT = 10, ABOVE = 12, BELOW = 30;

class Chart {
  /** @param {Element} host @param {string} name @param {string} across what the axis says */
  constructor(host, name, across) {
    const { make } = shapes;
    this.svg = make("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, class: "chart", role: "img", "aria-label": name });
    this.back = make("g", { class: "back" });
    this.marks = make("g");
    this.svg.append(this.back, this.marks, make("text", { x: (LEFT + WIDE - RIGHT) / 2, y: HIGH - 4, class: "axis", "text-anchor": "middle" }, across));
    host.replaceChildren(this.svg);
    this.key = "";
    this.x = (/** @type {number} */ v) => v;
    this.y = (/** @type {number} */ v) => v;
  }

  /** Axes, drawn anew only where they change. @param {[number, number]} x @param {[number, number]} y
   * @param {[number, string][]} xs ticks @param {[number, string][]} ys */
  axes(x, y, xs, ys) {
    this.x = (v) => LEFT + ((v - x[0]) / (x[1] - x[0] || 1)) * (WIDE - LEFT - RIGHT);
    this.y = (v) => HIGH - BELOW - ((v - y[0]) / (y[1] - y[0] || 1)) * (HIGH - BELOW - ABOVE);
    const key = JSON.stringify([x, y, xs, ys]);
    if (key === this.key) return;
    this.key = key;
    const { make } = shapes;
    this.back.replaceChildren();
    for (const [v, said] of ys) {
      const at = this.y(v);
      this.back.append(make("path", { d: `M${LEFT} ${at}H${WIDE - RIGHT}`, class: "grid" }), make("text", { x: LEFT - 5, y: at + 4, "text-anchor": "end", class: "axis" }, said));
    }
    for (const [v, said] of xs) this.back.append(make("text", { x: this.x(v), y: HIGH - BELOW + 14, "text-anchor": "middle", class: "axis" }, said));
  }

  /** The k-th mark, of a kind that stays. @param {number} k @param {string} kind @param {Record<string, any>} given @param {string} said */
  mark(k, kind, given, said = "") {
    while (this.marks.children.length <= k) this.marks.append(shapes.make(kind));
    let e = this.marks.children[k];
    if (e.tagName !== kind) this.marks.replaceChild((e = shapes.make(kind)), this.marks.children[k]);
    for (const [key, v] of Object.entries(given)) put(e, { [key]: String(v) });
    say(e, said);
  }

  /** Marks from the k-th on are no more. @param {number} k */
  end(k) {
    while (this.marks.children.length > k) this.marks.lastChild?.remove();
  }
}

/** Some whole numbers of a range, at most `most`. @param {number} n @param {number} most @returns {number[]} */
function some(n, most) {
  const step = Math.max(1, Math.ceil(n / most));
  return Array.from({ length: Math.floor(n / step) + 1 }, (_, k) => k * step);
}

const points = (/** @type {number[][]} */ xs) => xs.map(([x, y], k) => `${k ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/** @param {Chart} chart @param {Network} network */
function drawLoss(chart, network) {
  const { losses, count, sizes } = network, guess = Math.log(sizes.K), first = count - losses.length;
  const good = losses.filter(Number.isFinite), top = Math.max(guess * 1.15, Math.min(Math.max(...good.slice(-400), 0), guess * 4));
  const end = Math.max(first + 10, count);
  chart.axes([first, end], [0, top], [[first, String(first)], [end, String(end)]], [[0, "0"], [guess, short(guess)]]);
  const every = Math.max(1, Math.ceil(losses.length / 240)), drawn = [];
  for (let k = 0; k < losses.length; k += every) drawn.push([chart.x(first + k + 1), chart.y(Math.min(losses[k], top))]);
  if (losses.length) drawn.push([chart.x(count), chart.y(Math.min(losses[losses.length - 1], top))]);
  chart.mark(0, "path", { d: points(drawn) || "M0 0", class: "line" });
  chart.mark(1, "text", { x: WIDE - RIGHT - 2, y: chart.y(guess) - 4, class: "axis", "text-anchor": "end" }, tr("{loss} = blind guess among {n}", { loss: short(guess), n: sizes.K }));
  chart.svg.setAttribute("aria-label", tr("Loss by training step: now {loss}", { loss: short(network.loss, 3) }));
}

/** What is left of the last step's loss, by distance. @param {Chart} chart @param {Network} network @param {any} style @param {any} bounds */
function drawDistance(chart, network, style, bounds) {
  const { T } = network.sizes, { distance } = network, start = distance[T - 1];
  const parts = Array.from(distance, (v) => v / start).reverse();
  const logs = parts.map((v) => (v > 0 && Number.isFinite(v) ? Math.log10(v) : NaN)), good = logs.filter(Number.isFinite);
  const high = Math.ceil(Math.max(0, ...good) - 0.01), low = Math.max(-12, Math.min(-3, Math.floor(Math.min(0, ...good))));
  const decades = some(high - low, 5).map((k) => low + k);
  chart.axes([0, Math.max(T - 1, 1)], [low, Math.max(high, 0)], some(T - 1, 10).map((d) => [d, String(d)]), decades.map((d) => [d, `× ${short(10 ** d, 1)}`]));
  const bound = chart.y(Math.log10(bounds.left));
  const drawn = logs.map((v, d) => [chart.x(d), chart.y(Number.isFinite(v) ? Math.max(low, Math.min(high, v)) : low)]);
  chart.mark(0, "path", { d: points(drawn), class: "thin" });
  chart.mark(1, "path", { d: `M${LEFT} ${bound}H${WIDE - RIGHT}`, class: "bound" });
  chart.mark(2, "text", { x: LEFT + 4, y: bound + 13, class: "axis", "text-anchor": "start" }, tr("below: vanishes"));
  drawn.forEach(([x, y], d) => {
    const [colour] = shapes.strokeOf(style, shapes.statusOf(style, parts[d]), parts[d]);
    chart.mark(3 + d, "circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: T > 20 ? 3 : 5, fill: colour });
  });
  chart.end(3 + T);
  const values = { share: short(parts[T - 1], 3), n: T - 1 };
  chart.svg.setAttribute("aria-label", T === 2 ? tr("What is left of the last letter's gradient: × {share} after 1 step back", values) : tr("What is left of the last letter's gradient: × {share} after {n} steps back", values));
}

/** @param {Chart} chart @param {Network} network */
function drawGates(chart, network) {
  const { T } = network.sizes, { cell } = network, gates = cell.gates;
  chart.axes([1, Math.max(T, 2)], [0, 1], some(T - 1, 10).map((k) => [k + 1, String(k + 1)]), [[0, tr("shut 0")], [0.5, "0.5"], [1, tr("open 1")]]);
  let k = 0;
  gates.forEach((name, n) => {
    const q = cell.quantities.indexOf(name), values = Array.from({ length: T }, (_, t) => mean(network.values(q, t)));
    const drawn = values.map((v, t) => [chart.x(t + 1), chart.y(v)]);
    if (T < 2) drawn.push([drawn[0][0] + 12, drawn[0][1]]);
    chart.mark(k++, "path", { d: points(drawn), class: `line of${n % 4}` });
  });
  gates.forEach((name, n) => {
    const q = cell.quantities.indexOf(name), v = mean(network.values(q, T - 1));
    chart.mark(k++, "text", { x: WIDE - RIGHT - 4 - 18 * (gates.length - 1 - n), y: Math.max(ABOVE + 8, chart.y(v) - 6), class: `key of${n % 4}`, "text-anchor": "end" }, shown(name));
  });
  if (!gates.length) chart.mark(k++, "text", { x: (WIDE + LEFT) / 2, y: HIGH / 2, class: "axis", "text-anchor": "middle" }, tr("{cell} has no gates: nothing protects its memory.", { cell: cell.name }));
  chart.end(k);
  chart.svg.setAttribute("aria-label", gates.length ? tr("Gates over time, on average: {gates}", { gates: gates.map((g) => `${shown(g)} ${short(mean(network.program.results[2 + cell.quantities.indexOf(g)]))}`).join(", ") }) : tr("No gates"));
}
