// What the reader moves, and the loop that trains and draws.

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const data = JSON.parse($("data").textContent);
const { style, largest, bounds } = data;
const programs = new Programs(data.programs);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const CONTROLS = ["text", "cell", "hidden", "lr", "bias", "scale", "where", "truncate", "clip", "seed", "speed"];
const MOVED = ["lr", "where", "truncate", "clip", "speed"]; // these change while it learns; the others start anew
const ALL = "*"; // the choice of all cells, side by side
const SPEEDS = [[tr("1 step a second"), 1], [tr("5 steps a second"), 5], [tr("1 step a picture"), 0], [tr("4 steps a picture"), 4], [tr("as fast as it can"), -1]];

/** What is drawn, `all` of it, and of that the `network` and `picture` that charts and sentences speak of.
 * @typedef {{network: Network, picture: Picture, head: Element|null}} Shown
 * @type {{all: Shown[], network: Network|null, picture: Picture|null, charts: any, training: boolean, chosen: number, next: number, made: number, said: number, rule: any, letters: string[], alphabet: string[], stats: any}} */
const now = { all: [], network: null, picture: null, charts: null, training: false, chosen: 0, next: 0, made: 0, said: 0, rule: null, letters: [], alphabet: [], stats: { pictures: 0, steps: 0 } };

// Controls.

const range = (/** @type {string} */ id) => Number($(id).value);
const rate = () => 10 ** range("lr");

/** What was chosen; text and numbers as the URL has them. @returns {Record<string, string>} */
function chosen() {
  const found = Object.fromEntries(CONTROLS.map((id) => [id, $(id).value]));
  found.cell = /** @type {any} */ (document.querySelector("#cell input:checked")).value;
  return found;
}

/** @param {Record<string, string>} given */
function choose(given) {
  for (const [id, v] of Object.entries(given)) {
    if (id === "cell") {
      for (const input of /** @type {any} */ (document.querySelectorAll("#cell input"))) if (input.value === v) input.checked = true;
    } else if (CONTROLS.includes(id)) $(id).value = v;
  }
}

/** A value of a link as its control can have it, else null. @param {string} id @param {string} v @returns {string|null} */
function fitting(id, v) {
  const control = $(id), number = Number(v), { min, max } = control;
  const known = id === "cell" ? [.../** @type {any} */ (document.querySelectorAll("#cell input"))] : control.tagName === "SELECT" ? [...control.options] : null;
  if (known) return known.some((one) => one.value === v) ? v : null;
  if (control.type === "text") return v.length <= control.maxLength ? v : null;
  const whole = Number.isInteger(Number(control.step)), inside = v.trim() !== "" && number >= Number(min) && number <= Number(max);
  return inside && (!whole || Number.isInteger(number)) ? String(number) : null;
}

/** Choose what a link asks for, and name what no control can have. @param {string} fragment */
function follow(fragment) {
  const bad = [], minus = (/** @type {string} */ v) => v.replace("-", "−");
  for (const [id, v] of new URLSearchParams(fragment)) {
    if (!CONTROLS.includes(id)) continue;
    const fit = fitting(id, v), { min, max } = $(id);
    if (fit !== null) choose({ [id]: fit });
    else bad.push(`${id} = ${v.length > 40 ? `${v.slice(0, 40)}…` : v}${min ? ` (${minus(min)} … ${minus(max)})` : ""}`);
  }
  say($("link_said"), bad.length ? tr("The link asks for what this page does not have, so these stay as they were: {values}.", { values: bad.join(", ") }) : "");
}

/** @returns {Settings} */
function settings() {
  return { lr: rate(), bias: range("bias"), scale: range("scale"), last: $("where").value === "last", truncate: range("truncate"), clip: range("clip"), seed: range("seed") };
}

/** Numbers beside the controls, and what a cell has not. */
function label() {
  const { cell: wanted } = chosen(), all = Object.values(data.cells), speed = SPEEDS[range("speed")][0];
  const cell = data.cells[wanted] || { name: all.map((c) => c.name).join(", "), forget: all.map((c) => c.forget).find(Boolean) };
  say($("lr_said"), short(rate()));
  say($("bias_said"), cell.forget ? short(range("bias")) : tr("{cell} has none", { cell: cell.name }));
  $("bias").disabled = !cell.forget;
  say($("scale_said"), `× ${short(range("scale"))}`);
  say($("truncate_said"), range("truncate") > 1 ? tr("every {n} steps", { n: range("truncate") }) : range("truncate") ? tr("at every step") : tr("never"));
  say($("clip_said"), range("clip") ? tr("to {size}", { size: short(range("clip")) }) : tr("no"));
  say($("speed_said"), String(speed));
  for (const id of ["lr", "bias", "scale", "truncate", "clip", "speed"]) $(id).setAttribute("aria-valuetext", $(`${id}_said`).textContent);
  for (const e of /** @type {any} */ (document.querySelectorAll(".equations > div"))) e.hidden = wanted !== ALL && e.dataset.cell !== wanted;
  $("equations_of").textContent = tr("Equations of {cell}", { cell: cell.name });
}

