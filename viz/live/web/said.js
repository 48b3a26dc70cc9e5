// One sentence about the training and one about the gradient, by the bounds that viz.report has too.

/** How much of a gate's units is at an end of its range. @param {Network} network @param {string} name @param {(v: number) => boolean} at */
function shareOf(network, name, at) {
  const values = network.program.results[2 + network.cell.quantities.indexOf(name)];
  return values.filter(at).length / values.length;
}

/** Gates that are stuck. @param {Network} network @param {any} bounds @returns {string} */
function stuck(network, bounds) {
  const percent = (/** @type {number} */ v) => Math.round(100 * v);
  for (const g of network.cell.gates) {
    const shut = shareOf(network, g, (v) => v < 0.05), open = shareOf(network, g, (v) => v > 0.95);
    if (shut + open > bounds.saturated) {
      const keeper = g === network.cell.keeper, forgets = keeper && shut > bounds.saturated, keeps = keeper && open > bounds.saturated;
      const said = tr("{gate}: {share} % of its units are saturated ({shut} % shut, {open} % open).", { gate: shown(g), share: percent(shut + open), shut: percent(shut), open: percent(open) });
      return `${said} ${forgets ? tr("The memory is forgotten in every step.") : keeps ? tr("The memory is kept in every step.") : tr("Hardly any gradient passes through the gate itself.")}`;
    }
  }
  const h = network.cell.state[0];
  const share = network.cell.gates.length ? 0 : shareOf(network, h, (v) => Math.abs(v) > 0.95);
  return share > bounds.saturated ? tr("{share} % of the units of {name} are saturated: their tanh is flat there, so hardly any gradient passes.", { share: percent(share), name: h }) : "";
}

/** In how many steps half of a gradient is gone. @param {number} each what is left of it after one step */
function halving(each) {
  const half = each < 1 ? Math.log(0.5) / Math.log(each) : Infinity, n = short(half);
  if (half >= 100) return "";
  return n === "1" ? tr(", halved at each step") : half < 1 ? tr(", more than halved at each step") : tr(", halved every {n} steps", { n });
}

/** What the last step's loss sends back. @param {Network} network @param {any} bounds @param {string[]} letters */
function reach(network, bounds, letters) {
  const { T } = network.sizes, { distance, settings } = network;
  if (T < 2) return "";
  const letter = visible(letters[T]), start = distance[T - 1];
  if (![...distance].every(Number.isFinite)) return tr("The gradient is not a number any more.");
  if (start === 0) return tr("The loss of the last letter ({letter}) is 0: nothing is left to learn from it.", { letter });
  const left = distance[0] / start, each = left ** (1 / (T - 1));
  if (settings.truncate && settings.truncate < T) {
    if (settings.truncate === 1) return tr("✂ Cut at every step: the loss of the last letter ({letter}) reaches no step before its own.", { letter });
    const first = Math.floor((T - 1) / settings.truncate) * settings.truncate + 1;
    return tr("✂ Cut every {n} steps: the loss of the last letter ({letter}) reaches back to t = {t} and no further.", { n: settings.truncate, letter, t: first });
  }
  const arrives = tr("Of the loss of the last letter ({letter}), × {left} of the gradient arrives at the first (× {each} per step)", { letter, left: short(left), each: short(each) });
  if (each > bounds.exploding && left > bounds.growth) {
    return settings.clip ? tr("{arrives}: it explodes. All of the gradient is clipped to a norm of at most {bound}.", { arrives, bound: short(settings.clip) })
      : tr("{arrives}: it explodes. Clip it, or make the recurrent weights smaller.", { arrives });
  }
  if (left < bounds.left) {
    const halved = halving(each);
    if (network.right() === T) return tr("{arrives}: it vanishes{halved}. The last letter can hardly learn from the first, and need not: the letters just before are enough.", { arrives, halved });
    return tr("{arrives}: it vanishes{halved}. The last letter can hardly learn from the first.", { arrives, halved });
  }
  return tr("{arrives}: it lives.", { arrives });
}

/** How the loss goes. @param {number[]} losses */
function way(losses) {
  const was = losses[Math.max(0, losses.length - 101)], now = losses[losses.length - 1], values = { before: short(was), loss: short(now) };
  if (losses.length < 2) return tr("the loss is {loss}", values);
  return now < 0.97 * was ? tr("the loss falls, {before} → {loss}", values) : now > 1.03 * was ? tr("the loss rises, {before} → {loss}", values) : tr("the loss stays at {loss}", values);
}

/** What the training has done. @param {Network} network @param {boolean} training */
function progress(network, training) {
  const { T } = network.sizes, { count, losses, settings, norm } = network;
  if (network.broken) {
    const values = { n: count + 1, lr: short(settings.lr) };
    if (settings.clip) return tr("Step {n}: loss or gradient is not a number, so nothing was moved and the training has stopped. The way back: a learning rate below {lr}, then “Start anew”.", values);
    return tr("Step {n}: loss or gradient is not a number, so nothing was moved and the training has stopped. The way back: a learning rate below {lr}, or clipping, then “Start anew”.", values);
  }
  const right = network.right();
  if (!count) return tr("Not trained yet: it guesses {n} of {total} letters right. Press “Train”.", { n: right, total: T });
  const said = !settings.last ? tr("{n} of {total} letters are right", { n: right, total: T })
    : network.best(T - 1)[0] === network.codes[T] ? tr("the last letter, the only one with a loss, is right")
    : tr("the last letter, the only one with a loss, is wrong");
  const clipped = settings.clip && norm > settings.clip ? tr("The gradient’s norm {size} was clipped to {bound}.", { size: short(norm), bound: short(settings.clip) })
    : tr("The gradient’s norm was {size}.", { size: short(norm) });
  return [tr("Step {n}: {said}; {way}.", { n: count, said, way: way(losses) }), ...(training ? [] : [tr("Paused.")]), clipped].join(" ");
}
