// Browsers start no workers from pages that are opened from the disk. There the search runs in a hidden frame instead,
// with what it uses of a worker. mkdocs-material would take such a script from the network.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inner = frame.contentWindow
      this.inner.document.open()
      this.inner.document.write("<!doctype html><title>search</title>")
      this.inner.document.close()
      this.inner.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      this.inner.importScripts = (...urls) => urls.reduce((before, each) => before.then(() => this.load(each)), Promise.resolve())
      this.loaded = this.load(url)
    }

    load(url) {
      return new Promise((resolve, reject) => {
        const script = this.inner.document.createElement("script")
        Object.assign(script, { src: url, onload: resolve, onerror: reject })
        this.inner.document.head.append(script)
      })
    }

    postMessage(data) {
      this.loaded.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