function address() {
  const fragment = `#${new URLSearchParams(chosen())}`;
  put($("link"), { href: fragment });
  try {
    history.replaceState(null, "", fragment);
  } catch { /* within a frame there is no address of its own */ }
}

// The network.

/** A network of a kind, at these sizes. @param {string} name @param {any} coded @param {Record<string, number>} sizes @returns {Promise<Network>} */
async function built(name, coded, sizes) {
  const program = await programs.get(name, sizes);
  const n = Object.values(program.parameters).reduce((sum, view) => sum + view.length, 0);
  const mover = await programs.get("rule", { n }, `rule of ${name}`);
  now.rule ??= { scaled: data.rule.scaled, table: new Float32Array((await unpack(data.rule.table)).buffer) };
  return new Network(data.cells[name], program, now.rule, mover, coded.codes, settings());
}

/** New networks; the old ones stay in the picture until they are there. */
async function anew() {
  const made = ++now.made, { cell: wanted, text } = chosen();
  label();
  address();
  const coded = encoded(text, largest);
  say($("text_said"), coded.said);
  $("text").setAttribute("aria-invalid", String(!coded.codes.length));
  for (const id of ["train", "once"]) $(id).disabled = !coded.codes.length; // else the old text were learned
  if (!coded.codes.length) return train(false);
  const sizes = { T: coded.codes.length - 1, H: range("hidden"), K: coded.alphabet.length };
  const networks = await Promise.all((wanted === ALL ? Object.keys(data.cells) : [wanted]).map((name) => built(name, coded, sizes)));
  if (made !== now.made) return; // meanwhile something else was chosen
  now.letters = coded.letters;
  now.alphabet = coded.alphabet;
  now.chosen = sizes.T - 1;
  const beside = networks.length > 1;
  $("sheet").className = beside ? "beside" : "sheet";
  $("sheet").replaceChildren();
  now.all = networks.map((network, k) => {
    const host = beside ? document.createElement("div") : $("sheet"), head = beside ? document.createElement("h3") : null;
    if (head) {
      const section = document.createElement("section");
      host.className = "sheet";
      section.append(head, host);
      $("sheet").append(section);
    }
    const picture = new Picture(host, network, coded.letters, coded.alphabet, style, (t) => pick(t, k));
    return { network, picture, head };
  });
  bring(1); // the gradient starts at the last letter
  look(0);
  show(true);
}

/** Bring the first (0) or the last (1) letter into view. @param {0|1} end */
function bring(end) {
  for (const host of document.querySelectorAll(".sheet")) host.scrollLeft = end * host.scrollWidth;
}

/** Charts and sentences speak of the k-th network. @param {number} k */
function look(k) {
  const { network, picture } = now.all[k], { H, K, T } = network.sizes;
  Object.assign(now, { network, picture });
  now.all.forEach(({ head }, other) => head?.classList.toggle("chosen", k === other));
  const values = { n: grouped(network.value.length), cell: network.cell.name, units: H, letters: K, steps: T };
  say($("size"), T > 1 ? tr("{n} weights: {cell}, {units} hidden units, {letters} letters, {steps} steps", values) : tr("{n} weights: {cell}, {units} hidden units, {letters} letters, 1 step", values));
}

/** A step is looked at, in the k-th network. @param {number} t @param {number} k */
function pick(t, k = now.all.findIndex(({ picture }) => picture === now.picture)) {
  now.chosen = t;
  if (k < 0) return;
  if (now.all[k].picture !== now.picture) {
    look(k);
    charts();
  }
  for (const { picture } of now.all) picture.mark(t);
  say($("inspector"), spoken());
}

const spoken = () => (now.all.length > 1 && now.network ? `${now.network.cell.name}. ` : "") + (now.picture?.spoken(now.chosen) || "");

function charts() {
  if (!now.network) return;
  drawLoss(now.charts.loss, now.network);
  drawDistance(now.charts.distance, now.network, style, bounds);
  drawGates(now.charts.gates, now.network);
}

/** What a network writes, and how much of it is right. @param {Network} network */
function written(network) {
  const found = network.writes().map((code) => now.alphabet[code]);
  network.look();
  const n = found.slice(1).filter((l, t) => l === now.letters[t + 1]).length;
  return { text: found.map(visible).join(""), right: tr("{n} of {total}", { n, total: network.sizes.T }) };
}

/** Over each picture side by side: what it writes, and what is left of the gradient. @param {Shown} shown */
function headed({ network, head }) {
  if (!head) return;
  const { text, right } = written(network), { distance, sizes } = network, left = distance[0] / distance[sizes.T - 1];
  say(head, tr("{cell} writes {text} ({right}); × {left} of the gradient arrives at the first letter", { cell: network.cell.name, text, right, left: short(left) }));
}

