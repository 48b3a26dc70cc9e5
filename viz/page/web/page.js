"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const sheet = $("sheet");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const FIELDS = ["", "", "shape", "‖value‖", "‖gradient‖", "state of the gradient", "smallest", "largest", "saturated"];
  const LEVELS = ["steps", "gates", "operations"];
  const cache = new Map();
  const now = {
    recording: data.recordings.length - 1,
    view: LEVELS.find((v) => has(v)),
    t: data.steps.length ? data.steps[data.steps.length - 1] : null,
    svg: sheet.querySelector("svg"),
    beat: 0, // 0: the whole backward pass is shown
    timer: 0,
    asked: 0,
  };

  // Pictures.

  function has(view, t = null, k = data.recordings.length - 1) {
    const own = data.recordings[k].views[view];
    return Boolean(own && (t === null || own[""] !== undefined || own[t] !== undefined));
  }

  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const text = await new Response(stream).text();
    return document.importNode(new DOMParser().parseFromString(text, "image/svg+xml").documentElement, true);
  }

  async function picture(k, view, t) {
    const own = data.recordings[k].views[view];
    const at = own[""] !== undefined ? "" : String(t);
    const key = `${k} ${view} ${at}`;
    if (!cache.has(key)) {
      if (cache.size > 12) cache.delete(cache.keys().next().value);
      cache.set(key, await unpack(own[at]));
    }
    return cache.get(key);
  }

  async function show(view, t = now.t, { keep = false, focus = null } = {}) {
    const asked = ++now.asked;
    let svg;
    try {
      svg = await picture(now.recording, view, t);
    } catch {
      $("status").textContent = "This browser cannot unpack the picture; a newer one can.";
      return;
    }
    if (asked !== now.asked) return; // something else was asked for meanwhile
    const box = keep && now.view === view ? now.svg.getAttribute("viewBox") : null;
    const beat = keep && now.view === view && !now.timer ? now.beat : 0;
    stop();
    const held = sheet.contains(document.activeElement);
    const old = document.activeElement && document.activeElement.dataset ? document.activeElement.dataset.key : null;
    Object.assign(now, { view, t, svg });
    sheet.querySelector("svg").replaceWith(svg);
    ready(svg);
    if (box) svg.setAttribute("viewBox", box);
    else home();
    light(beat);
    tools();
    const target = focus || (held ? old : null);
    if (target || held) land((target && byKey(target)) || ofStep(now.t) || stops()[0]);
    else inspect(now.pointed);
    if (!keep) tell();
  }

  function byKey(key) {
    return stops().find((e) => e.dataset.key === key);
  }

  function ofStep(t) {
    return stops().find((e) => e.classList.contains("step") && e.dataset.t === String(t))
      || stops().find((e) => e.dataset.t === String(t));
  }

  function ready(svg) {
    if (svg.dataset.whole) return;
    svg.dataset.whole = svg.getAttribute("viewBox");
    svg.removeAttribute("width");
    svg.removeAttribute("height");
    for (const edge of svg.querySelectorAll(".edge")) {
      const path = edge.querySelector("path");
      if (!path) continue;
      const hit = document.createElementNS("http://www.w3.org/2000/svg", "path");
      hit.setAttribute("d", path.getAttribute("d"));
      hit.setAttribute("class", "hit");
      edge.append(hit);
    }
  }

  // Where one looks.

  const boxOf = (svg) => svg.getAttribute("viewBox").split(/[ ,]+/).map(Number);
  const setBox = (box) => now.svg.setAttribute("viewBox", box.map((v) => v.toFixed(2)).join(" "));

  function home() {
    const [, , w, h] = all();
    const whole = now.view === "gates" ? h : sheet.clientWidth * (h / w);
    const tall = Math.min(whole, 1.4 * h, 0.66 * innerHeight);
    sheet.style.height = `${Math.round(Math.max(tall, 230))}px`;
    fit();
    if (now.view === "gates" && now.t !== null) near(now.t);
  }

  const all = () => now.svg.dataset.whole.split(/[ ,]+/).map(Number);
  const fit = () => now.svg.setAttribute("viewBox", now.svg.dataset.whole);

  /** A step at the full height of the picture, with as much beside it as there is room for. */
  function near(t) {
    const frames = [...now.svg.querySelectorAll(`.step[data-t="${Number(t)}"]`)];
    if (!frames.length) return;
    const boxes = frames.map(placed);
    const left = Math.min(...boxes.map((b) => b.x));
    const right = Math.max(...boxes.map((b) => b.x + b.width));
    const [x, y, whole, height] = all();
    const wide = Math.min(whole, Math.max(right - left + 120, (height * sheet.clientWidth) / sheet.clientHeight));
    setBox([Math.min(Math.max((left + right - wide) / 2, x), x + whole - wide), y, wide, height]);
  }

  /** The place of a part in the coordinates of the viewBox. */
  function placed(part) {
    const box = part.getBBox();
    const m = now.svg.getScreenCTM().inverse().multiply(part.getScreenCTM());
    const a = new DOMPoint(box.x, box.y).matrixTransform(m);
    const b = new DOMPoint(box.x + box.width, box.y + box.height).matrixTransform(m);
    return { x: Math.min(a.x, b.x), y: Math.min(a.y, b.y), width: Math.abs(b.x - a.x), height: Math.abs(b.y - a.y) };
  }

  function zoom(factor, at = null) {
    const [x, y, w, h] = boxOf(now.svg);
    const wide = Math.min(Math.max(w / factor, 40), all()[2] * 1.5);
    const f = w / wide;
    const c = at || { x: x + w / 2, y: y + h / 2 };
    setBox([c.x - (c.x - x) / f, c.y - (c.y - y) / f, wide, h / f]);
  }

  function pan(dx, dy) {
    const [x, y, w, h] = boxOf(now.svg);
    setBox([x - dx, y - dy, w, h]);
  }

  const point = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(now.svg.getScreenCTM().inverse());
  const perPixel = () => 1 / now.svg.getScreenCTM().a;

  /** Bring a part into sight when it is not. */
  function reveal(part) {
    const b = placed(part);
    const [x, y, w, h] = boxOf(now.svg);
    const dx = b.x < x ? x - b.x + 12 : b.x + b.width > x + w ? x + w - b.x - b.width - 12 : 0;
    const dy = b.y < y ? y - b.y + 12 : b.y + b.height > y + h ? y + h - b.y - b.height - 12 : 0;
    if (dx || dy) pan(dx, dy);
  }

  // What is pointed at.

  const part = (target) => target instanceof Element && target.closest(".edge, [tabindex]");

  function inspect(pointed) {
    for (const e of now.svg.querySelectorAll(".pointed")) e.classList.remove("pointed");
    now.pointed = pointed && now.svg.contains(pointed) ? pointed : null;
    const list = $("numbers");
    list.replaceChildren();
    if (!now.pointed) {
      $("name").textContent = "Point at a box or a line";
      return;
    }
    if (pointed.classList.contains("edge")) pointed.classList.add("pointed");
    const numbers = data.recordings[now.recording].nodes[pointed.dataset.key];
    const title = pointed.querySelector("title");
    if (!numbers) {
      $("name").textContent = title ? title.textContent : "";
      return;
    }
    $("name").textContent = numbers[1] === null ? numbers[0] : `${numbers[0]}, t = ${numbers[1]}`;
    FIELDS.forEach((field, k) => {
      if (!field || !numbers[k]) return;
      const row = document.createElement("div");
      const dt = document.createElement("dt");
      const dd = document.createElement("dd");
      dt.textContent = field;
      dd.textContent = numbers[k];
      row.append(dt, dd);
      list.append(row);
    });
  }

  // The backward pass.

  const edges = () => [...now.svg.querySelectorAll(".edge[data-beat]")];
  const beats = () => Math.max(0, ...edges().map((e) => Number(e.dataset.beat)));

  function light(n) {
    now.beat = n;
    now.svg.classList.toggle("passing", n > 0);
    const said = [];
    for (const e of now.svg.querySelectorAll(".edge")) {
      const own = Number(e.dataset.beat || 0);
      e.classList.toggle("lit", own > 0 && own <= n);
      e.classList.toggle("now", own > 0 && own === n);
      if (own === n && n) said.push(e.querySelector("title").textContent);
    }
    if (n) {
      const shown = said.slice(0, 3).join(" · ") + (said.length > 3 ? ` · and ${said.length - 3} more` : "");
      $("status").textContent = `Backward pass, ${n} of ${beats()}: ${shown}`;
    }
  }

  function stop() {
    clearTimeout(now.timer);
    now.timer = 0;
    $("play").textContent = calm.matches ? "One step back in time" : "▶ Play the backward pass";
  }

  function next() {
    const last = beats();
    if (!last) return false;
    light(now.beat >= last ? 1 : now.beat + 1);
    return now.beat < last;
  }

  /** Without motion: on to the last piece of the next step back in time. */
  function leap() {
    const last = beats();
    const when = (n) => Math.min(...edges().filter((e) => Number(e.dataset.beat) === n).map((e) => Number(e.dataset.t)));
    if (!next()) return;
    const t = when(now.beat);
    while (now.beat < last && when(now.beat + 1) === t) next();
  }

  function play() {
    if (now.timer) return stop();
    if (calm.matches) return leap();
    const pause = Math.min(420, Math.max(40, 6000 / Math.max(1, beats())));
    const tick = () => {
      now.timer = next() ? setTimeout(tick, pause) : 0;
      if (!now.timer) stop();
    };
    light(0);
    now.svg.classList.add("passing");
    tick();
    if (now.timer) $("play").textContent = "■ Stop";
  }

  // Keys: one stop for Tab, arrows within the picture.

  const stops = () => [...now.svg.querySelectorAll("[tabindex]")];

  function land(target) {
    if (!target) return;
    for (const e of stops()) e.setAttribute("tabindex", e === target ? "0" : "-1");
    reveal(target);
    target.focus({ preventScroll: true });
    inspect(target);
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

  function open(t, key) {
    if (t === undefined || t === null) return;
    const view = LEVELS[LEVELS.indexOf(now.view) + 1];
    if (view && data.steps.includes(Number(t)) && has(view, t, now.recording)) show(view, Number(t), { focus: key || " " });
    else if (view === "operations") $("status").textContent = "Operations are drawn for the last recording only.";
  }

  function back() {
    const view = LEVELS[LEVELS.indexOf(now.view) - 1];
    if (view && has(view)) show(view, now.t, { focus: " " });
  }

  const shifts = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const from = part(event.target);
    const box = boxOf(now.svg);
    const step = shifts[event.key];
    if (step && event.shiftKey) pan(step[0] * box[2] * 0.1, step[1] * box[2] * 0.1);
    else if (step && from) land(move(from, -step[0], -step[1]));
    else if ((event.key === "Home" || event.key === "End") && data.steps.length) {
      land(ofStep(data.steps.at(event.key === "Home" ? 0 : -1)));
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
    const where = now.t === null || now.view === "steps" ? "" : ` of step t = ${now.t}`;
    const more = now.view === "steps" ? "A click or Enter opens a step." : "Esc goes back.";
    $("status").textContent = data.steps.length ? `${now.view}${where}. ${more}`.replace(/^./, (c) => c.toUpperCase()) : "";
  }

  function tools() {
    for (const b of $("levels").children) {
      b.setAttribute("aria-pressed", String(b.dataset.view === now.view));
      b.disabled = !has(b.dataset.view, now.t, now.recording);
    }
    const none = !beats();
    for (const id of ["play", "beat", "reset"]) $(id).disabled = none;
    const r = data.recordings[now.recording];
    const text = [r.label, r.loss].filter(Boolean).join(" · ");
    $("label").textContent = text;
    $("recording").setAttribute("aria-valuetext", text);
    const first = stops().find((e) => e.getAttribute("tabindex") === "0") || ofStep(now.t) || stops()[0];
    if (first) first.setAttribute("tabindex", "0");
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
    zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0015)), point(e));
  }, { passive: false });
  sheet.addEventListener("pointerover", (e) => inspect(part(e.target) || now.pointed));
  sheet.addEventListener("focusin", (e) => inspect(part(e.target)));
  sheet.addEventListener("keydown", key);

  for (const b of $("levels").children) b.addEventListener("click", () => show(b.dataset.view));
  $("in").addEventListener("click", () => zoom(1.4));
  $("out").addEventListener("click", () => zoom(1 / 1.4));
  $("fit").addEventListener("click", fit);
  $("play").addEventListener("click", play);
  $("beat").addEventListener("click", () => { stop(); next(); });
  $("reset").addEventListener("click", () => { stop(); light(0); tell(); });
  $("recording").addEventListener("input", (e) => {
    now.recording = Number(e.target.value);
    const view = has(now.view, now.t, now.recording) ? now.view : "gates";
    show(view, now.t, { keep: true });
  });
  calm.addEventListener("change", stop);

  cache.set(`${now.recording} ${now.view} ${data.recordings[now.recording].views[now.view][""] !== undefined ? "" : now.t}`, now.svg);
  sheet.classList.add("live");
  for (const id of ["tools", "inspector", "help"]) $(id).hidden = false;
  $("levels").hidden = !data.steps.length;
  $("training").hidden = data.recordings.length < 2;
  ready(now.svg);
  home();
  stop();
  tools();
  inspect(null);
  tell();
})();
