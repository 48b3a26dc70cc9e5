// What the reader moves, and the loop that trains and draws.

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const data = JSON.parse($("data").textContent);
const { style, largest, bounds } = data;
const programs = new Programs(data.programs);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const CONTROLS = ["text", "cell", "hidden", "lr", "bias", "scale", "where", "truncate", "clip", "seed", "speed"];
const MOVED = ["lr", "where", "truncate", "clip", "speed"]; // these change while it learns; the others start anew
const SPEEDS = [[tr("1 step a second"), 1], [tr("5 steps a second"), 5], [tr("1 step a picture"), 0], [tr("4 steps a picture"), 4], [tr("as fast as it can"), -1]];

/** @type {{network: Network|null, picture: Picture|null, charts: any, training: boolean, chosen: number, next: number, made: number, said: number, rule: any, letters: string[], alphabet: string[], stats: any}} */
const now = { network: null, picture: null, charts: null, training: false, chosen: 0, next: 0, made: 0, said: 0, rule: null, letters: [], alphabet: [], stats: { pictures: 0, steps: 0 } };

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

/** @returns {Settings} */
function settings() {
  return { lr: rate(), bias: range("bias"), scale: range("scale"), last: $("where").value === "last", truncate: range("truncate"), clip: range("clip"), seed: range("seed") };
}

/** Numbers beside the controls, and what a cell has not. */
function label() {
  const cell = data.cells[chosen().cell], speed = SPEEDS[range("speed")][0];
  say($("lr_said"), short(rate()));
  say($("bias_said"), cell.forget ? short(range("bias")) : tr("{cell} has none", { cell: cell.name }));
  $("bias").disabled = !cell.forget;
  say($("scale_said"), `× ${short(range("scale"))}`);
  say($("truncate_said"), range("truncate") ? tr("every {n} steps", { n: range("truncate") }) : tr("never"));
  say($("clip_said"), range("clip") ? tr("to {size}", { size: short(range("clip")) }) : tr("no"));
  say($("speed_said"), String(speed));
  for (const id of ["lr", "bias", "scale", "truncate", "clip", "speed"]) $(id).setAttribute("aria-valuetext", $(`${id}_said`).textContent);
  for (const e of /** @type {any} */ (document.querySelectorAll(".equations > div"))) e.hidden = e.dataset.cell !== chosen().cell;
  $("equations_of").textContent = tr("Equations of {cell}", { cell: cell.name });
}

function address() {
  try {
    history.replaceState(null, "", `#${new URLSearchParams(chosen())}`);
  } catch { /* within a frame there is no address of its own */ }
}

// The network.

/** A new network; the old one stays in the picture until it is there. */
async function anew() {
  const made = ++now.made, { cell: name, text } = chosen(), cell = data.cells[name];
  label();
  address();
  const coded = encoded(text, largest);
  say($("text_said"), coded.said);
  $("text").setAttribute("aria-invalid", String(!coded.codes.length));
  if (!coded.codes.length) return train(false);
  const sizes = { T: coded.codes.length - 1, H: range("hidden"), K: coded.alphabet.length };
  const program = await programs.get(name, sizes);
  const n = Object.values(program.parameters).reduce((sum, view) => sum + view.length, 0);
  const mover = await programs.get("rule", { n });
  now.rule ??= { scaled: data.rule.scaled, table: new Float32Array((await unpack(data.rule.table)).buffer) };
  if (made !== now.made) return; // meanwhile something else was chosen
  now.network = new Network(cell, program, now.rule, mover, coded.codes, settings());
  now.letters = coded.letters;
  now.alphabet = coded.alphabet;
  now.chosen = sizes.T - 1;
  now.picture = new Picture($("sheet"), now.network, coded.letters, coded.alphabet, style, pick);
  $("sheet").scrollLeft = $("sheet").scrollWidth; // the gradient starts at the last letter
  say($("size"), tr("{n} weights: {cell}, {units} hidden units, {letters} letters, {steps} steps", { n: n.toLocaleString("en"), cell: cell.name, units: sizes.H, letters: sizes.K, steps: sizes.T }));
  show(true);
}

