// Goes from edge to edge: keys, buttons, a slider, a touch; the address ends in the edge, #edge-12, so that it can be sent.
"use strict";
(() => {
  const at = id => document.getElementById(id), slides = [...at("slides").children], parts = [...document.querySelectorAll("#sheet [data-slides]")];
  const of = new Map(parts.map(p => [p, p.dataset.slides.split(" ").map(Number)]));
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let now = 0, timer = 0, begun = false;

  function show(k) {
    now = Math.min(Math.max(k, 0), slides.length - 1);
    slides.forEach((s, j) => s.classList.toggle("now", j === now));
    for (const part of parts) {
      part.classList.toggle("now", of.get(part).includes(now));
      part.classList.toggle("done", of.get(part).some(j => j < now));
    }
    at("where").value = now + 1;
    at("first").disabled = at("before").disabled = now === 0;
    at("last").disabled = at("next").disabled = now === slides.length - 1;
    if (now === slides.length - 1) stop();
    history.replaceState(null, "", `#${slides[now].id}`);
    const line = parts.find(p => p.classList.contains("edge") && p.classList.contains("now"));
    if (line) inSight(line.getBoundingClientRect(), at("sheet"));
  }

  function inSight(box, sheet) {
    const frame = sheet.getBoundingClientRect();
    sheet.scrollTo({
      left: sheet.scrollLeft + box.x + box.width / 2 - frame.x - frame.width / 2,
      top: sheet.scrollTop + box.y + box.height / 2 - frame.y - frame.height / 2,
      behavior: still.matches || !begun ? "auto" : "smooth",  // the first edge is there at once
    });
    begun = true;
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    at("play").setAttribute("aria-pressed", "false");
    at("play").textContent = at("play").dataset.play;
  }

  function play() {
    if (timer) return stop();
    if (now === slides.length - 1) show(0);
    timer = setInterval(() => show(now + 1), 1800);
    at("play").setAttribute("aria-pressed", "true");
    at("play").textContent = at("play").dataset.stop;
  }

  const go = k => { stop(); show(k); };
  const keys = {
    ArrowRight: () => go(now + 1), ArrowDown: () => go(now + 1), PageDown: () => go(now + 1),
    ArrowLeft: () => go(now - 1), ArrowUp: () => go(now - 1), PageUp: () => go(now - 1),
    Home: () => go(0), End: () => go(slides.length - 1), " ": play,
  };
  addEventListener("keydown", event => {
    const used = event.target.tagName === "BUTTON" && event.key === " ";
    if (used || event.target.tagName === "INPUT" || event.altKey || event.ctrlKey || event.metaKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  at("first").onclick = () => go(0);
  at("before").onclick = () => go(now - 1);
  at("next").onclick = () => go(now + 1);
  at("last").onclick = () => go(slides.length - 1);
  at("play").onclick = play;
  at("where").oninput = () => go(at("where").value - 1);
  for (const part of parts) part.onclick = () => go(of.get(part)[0]);
  addEventListener("hashchange", () => show(slides.findIndex(s => `#${s.id}` === location.hash)));

  document.body.classList.add("live");
  at("tools").hidden = false;
  show(Math.max(slides.findIndex(s => `#${s.id}` === location.hash), 0));
})();
