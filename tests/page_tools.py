"""What tests of the server's page share: a server process, a microphone's recording, and a tap at the speaker."""

import base64
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from playwright.sync_api import Page, Route

from muomni.data.voices import Hibari

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


@contextmanager
def serving(checkpoint: Path, folder: Path, *options: str) -> Iterator[str]:
    """`muomni serve` as a process of its own; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "serve.log"
    command = [sys.executable, "-m", "muomni.cli", "serve", "--checkpoint", str(checkpoint), "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(
            [*command, *options], stdout=out, stderr=out, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(address, process, log)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def wait_until_ready(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until the server answers at ``/readyz``."""
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise AssertionError(f"the server did not start: {log.read_text()}")


def microphone_file(path: Path) -> Path:
    """A question between silences for the browser's fake microphone, which plays it over and over."""
    voice = Hibari()
    said = voice.say("What is in the picture?", 1.0, 0)
    wave = np.pad(said, (int(0.8 * voice.rate), int(1.2 * voice.rate)))
    soundfile.write(path, wave, voice.rate, subtype="PCM_16")
    return path


def speaker_samples(page: Page) -> tuple[int, np.ndarray]:
    """All that was heard: the first sample's number by the speaker's clock, and float32 ``[n]``."""
    start, text = page.evaluate("heard.samples()")
    return start, np.frombuffer(base64.b64decode(text), np.float32)
