// Search also where the site is read from files: browsers refuse a worker there, but not a frame that does its work.
if (location.protocol === "file:") window.Worker = class extends EventTarget {
  constructor(script) {
    super();
    const frame = document.createElement("iframe"), waiting = [], from = new URL(script, document.baseURI).href;
    frame.hidden = true;
    document.documentElement.append(frame);
    const inner = frame.contentWindow;
    const load = src => new Promise(done => {
      const element = inner.document.createElement("script");
      element.onload = done;
      element.src = new URL(src, from).href;
      inner.document.head.append(element);
    });
    inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", {data}));
    inner.importScripts = (...scripts) => scripts.reduce((before, src) => before.then(() => load(src)), Promise.resolve());
    this.postMessage = data => waiting.push(data);
    load(from).then(() => {
      this.postMessage = data => inner.dispatchEvent(new MessageEvent("message", {data}));
      waiting.forEach(this.postMessage);
    });
  }
};
