// One sentence about the training and one about the gradient, by the bounds that viz.report has too.

/** How much of a gate's units is at an end of its range. @param {Network} network @param {string} name @param {(v: number) => boolean} at */
function shareOf(network, name, at) {
  const values = network.program.results[2 + network.cell.quantities.indexOf(name)];
  return values.filter(at).length / values.length;
}

/** Gates that are stuck. @param {Network} network @param {any} bounds @returns {string} */
function stuck(network, bounds) {
  for (const g of network.cell.gates) {
    const shut = shareOf(network, g, (v) => v < 0.05), open = shareOf(network, g, (v) => v > 0.95);
    if (shut + open > bounds.saturated) {
      const keeper = g === network.cell.keeper, forgets = keeper && shut > bounds.saturated, keeps = keeper && open > bounds.saturated;
      return `${shown(g)}: ${Math.round(100 * (shut + open))} % of its units are saturated (${Math.round(100 * shut)} % shut, ${Math.round(100 * open)} % open). ` +
        (forgets ? "The memory is forgotten in every step." : keeps ? "The memory is kept in every step." : "Hardly any gradient passes through the gate itself.");
    }
  }
  const h = network.cell.state[0];
  const share = network.cell.gates.length ? 0 : shareOf(network, h, (v) => Math.abs(v) > 0.95);
  return share > bounds.saturated ? `${Math.round(100 * share)} % of the units of ${h} are saturated: their tanh is flat there, so hardly any gradient passes.` : "";
}

/** What the last step's loss sends back. @param {Network} network @param {any} bounds @param {string[]} letters */
function reach(network, bounds, letters) {
  const { T } = network.sizes, { distance, settings } = network;
  if (T < 2) return "";
  const from = `the loss of the last letter (${visible(letters[T])})`, start = distance[T - 1];
  if (![...distance].every(Number.isFinite)) return "The gradient is not a number any more.";
  if (start === 0) return `${from[0].toUpperCase()}${from.slice(1)} is 0: nothing is left to learn from it.`;
  const left = distance[0] / start, each = left ** (1 / (T - 1));
  if (settings.truncate && settings.truncate < T) {
    const first = Math.floor((T - 1) / settings.truncate) * settings.truncate + 1;
    return `✂ Cut every ${settings.truncate} steps: ${from} reaches back to t = ${first} and no further.`;
  }
  const half = each < 1 ? Math.log(0.5) / Math.log(each) : Infinity;
  const arrives = `Of ${from}, × ${short(left)} of the gradient arrives at the first (× ${short(each)} per step)`;
  if (each > bounds.exploding && left > bounds.growth) return `${arrives}: it explodes. Clip it, or make the recurrent weights smaller.`;
  if (left < bounds.left) return `${arrives}: it vanishes${half < 100 ? `, halved every ${short(half)} steps` : ""}. The last letter can hardly learn from the first.`;
  return `${arrives}: it lives.`;
}

/** What the training has done. @param {Network} network @param {boolean} training */
function progress(network, training) {
  const { T } = network.sizes, { count, losses, settings, norm } = network;
  if (network.broken)
    return `Step ${count + 1}: loss or gradient is not a number, so nothing was moved and the training has stopped. The way back: a learning rate below ${short(settings.lr)}, or clipping, then “Start anew”.`;
  const right = network.right();
  if (!count) return `Not trained yet: it guesses ${right} of ${T} letters right. Press “Train”.`;
  const said = settings.last
    ? `the last letter, the only one with a loss, is ${network.best(T - 1)[0] === network.codes[T] ? "right" : "wrong"}`
    : `${right} of ${T} letters are right`;
  const clipped = settings.clip && norm > settings.clip ? ` The gradient’s norm ${short(norm)} was clipped to ${short(settings.clip)}.` : ` The gradient’s norm was ${short(norm)}.`;
  const was = losses[Math.max(0, losses.length - 101)], now = losses[losses.length - 1];
  const way = losses.length < 2 ? "is" : now < 0.97 * was ? `falls, ${short(was)} →` : now > 1.03 * was ? `rises, ${short(was)} →` : "stays at";
  return `Step ${count}: ${said}; the loss ${way} ${short(now)}.${training ? "" : " Paused."}${clipped}`;
}