/** A step is looked at. @param {number} t */
function pick(t) {
  now.chosen = t;
  if (!now.picture) return;
  now.picture.mark(t);
  say($("inspector"), now.picture.spoken(t));
}

/** Draw what is; aloud: also into the sentence at once. @param {boolean} aloud */
function show(aloud) {
  const { network, picture, charts } = now;
  if (!network || !picture) return;
  const time = performance.now(), due = aloud || time - now.said > 250;
  if (due) {
    network.look();
    const written = network.writes().map((code) => now.alphabet[code]);
    say($("writes"), written.map(visible).join(""));
    say($("right"), tr("{n} of {total}", { n: written.slice(1).filter((l, t) => l === now.letters[t + 1]).length, total: network.sizes.T }));
  }
  network.look();
  picture.update();
  drawLoss(charts.loss, network);
  drawDistance(charts.distance, network, style, bounds);
  drawGates(charts.gates, network);
  say($("inspector"), picture.spoken(now.chosen));
  now.stats.pictures += 1;
  if (!due) return;
  picture.mark(now.chosen);
  now.said = time;
  const said = `${progress(network, now.training)} `, found = reach(network, bounds, now.letters), more = stuck(network, bounds);
  say($("progress"), said);
  say($("reach"), found);
  say($("stuck"), more);
  if (aloud || network.broken) say($("aloud"), `${said} ${found} ${more}`);
}

/** @param {number} time */
function frame(time) {
  const { network } = now;
  if (!now.training || !network) return;
  network.settings = { ...settings(), bias: network.settings.bias, scale: network.settings.scale, seed: network.settings.seed };
  const speed = /** @type {number} */ (SPEEDS[range("speed")][1]), slow = range("speed") < 2;
  const before = network.count;
  if (slow) {
    if (time >= now.next) {
      network.step();
      now.next = time + 1000 / speed;
    }
  } else if (speed < 0) {
    const end = performance.now() + 12;
    do for (let k = 0; k < 8; k++) network.step();
    while (performance.now() < end && !network.broken);
  } else for (let k = 0; k < Math.max(speed, 1); k++) network.step();
  now.stats.steps += network.count - before;
  // Who wants less motion sees four pictures a second.
  if (network.count !== before && (!calm.matches || time - now.said > 250)) show(false);
  if (network.broken) return train(false);
  requestAnimationFrame(frame);
}

/** @param {boolean} on */
function train(on) {
  if (on && (!now.network || now.network.broken)) return;
  const was = now.training;
  now.training = on;
  say($("train"), on ? tr("❚❚ Pause") : tr("▶ Train"));
  $("train").setAttribute("aria-pressed", String(on));
  if (on && !was) requestAnimationFrame(frame);
  show(true);
}

function once() {
  train(false);
  if (!now.network) return;
  now.network.settings = { ...settings(), bias: now.network.settings.bias, scale: now.network.settings.scale, seed: now.network.settings.seed };
  now.network.step();
  show(true);
}

// What happens.

function start() {
  now.charts = { loss: new Chart($("loss"), tr("Loss"), tr("training steps")), distance: new Chart($("distance"), tr("Gradient by distance"), tr("steps back from the last letter")), gates: new Chart($("gates"), tr("Gates over time"), tr("step t")) };
  choose(data.chosen);
  choose(Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
  for (const id of CONTROLS) {
    $(id).addEventListener("input", () => {
      if (!MOVED.includes(id)) return anew();
      label();
      address();
      if (now.network && !now.training) {
        Object.assign(now.network.settings, settings(), { bias: now.network.settings.bias, scale: now.network.settings.scale });
        show(true);
      }
    });
  }
  $("train").addEventListener("click", () => train(!now.training));
  $("once").addEventListener("click", once);
  $("anew").addEventListener("click", anew);
  data.presets.forEach(({ chosen: given, story }, k) => {
    $(`preset_${k}`).addEventListener("click", async () => {
      train(false);
      choose({ ...data.chosen, ...given });
      say($("story"), story);
      await anew();
    });
  });
  document.addEventListener("keydown", keys);
  $("app").hidden = false;
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
