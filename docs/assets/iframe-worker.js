// For pages opened as files. Browsers start no workers for them, so the search runs in a hidden frame, through the part
// of the interface of Worker that the theme uses; its search script looks for the name IFrameWorker.
if (location.protocol === "file:") {
  // From these links the theme would request sitemaps, which browsers refuse.
  for (const link of document.querySelectorAll("link[rel=alternate]")) link.remove();

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
