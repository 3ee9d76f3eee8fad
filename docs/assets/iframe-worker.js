// Browsers start no workers for pages opened as files. The search then runs in a hidden frame, through the interface of
// Worker that it uses. The theme's search looks for the name IFrameWorker.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = "<!doctype html>";
      this.ready = new Promise((resolve) => {
        frame.onload = async () => {
          const scope = frame.contentWindow;
          scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          scope.importScripts = async (...urls) => {
            for (const each of urls) await load(scope.document, each);
          };
          await load(scope.document, url);
          resolve(scope);
        };
      });
      document.body.append(frame);
    }

    async postMessage(data) {
      const scope = await this.ready;
      scope.dispatchEvent(new MessageEvent("message", { data }));
    }
  };
  window.Worker = window.IFrameWorker;

  function load(page, url) {
    return new Promise((resolve, reject) => {
      const script = page.createElement("script");
      script.src = url;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`cannot load ${url}`));
      page.head.append(script);
    });
  }
}