/** Draw what is; aloud: also into the sentence at once. @param {boolean} aloud */
function show(aloud) {
  const { network, picture } = now;
  if (!network || !picture) return;
  const time = performance.now(), due = aloud || time - now.said > 250;
  if (due) {
    const { text, right } = written(network);
    say($("writes"), text);
    say($("right"), right);
    now.all.forEach(headed);
  }
  for (const one of now.all) {
    one.network.look();
    one.picture.update();
  }
  charts();
  say($("inspector"), spoken());
  now.stats.pictures += 1;
  if (!due) return;
  for (const one of now.all) one.picture.mark(now.chosen);
  now.said = time;
  const said = `${progress(network, now.training)} `, found = reach(network, bounds, now.letters), more = stuck(network, bounds);
  say($("progress"), said);
  say($("reach"), found);
  say($("stuck"), more);
  if (aloud || network.broken) say($("aloud"), `${said} ${found} ${more}`);
}

/** What may change while it learns. */
function moved() {
  for (const { network } of now.all) {
    const { bias, scale, seed } = network.settings;
    network.settings = { ...settings(), bias, scale, seed };
  }
}

/** One step of all. */
function learn() {
  for (const { network } of now.all) network.step();
}

const broken = () => now.all.every(({ network }) => network.broken);

/** @param {number} time */
function frame(time) {
  const { network } = now;
  if (!now.training || !network) return;
  moved();
  const speed = /** @type {number} */ (SPEEDS[range("speed")][1]), slow = range("speed") < 2;
  const before = network.count;
  if (slow) {
    if (time >= now.next) {
      learn();
      now.next = time + 1000 / speed;
    }
  } else if (speed < 0) {
    const end = performance.now() + 12;
    do for (let k = 0; k < 8; k++) learn();
    while (performance.now() < end && !broken());
  } else for (let k = 0; k < Math.max(speed, 1); k++) learn();
  now.stats.steps += network.count - before;
  // Who wants less motion sees four pictures a second.
  if (!slow || network.count !== before) if (!calm.matches || time - now.said > 250) show(false);
  if (broken()) return train(false);
  requestAnimationFrame(frame);
}

/** @param {boolean} on */
function train(on) {
  if (on && (!now.network || $("train").disabled || broken())) return;
  const was = now.training;
  now.training = on;
  say($("train"), on ? tr("❚❚ Pause") : tr("▶ Train"));
  $("train").setAttribute("aria-pressed", String(on));
  if (on && !was) requestAnimationFrame(frame);
  show(true);
}

function once() {
  train(false);
  if (!now.network || $("once").disabled) return;
  moved();
  learn();
  show(true);
}

/** The picture as a file, where a reader's browser keeps files. */
function save() {
  if (!now.picture || !now.network) return;
  const link = document.createElement("a"), name = now.network.cell.name.replace(/[^\w-]+/g, "_");
  const address = URL.createObjectURL(new Blob([now.picture.copy()], { type: "image/svg+xml" }));
  put(link, { href: address, download: `${name}_${now.network.count}.svg` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

// What happens.

function start() {
  now.charts = { loss: new Chart($("loss"), tr("Loss"), tr("training steps")), distance: new Chart($("distance"), tr("Gradient by distance"), tr("steps back from the last letter")), gates: new Chart($("gates"), tr("Gates over time"), tr("step t")) };
  choose(data.chosen);
  follow(location.hash.slice(1));
  for (const id of CONTROLS) {
    $(id).addEventListener("input", () => {
      say($("link_said"), "");
      if (!MOVED.includes(id)) return anew();
      label();
      address();
      if (now.network && !now.training) {
        moved();
        show(true);
      }
    });
  }
  $("train").addEventListener("click", () => train(!now.training));
  $("once").addEventListener("click", once);
  $("anew").addEventListener("click", anew);
  $("save").addEventListener("click", save);
  data.presets.forEach(({ chosen: given, story }, k) => {
    $(`preset_${k}`).addEventListener("click", async () => {
      train(false);
      choose({ ...data.chosen, ...given });
      say($("story"), story);
      say($("link_said"), "");
      await anew();
      bring(0); // stories speak of the first letter
    });
  });
  document.addEventListener("keydown", keys);
  $("app").hidden = false;
  $("still").hidden = true;
  label();
  anew().then(() => document.documentElement.classList.add("ready"), failed);
}

/** @param {KeyboardEvent} event */
function keys(event) {
  const at = /** @type {Element} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(at.tagName)) return;
  const T = now.network ? now.network.sizes.T : 0;
  const to = { ArrowLeft: now.chosen - 1, ArrowRight: now.chosen + 1, Home: 0, End: T - 1 }[event.key];
  if (to !== undefined && at.closest("#sheet")) {
    pick(Math.max(0, Math.min(T - 1, to)));
    /** @type {any} */ (now.picture?.steps[now.chosen].g).focus();
  } else if (event.key === "t") train(!now.training);
  else if (event.key === "s") once();
  else if (event.key === "n") anew();
  else return;
  event.preventDefault();
}

/** @param {Error} error */
function failed(error) {
  $("app").hidden = true;
  $("without").hidden = false;
  say($("why"), String(error.message || error));
}

if (typeof WebAssembly === "object" && typeof DecompressionStream === "function") start();
else failed(new Error(tr("it has no WebAssembly, or cannot unpack it")));
