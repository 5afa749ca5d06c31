// Plays sound that comes in pieces, without gaps, and falls silent at once.
//
// Each piece is a source of its own, scheduled where the last one ends. Sources can be taken back one by one, and they
// work on pages without https too, where browsers have no AudioWorklet.

export const RATE = 24000; // Hz, of the API's pcm16
const LEAD = 0.04; // s before the first piece, and after a piece that came too late
const FADE = 0.005; // s, so that falling silent is no click

class Track {
  constructor(context, onChange) {
    this.context = context;
    this.onChange = onChange;
    this.gain = context.createGain();
    this.gain.connect(context.destination);
    this.sources = [];
    this.next = 0; // where the next piece begins, in samples of the context's clock
    this.complete = false;
    this.over = false;
  }

  /** Queue samples at `RATE`. Returns the seconds until they are heard. */
  push(samples) {
    if (this.over || !samples.length) return 0;
    const now = this.context.currentTime;
    if (this.next < now * RATE) this.next = Math.ceil((now + LEAD) * RATE);
    const buffer = this.context.createBuffer(1, samples.length, RATE);
    buffer.copyToChannel(samples, 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.gain);
    source.start(this.next / RATE);
    source.onended = () => this.ended(source);
    this.sources.push({ source, start: this.next / RATE, length: samples.length / RATE });
    const start = this.next / RATE;
    this.next += samples.length;
    this.onChange(true);
    return start - now + (this.context.outputLatency || 0);
  }

  ended(source) {
    if (this.complete && this.sources.at(-1)?.source === source) this.end();
  }

  /** No more pieces come. */
  finish() {
    this.complete = true;
    if (this.next <= this.context.currentTime * RATE) this.end();
  }

  /** Seconds that were heard so far. */
  get played() {
    const now = this.context.currentTime - (this.context.outputLatency || 0);
    return this.sources.reduce((sum, { start, length }) => sum + Math.max(0, Math.min(length, now - start)), 0);
  }

  /** Silence, now. Returns the seconds that were heard. */
  drop() {
    const played = this.played;
    if (this.over) return played;
    const now = this.context.currentTime;
    this.gain.gain.setValueAtTime(1, now);
    this.gain.gain.linearRampToValueAtTime(0, now + FADE);
    for (const { source } of this.sources) source.stop(now + FADE);
    this.end();
    return played;
  }

  end() {
    if (this.over) return;
    this.over = true;
    this.onChange(false);
  }
}

export class Player {
  constructor() {
    this.context = null;
    this.track = null;
  }

  /** Browsers let a page sound only after a key or a click: call it from there. */
  wake() {
    this.context ??= new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    if (this.context.state !== "running") this.context.resume();
  }

  /** Begin a new sound; what plays is dropped. `onChange(playing)` hears of its beginning and end. */
  begin(onChange = () => {}) {
    this.wake();
    this.drop();
    this.track = new Track(this.context, onChange);
    return this.track;
  }

  get playing() {
    return Boolean(this.track && !this.track.over && this.track.sources.length);
  }

  /** Silence, now. */
  drop() {
    this.track?.drop();
  }
}
