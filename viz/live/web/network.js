// A network that learns: its weights, a step of training, and what is looked at after it.

/** Numbers in 0 … 1 from a seed: xorshift of 32 bits (Marsaglia, 2003). @param {number} seed */
function random(seed) {
  let x = Math.imul(seed + 1, 2654435769) | 1;
  const next = () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) / 4294967296;
  };
  for (let k = 0; k < 16; k++) next(); // neighbouring seeds part
  return next;
}

/** Orthonormal rows of a random square matrix. @param {() => number} draw @param {number} n @returns {number[][]} */
function orthogonal(draw, n) {
  const normal = () => Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
  const rows = [];
  while (rows.length < n) {
    const row = Array.from({ length: n }, normal);
    for (const other of rows) {
      const along = row.reduce((sum, v, k) => sum + v * other[k], 0);
      other.forEach((v, k) => (row[k] -= along * v));
    }
    const size = Math.hypot(...row);
    if (size > 1e-3) rows.push(row.map((v) => v / size));
  }
  return rows;
}

const norm = (a, from = 0, to = a.length) => {
  let sum = 0;
  for (let k = from; k < to; k++) sum += a[k] * a[k];
  return Math.sqrt(sum);
};

/** @typedef {{lr: number, bias: number, scale: number, last: boolean, truncate: number, clip: number, seed: number}} Settings */

class Network {
  /** @param {any} cell @param {Program} program @param {any} rule @param {Program} mover @param {number[]} codes @param {Settings} settings */
  constructor(cell, program, rule, mover, codes, settings) {
    this.cell = cell;
    this.program = program;
    this.rule = rule;
    this.mover = mover;
    this.codes = codes;
    this.settings = settings;
    this.sizes = program.sizes;
    const { T, K } = this.sizes;
    /** @type {any[]} */
    this.places = [];
    let at = 0;
    for (const [name, view] of Object.entries(program.parameters)) {
      this.places.push([view, program.gradients[name], at]);
      at += view.length;
    }
    const taken = mover.layout.arguments.map((/** @type {any} */ fact) => mover.arguments[fact.name]);
    this.value = taken[0];
    this.gradient = taken[1];
    this.slots = taken.slice(2, -1);
    this.numbers = taken[taken.length - 1];
    this.draw();
    const { targets } = program.arguments;
    for (let t = 0; t < T; t++) targets[t * K + codes[t + 1]] = 1;
    this.write(codes.slice(0, T));
    this.count = 0;
    this.norm = 0;
    /** @type {number[]} */
    this.losses = [];
    this.broken = false;
    this.loss = NaN;
    this.carried = new Float64Array(T * cell.state.length); // ‖gradient‖ that goes back from a step, by state
    this.own = new Float64Array(T);
    this.arrived = new Float64Array(T); // ‖gradient of all states‖ of a step, each where it comes in
    this.distance = new Float64Array(T); // the same of the last step's loss alone
    this.look();
  }

  /** The weights at the start: recurrent ones orthogonal times `scale`, the others after Glorot. */
  draw() {
    const { H, K } = this.sizes, draw = random(this.settings.seed);
    for (const [name, view] of Object.entries(this.program.parameters)) {
      const [rows, columns] = this.program.layout.parameters[name].shape.map((axis) => numberOf(axis, this.sizes));
      if (columns === undefined) {
        view.fill(name === this.cell.forget ? this.settings.bias : this.cell.biases[name]);
        continue;
      }
      const recurrent = rows === H + K && columns === H ? H : 0, square = orthogonal(draw, recurrent);
      const limit = Math.sqrt(6 / (rows - recurrent + columns));
      for (let k = 0; k < view.length; k++) {
        const row = Math.floor(k / columns);
        view[k] = row < recurrent ? this.settings.scale * square[row][k % columns] : limit * (2 * draw() - 1);
      }
    }
    this.gather(0);
  }

  /** Weights, or gradients, into the one array that the optimiser takes. @param {0|1} which */
  gather(which) {
    const flat = which ? this.gradient : this.value;
    for (const place of this.places) flat.set(place[which], place[2]);
  }

