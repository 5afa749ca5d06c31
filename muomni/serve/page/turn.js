// One question and its answer on the page.

import { preview } from "./attachments.js";
import { announce, button, element, followEnd, icon } from "./dom.js";
import { gotPanel, timeRows } from "./got.js";
import { RATE } from "./player.js";
import { wav } from "./sound.js";

export class Turn {
  constructor(text, attachments) {
    this.text = text;
    this.attachments = attachments;
    this.answer = null;
    this.said = element("p", { className: "said" });
    this.state = element("p", { className: "state" });
    this.error = element("p", { className: "error", hidden: true, role: "alert" });
    this.actions = element("div", { className: "actions" });
    this.panel = element("div");
    const asked = element(
      "article",
      { className: "asked", "aria-label": "You asked" },
      ...attachments.map(preview),
      text ? element("p", {}, text) : null,
    );
    this.answered = element(
      "article",
      { className: "answered", "aria-label": "muOmni answered" },
      this.said,
      this.state,
      this.error,
      this.actions,
      this.panel,
    );
    this.element = element("li", { className: "turn" }, asked, this.answered);
  }

  /** The answer begins, perhaps again. */
  begin(answer) {
    this.answer = answer;
    this.said.textContent = "";
    this.error.hidden = true;
    this.actions.replaceChildren();
    this.panel.replaceChildren();
    this.answered.setAttribute("aria-busy", "true");
    this.show("waiting");
  }

  /** A word about what happens: "waiting", "writing", "speaking", "stopped"; empty if nothing does. */
  show(state) {
    this.state.textContent = state;
    this.state.hidden = !state;
    this.answered.dataset.state = state;
  }

  write(text) {
    followEnd(() => this.said.append(text));
  }

  /** The answer has ended, in whatever way; `play` replays it. */
  end(play, seed) {
    this.answered.removeAttribute("aria-busy");
    followEnd(() => {
      if (this.answer.pieces.length) this.actions.append(this.playButton(play), this.saveLink());
      this.showPlaying(this.answered.dataset.state === "speaking");
      if (this.answer.details) {
        const times = timeRows(this.answer.server, this.answer.times);
        this.panel.replaceChildren(gotPanel(this.answer.details, this.answer.tokens, times, seed));
      }
    });
    if (this.answer.text) announce(this.answer.text);
  }

  /** What went wrong, in words, with the ways on. */
  fail(message, again, edit) {
    followEnd(() => {
      this.error.textContent = message;
      this.error.hidden = false;
      this.actions.prepend(button("play", "Try again", again), button("new", "Change the question", edit));
    });
  }

  playButton(play) {
    this.player = button("play", "Play", play);
    return this.player;
  }

  /** While it plays, the button stops it. */
  showPlaying(playing) {
    if (!this.player) return;
    this.player.replaceChildren(icon(playing ? "stop" : "play"), element("span", {}, playing ? "Stop" : "Play"));
  }

  saveLink() {
    const href = URL.createObjectURL(wav(this.answer.speech, RATE));
    return element("a", { href, download: "answer.wav" }, icon("save"), element("span", {}, "Save as WAV"));
  }
}
