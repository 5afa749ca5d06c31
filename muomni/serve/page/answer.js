// An answer while it comes: its text, its speech, and when they came.

import { fromBase64, joined } from "./sound.js";

export class Answer {
  constructor() {
    this.began = performance.now();
    this.text = "";
    this.pieces = []; // of the speech, at the API's 24,000 Hz
    this.details = null;
    this.server = {}; // its times
    this.tokens = null;
    this.finish = null; // why it ended
    this.times = { firstToken: null, firstSound: null };
  }

  seconds() {
    return (performance.now() - this.began) / 1000;
  }

  /** Take a chunk of the API. Returns what is new: text and samples. */
  take(chunk) {
    const choice = chunk.choices?.[0];
    const delta = choice?.delta ?? {};
    const text = (delta.content ?? "") + (delta.audio?.transcript ?? "");
    const samples = delta.audio?.data ? fromBase64(delta.audio.data) : null;
    if (chunk.muomni?.positions) this.details = chunk.muomni;
    else if (chunk.muomni) this.server = chunk.muomni;
    if (chunk.usage) this.tokens = chunk.usage.completion_tokens_details?.text_tokens ?? chunk.usage.completion_tokens;
    this.finish = choice?.finish_reason ?? this.finish;
    if (text) {
      this.times.firstToken ??= this.seconds();
      this.text += text;
    }
    if (samples) this.pieces.push(samples);
    return { text, samples };
  }

  /** The first samples are heard in so many seconds. */
  heardIn(delay) {
    this.times.firstSound ??= this.seconds() + delay;
  }

  get speech() {
    return joined(this.pieces);
  }
}
