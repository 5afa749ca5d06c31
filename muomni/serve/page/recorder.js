// The button that records a question.

import { RECORDING_RATE, recording } from "./attachments.js";
import { announce, byId, notice } from "./dom.js";
import { level, openMicrophone, whyNoMicrophone } from "./microphone.js";

const MAX_SECONDS = 60;

export class Recorder {
  /** `onRecorded` gets an attachment. */
  constructor(onRecorded) {
    this.onRecorded = onRecorded;
    this.button = byId("record");
    this.pieces = null; // while recording
    this.opening = false;
    const why = whyNoMicrophone();
    if (why) this.button.title = `Recording: ${why}`;
    this.button.setAttribute("aria-disabled", String(Boolean(why)));
    this.button.addEventListener("click", () => (this.pieces ? this.stop() : this.start()));
  }

  async start() {
    if (this.opening) return;
    this.opening = true;
    notice("");
    const pieces = [];
    try {
      this.close = await openMicrophone(RECORDING_RATE, (piece) => this.take(piece));
      this.pieces = pieces;
      this.show(0);
      announce("Recording.");
    } catch (error) {
      notice(error.message);
    } finally {
      this.opening = false;
    }
  }

  take(piece) {
    if (!this.pieces) return;
    this.pieces.push(piece);
    this.button.style.setProperty("--level", level(piece).toFixed(2));
    const length = (this.pieces.length * piece.length) / RECORDING_RATE;
    this.show(length);
    if (length >= MAX_SECONDS) this.stop();
  }

  async stop() {
    const pieces = this.pieces;
    this.pieces = null;
    this.close();
    this.show(0);
    if (!pieces.length) {
      notice("Nothing was recorded; the microphone gave no sound.");
      return;
    }
    this.onRecorded(await recording(pieces));
    announce("Recorded and attached.");
  }

  show(length) {
    const label = this.pieces ? "Stop recording" : "Record a question";
    this.button.setAttribute("aria-pressed", String(Boolean(this.pieces)));
    if (this.button.getAttribute("aria-label") !== label) {
      this.button.setAttribute("aria-label", label);
      this.button.title = label;
    }
    byId("record-time").textContent = this.pieces ? `${length.toFixed(1)} s` : "";
  }
}
