// Search when the site is read from its folder: browsers start no worker from file://, so that a hidden frame stands for
// one. The theme asks whether `IFrameWorker` is there.
class IFrameWorker extends EventTarget {
  constructor(url) {
    super()
    this.frame = document.createElement("iframe")
    this.frame.hidden = true
    document.body.appendChild(this.frame)
    const inside = this.frame.contentWindow
    this.ready = new Promise((resolve) => this.frame.addEventListener("load", resolve, { once: true }))
    inside.document.open()
    inside.document.write(
      `<html><body><script>
        postMessage = (data) => parent.postMessage(data, "*")
        importScripts = (...urls) => urls.reduce((before, url) => before.then(() => new Promise((resolve, reject) => {
          const script = document.createElement("script")
          script.src = url
          script.onload = resolve
          script.onerror = reject
          document.body.appendChild(script)
        })), Promise.resolve())
      </scr` + `ipt><script src="${url}"></scr` + `ipt></body></html>`
    )
    inside.document.close()
    window.addEventListener("message", (event) => {
      if (event.source !== inside) return
      const told = new MessageEvent("message", { data: event.data })
      if (this.onmessage) this.onmessage(told)
      this.dispatchEvent(told)
    })
  }
  postMessage(data) {
    this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
  }
  terminate() {
    this.frame.remove()
  }
}
if (location.protocol === "file:") {
  window.IFrameWorker = IFrameWorker
  window.Worker = IFrameWorker
}