  /** The input letters. @param {number[]} codes */
  write(codes) {
    const { x } = this.program.arguments, { K } = this.sizes;
    x.fill(0);
    codes.forEach((code, t) => (x[t * K + code] = 1));
  }

  /** Run the program with the loss at each step, or at the last alone. @param {boolean} last */
  run(last) {
    const { weights, cut } = this.program.arguments, { T } = this.sizes, every = this.settings.truncate;
    for (let t = 0; t < T; t++) {
      weights[t] = last ? Number(t === T - 1) : 1 / T;
      cut[t] = Number(every > 0 && t > 0 && t % every === 0);
    }
    this.program.run();
    return this.program.results[0][0];
  }

  /** One step of training.  Where the gradient is no number, nothing moves. */
  step() {
    if (this.broken) return;
    const loss = this.run(this.settings.last);
    this.gather(1);
    this.norm = norm(this.gradient);
    if (!Number.isFinite(loss) || !Number.isFinite(this.norm)) {
      this.broken = true;
      return;
    }
    this.count += 1;
    this.losses.push(loss);
    if (this.losses.length > 4096) this.losses.splice(0, 1024); // what the curve shows
    const { clip, lr } = this.settings, { table, scaled } = this.rule, rows = table.length / scaled.length;
    const row = Math.min(this.count, rows) - 1; // from the last row on nothing changes
    this.numbers[0] = clip && this.norm > clip ? clip / this.norm : 1;
    for (let k = 0; k < scaled.length; k++) this.numbers[k + 1] = table[k * rows + row] * (scaled[k] ? lr : 1);
    this.mover.run();
    [this.value, ...this.slots].forEach((array, k) => array.set(this.mover.results[k]));
    for (const [view, , at] of this.places) view.set(this.value.subarray(at, at + view.length));
  }

  /** What the reader sees: values, gradients between the steps, and how far the last step's loss reaches. */
  look() {
    this.write(this.codes.slice(0, this.sizes.T));
    this.run(true);
    this.sizesOf(this.distance);
    this.loss = this.run(this.settings.last);
    this.sizesOf(this.arrived);
  }

  /** @param {Float64Array} found gets ‖gradient of all states‖ by step */
  sizesOf(found) {
    const { T, H } = this.sizes, { link, own } = this.program.gradients, S = this.cell.state.length;
    for (let t = 0; t < T; t++) {
      let sum = 0;
      for (let s = 0; s < S; s++) {
        this.carried[t * S + s] = norm(link, (t * S + s) * H, (t * S + s + 1) * H);
        for (let k = 0; k < H; k++) {
          const v = (t + 1 < T ? link[((t + 1) * S + s) * H + k] : 0) + (s ? 0 : own[t * H + k]);
          sum += v * v;
        }
      }
      this.own[t] = norm(own, t * H, (t + 1) * H);
      found[t] = Math.sqrt(sum);
    }
  }

  /** The most likely letter at a step, and its probability. @param {number} t @returns {[number, number]} */
  best(t) {
    const { K } = this.sizes, p = this.program.results[1];
    let best = 0;
    for (let k = 1; k < K; k++) if (p[t * K + k] > p[t * K + best]) best = k;
    return [best, p[t * K + best]];
  }

  right() {
    let count = 0;
    for (let t = 0; t < this.sizes.T; t++) count += Number(this.best(t)[0] === this.codes[t + 1]);
    return count;
  }

  /** Let it write: each most likely letter is the next input. */
  writes() {
    const { T } = this.sizes, text = [this.codes[0]];
    for (let t = 0; t < T; t++) {
      this.write(text);
      this.program.run();
      text.push(this.best(t)[0]);
    }
    return text;
  }

  /** Values of a quantity at a step. @param {number} q @param {number} t @returns {Float32Array} */
  values(q, t) {
    const { H } = this.sizes;
    return this.program.results[2 + q].subarray(t * H, (t + 1) * H);
  }
}
