// Samples: 16-bit little-endian PCM, base64 and WAV. Samples are Float32Array in [-1, 1].

/** Base64 of 16-bit PCM to samples. */
export function fromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const samples = new Float32Array(bytes.length >> 1);
  for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(2 * i, true) / 32768;
  return samples;
}

/** Samples to 16-bit PCM. */
export function toPcm16(samples) {
  const view = new DataView(new ArrayBuffer(2 * samples.length));
  samples.forEach((sample, i) => {
    view.setInt16(2 * i, Math.max(-32768, Math.min(32767, Math.round(sample * 32768))), true);
  });
  return new Uint8Array(view.buffer);
}

/** Bytes to base64. */
export function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

/** Many pieces of samples as one. */
export function joined(pieces) {
  const whole = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

const MARGIN = 0.06; // seconds that stay around what is said, as in the recordings that the model learnt from

/** A recording without the silence at its ends, which the model has hardly learnt to hear past. */
export function trimmed(samples, rate) {
  const size = Math.round(rate / 100);
  const levels = Array.from({ length: Math.floor(samples.length / size) }, (_, i) => {
    const block = samples.subarray(i * size, (i + 1) * size);
    return Math.sqrt(block.reduce((sum, sample) => sum + sample * sample, 0) / size);
  });
  const sorted = [...levels].sort((a, b) => a - b);
  const noise = sorted[Math.floor(sorted.length / 10)];
  const threshold = Math.max(0.02 * sorted.at(-1), 2.5 * noise);
  const first = levels.findIndex((value) => value > threshold);
  if (first < 0) return samples; // all of it is equally loud
  const last = levels.findLastIndex((value) => value > threshold);
  const margin = Math.round(MARGIN * rate);
  return samples.slice(Math.max(0, first * size - margin), (last + 1) * size + margin);
}

/** A mono WAV file of 16 bits. */
export function wav(samples, rate) {
  const header = new DataView(new ArrayBuffer(44));
  const word = (at, text) => [...text].forEach((c, i) => header.setUint8(at + i, c.charCodeAt(0)));
  const size = 2 * samples.length;
  word(0, "RIFF");
  header.setUint32(4, 36 + size, true);
  word(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, 1, true); // channels
  header.setUint32(24, rate, true);
  header.setUint32(28, 2 * rate, true);
  header.setUint16(32, 2, true); // bytes of a frame
  header.setUint16(34, 16, true); // bits of a sample
  word(36, "data");
  header.setUint32(40, size, true);
  return new Blob([header, toPcm16(samples)], { type: "audio/wav" });
}

/** The bytes of a file as base64. */
export async function fileBase64(blob) {
  return toBase64(new Uint8Array(await blob.arrayBuffer()));
}
