// Runs on the browser's audio thread: brings the microphone to the wanted rate and hands it over in equal pieces.

import { Resampler } from "./resample.js";

class Microphone extends AudioWorkletProcessor {
  constructor({ processorOptions: { rate, length } }) {
    super();
    this.resampler = sampleRate === rate ? null : new Resampler(sampleRate, rate);
    this.piece = new Float32Array(length);
    this.filled = 0;
  }

  process([[channel]]) {
    if (!channel) return true; // nothing is connected at this moment
    for (const sample of this.resampler ? this.resampler.push(channel) : channel) {
      this.piece[this.filled++] = sample;
      if (this.filled === this.piece.length) {
        this.port.postMessage(this.piece.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
