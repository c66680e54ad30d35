// A page that is read from a folder may start no worker: the search's then runs in a frame of its own.
// The theme would have every page fetch a script for this from another host; see mkdocs.yml.
"use strict";

if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #frame = document.createElement("iframe");
    #inside;
    #loaded;

    constructor(url) {
      super();
      this.#frame.hidden = true;
      document.body.append(this.#frame);
      this.#inside = this.#frame.contentWindow;
      this.#inside.document.open();
      this.#inside.document.write("<!doctype html><body></body>");
      this.#inside.document.close();
      this.#inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = this.#inside.document.createElement("script");
      this.#loaded = new Promise((resolve) => { script.onload = resolve; });
      script.src = url;
      this.#inside.document.body.append(script);
    }

    async postMessage(data) {
      await this.#loaded;
      this.#inside.dispatchEvent(new MessageEvent("message", { data }));
    }

    terminate() {
      this.#frame.remove();
    }
  };
}
