"""A tap at the speaker of a page in a browser: what was really heard, and when, by the speaker's own clock."""

import base64

import numpy as np
from playwright.sync_api import Page, Route

RATE = 24000  # of the page's sound

# Notes what was heard, and by the clock of the speaker (in samples) keys and what went over the WebSocket; keeps what
# was asked and answered.
TAP = """
(() => {
  const worklet = `registerProcessor("tap", class extends AudioWorkletProcessor {
    process([[channel]]) {
      if (channel) this.port.postMessage([currentFrame, channel.slice()]);
      return true;
    }
  });`;
  const heard = (window.heard = { blocks: [], notes: [], context: null });
  let ready, sounding;
  heard.ready = new Promise((resolve) => (ready = resolve));
  heard.sounding = new Promise((resolve) => (sounding = resolve)); // since a tenth of a second
  heard.asked = []; // bodies of requests, and promises of what the server answered
  heard.answers = [];
  let loud = 0;
  const hear = (event) => {
    heard.blocks.push(event.data);
    if (event.data[1].some((sample) => sample) && ++loud * 128 > 2400) sounding();
  };
  const fetched = window.fetch;
  window.fetch = async (path, options) => {
    const response = await fetched(path, options);
    if (!options.body) return response;
    heard.asked.push(JSON.parse(options.body));
    heard.answers.push(response.clone().text().catch(() => "")); // given up
    return response;
  };
  const now = () => (heard.context ? heard.context.currentTime * 24000 : 0);
  heard.samples = () => {
    const start = Math.min(...heard.blocks.map(([at]) => at));
    const whole = new Float32Array(Math.max(...heard.blocks.map(([at]) => at)) + 128 - start);
    for (const [at, block] of heard.blocks) whole.set(block, at - start);
    const bytes = new Uint8Array(whole.buffer);
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return [start, btoa(text)];
  };
  heard.note = (kind, more = null) => heard.notes.push([kind, now(), performance.now(), more]);
  const sources = [];
  let tap = null;
  const connect = AudioNode.prototype.connect;
  AudioNode.prototype.connect = function (target, ...rest) {
    if (target instanceof AudioDestinationNode) tap ? connect.call(this, tap) : sources.push(this);
    return connect.call(this, target, ...rest);
  };
  window.AudioContext = class extends AudioContext {
    constructor(options) {
      super(options);
      if (options.sampleRate !== 24000) return; // a microphone's
      heard.context = this;
      const module = URL.createObjectURL(new Blob([worklet], { type: "text/javascript" }));
      this.audioWorklet.addModule(module).then(() => {
        tap = new AudioWorkletNode(this, "tap", { numberOfOutputs: 0 });
        tap.port.onmessage = hear;
        sources.forEach((source) => connect.call(source, tap));
        ready();
      });
    }
  };
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (text) {
    const { type, audio, ...more } = JSON.parse(text);
    if (audio) {
      const bytes = Uint8Array.from(atob(audio), (c) => c.charCodeAt(0));
      const samples = new Int16Array(bytes.buffer);
      heard.note("sent", Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length));
    } else heard.note(type, more);
    return send.call(this, text);
  };
  const Socket = window.WebSocket;
  window.WebSocket = class extends Socket {
    constructor(...args) {
      super(...args);
      this.addEventListener("message", (event) => {
        const { type, delta, ...more } = JSON.parse(event.data);
        heard.note("got " + type, more);
      });
    }
  };
  document.addEventListener("keydown", (event) => heard.note("key " + event.key), true);
})();
"""


def let_tap_in(route: Route) -> None:
    """The page itself, its policy allowing the tap's worklet, which is no file of the server."""
    answer = route.fetch()
    policy = answer.headers["content-security-policy"].replace("script-src 'self'", "script-src 'self' blob:")
    route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": policy})


def speaker_samples(page: Page) -> tuple[int, np.ndarray]:
    """All that was heard: the first sample's number by the speaker's clock, and float32 ``[n]``."""
    start, text = page.evaluate("heard.samples()")
    return start, np.frombuffer(base64.b64decode(text), np.float32)


def silence_after(page: Page, note: str) -> tuple[float, float]:
    """Seconds by the speaker's clock from something noted until nothing was heard any more; and its time."""
    at = next(time for kind, time, *_ in page.evaluate("heard.notes") if kind == note)
    start, heard = speaker_samples(page)
    return (start + int(np.flatnonzero(heard)[-1]) + 1 - at) / RATE, at
