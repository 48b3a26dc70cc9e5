// A compiled program as a WebAssembly module: memory is laid out here, for any sizes up to those it was made for.

/** @typedef {{kind: string, bytes: number, address: number, count: number}} Store */
/** @typedef {{store: number|null, dtype: string, shape: Array}} Fact */

const { tr } = shapes;
const ALIGN = 64;
const aligned = (n) => Math.ceil(n / ALIGN) * ALIGN;

/** The number of a polynomial, [coefficient, name, …] for each term.
 * @param {Array} polynomial @param {Record<string, number>} sizes @returns {number} */
const numberOf = (polynomial, sizes) =>
  polynomial.reduce((sum, [c, ...names]) => sum + names.reduce((product, name) => product * sizes[name], c), 0);

/** Base64 of deflated bytes. @param {string} packed @returns {Promise<Uint8Array>} */
async function unpack(packed) {
  const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** A program laid out for some sizes: `run` computes `results` and `gradients` from `arguments` and `parameters`. */
class Program {
  /** @param {any} layout what Python wrote beside the module @param {WebAssembly.Exports} exports @param {Record<string, number>} sizes */
  constructor(layout, exports, sizes) {
    this.layout = layout;
    this.sizes = sizes;
    this.memory = /** @type {WebAssembly.Memory} */ (exports.memory).buffer;
    this.program = /** @type {() => number} */ (exports.run);
    const { stores, table } = layout, entries = 2 * stores.length + layout.sizes.length;
    let before = aligned(table + 8 * entries), behind = aligned(layout.scratch + layout.scratch_bytes);
    /** @type {Store[]} */
    this.stores = stores.map(([kind, bytes, polynomial]) => {
      const count = numberOf(polynomial, sizes), room = aligned(count * bytes);
      const first = kind === "input" || kind === "constant" || kind === "output";
      const address = first ? before : behind;
      if (first) before += room;
      else behind += room;
      return { kind, bytes, address, count };
    });
    if (before > layout.scratch || behind > layout.bytes) throw new RangeError("sizes beyond those the module was made for");
    const held = new BigInt64Array(this.memory, table, entries);
    this.stores.forEach((s, k) => held.set([BigInt(s.address), BigInt(s.count)], 2 * k));
    layout.sizes.forEach((polynomial, k) => (held[2 * stores.length + k] = BigInt(numberOf(polynomial, sizes))));
    const views = (facts) => Object.fromEntries(Object.entries(facts).map(([name, fact]) => [name, this.view(fact)]));
    this.arguments = Object.fromEntries(layout.arguments.map((fact) => [fact.name, this.view(fact).fill(0)]));
    this.parameters = views(layout.parameters);
    this.gradients = views(layout.gradients);
    /** @type {any[]} */
    this.results = layout.results.map((fact) => this.view(fact));
    for (const [k, [dtype, number]] of Object.entries(layout.constants)) this.view({ store: Number(k), dtype, shape: [] })[0] = number;
  }

  /** @param {Fact} fact @returns {any} a typed array on the module's memory */
  view({ store, dtype, shape }) {
    const count = shape.reduce((product, axis) => product * numberOf(axis, this.sizes), 1);
    if (store === null) return new Float32Array(count); // nothing reads it
    const kinds = { float32: Float32Array, bool: Uint8Array };
    return new kinds[dtype](this.memory, this.stores[store].address, count);
  }

  run() {
    if (this.program()) throw new RangeError("the program refused its arguments");
  }
}

/** Modules, each made once: instances are laid out anew for other sizes. */
class Programs {
  /** @param {Record<string, {module: string, layout: any}>} made */
  constructor(made) {
    this.made = made;
    this.instances = {};
  }

  /** own: what tells apart several programs of one module, each with a memory of its own.
   * @param {string} name @param {Record<string, number>} sizes @param {string} own @returns {Promise<Program>} */
  async get(name, sizes, own = name) {
    const { module, layout } = this.made[name];
    this.instances[own] ??= WebAssembly.instantiate(/** @type {any} */ (await unpack(module))).then((made) => made.instance.exports);
    return new Program(layout, await this.instances[own], sizes);
  }
}
