// Another sample rate for sound that comes in pieces: a windowed sinc whose weights repeat after a few outputs.

const ZEROS = 16; // of the sinc at each side
const ROLL_OFF = 0.92; // of the lower of the two Nyquist frequencies

const divisor = (a, b) => (b ? divisor(b, a % b) : a);

export class Resampler {
  constructor(from, to) {
    const common = divisor(from, to);
    this.step = from / common;
    this.phases = to / common;
    this.cutoff = Math.min(1, to / from) * ROLL_OFF;
    this.reach = Math.ceil(ZEROS / this.cutoff);
    this.kernels = new Array(this.phases);
    this.waiting = new Float32Array(this.reach); // silence before the first sample
    this.at = this.reach * this.phases; // of the next output in `waiting`, in parts of a sample
  }

  /** Weights for an output that lies `phase / phases` after an input sample. */
  kernel(phase) {
    this.kernels[phase] ??= Float32Array.from({ length: 2 * this.reach }, (_, i) => {
      const distance = i - this.reach + 1 - phase / this.phases;
      const angle = Math.PI * distance * this.cutoff;
      const window = Math.cos((Math.PI * distance) / (2 * this.reach + 1)) ** 2;
      return this.cutoff * window * (angle ? Math.sin(angle) / angle : 1);
    });
    return this.kernels[phase];
  }

  /** The samples at the new rate that are certain with this piece. */
  push(piece) {
    const input = new Float32Array(this.waiting.length + piece.length);
    input.set(this.waiting);
    input.set(piece, this.waiting.length);
    const output = [];
    for (; Math.floor(this.at / this.phases) + this.reach < input.length; this.at += this.step) {
      const first = Math.floor(this.at / this.phases) - this.reach + 1;
      const weights = this.kernel(this.at % this.phases);
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += weights[i] * input[first + i];
      output.push(sum);
    }
    const done = Math.max(0, Math.min(input.length, Math.floor(this.at / this.phases) - this.reach));
    this.waiting = input.slice(done);
    this.at -= done * this.phases;
    return Float32Array.from(output);
  }
}
