// The microphone as pieces of samples at a chosen rate.

const PIECE_SECONDS = 0.03;

/** Why there can be no microphone, in words; an empty text if there can be one. */
export function whyNoMicrophone() {
  if (!window.isSecureContext) {
    return "Browsers give the microphone only to pages over https or from this machine (localhost).";
  }
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) {
    return "This browser does not let pages use a microphone.";
  }
  return "";
}

const REASONS = {
  NotAllowedError: "The microphone was not allowed; allow it in the browser's settings of this page.",
  NotFoundError: "No microphone was found; connect one and try again.",
  NotReadableError: "The microphone is in use by another program, or does not work.",
};

/**
 * Open the microphone.
 *
 * @param {number} rate of the samples that are wanted, Hz.
 * @param {(piece: Float32Array) => void} onPiece gets 30 ms at a time.
 * @returns what closes it again.
 * @throws an Error that says in words why there is none.
 */
export async function openMicrophone(rate, onPiece) {
  const why = whyNoMicrophone();
  if (why) throw new Error(why);
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
  } catch (error) {
    throw new Error(REASONS[error.name] ?? `The microphone cannot be used (${error.name}).`);
  }
  const context = new AudioContext({ latencyHint: "interactive" });
  const close = () => {
    stream.getTracks().forEach((track) => track.stop());
    context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("microphone-worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "microphone", {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: "explicit",
      processorOptions: { rate, length: Math.round(rate * PIECE_SECONDS) },
    });
    node.port.onmessage = (event) => onPiece(event.data);
    context.createMediaStreamSource(stream).connect(node);
    await context.resume();
  } catch (error) {
    close();
    throw new Error(`The microphone cannot be read (${error.message}).`);
  }
  return close;
}

/** Loudness of a piece, 0 to 1: decibels from -60 to 0. */
export function level(piece) {
  const power = piece.reduce((sum, sample) => sum + sample * sample, 0) / piece.length;
  return Math.max(0, Math.min(1, 1 + Math.log10(power + 1e-12) / 6));
}
