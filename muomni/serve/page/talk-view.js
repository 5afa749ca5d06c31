// What a person sees of a talk: its state, the microphone's level, who said what.

import { preview } from "./attachments.js";
import { announce, byId, element, followEnd, notice } from "./dom.js";

const HINTS = {
  connecting: "",
  listening: "Ask aloud. A picture can be dropped or pasted.",
  "hearing you": "",
  thinking: "",
  speaking: "Speak, or press Escape, to interrupt.",
};

class Exchange {
  constructor() {
    this.asked = element("p", { className: "pending" }, "…");
    this.said = element("p", { className: "said" });
    this.state = element("p", { className: "state", hidden: true });
    this.element = element(
      "li",
      { className: "turn" },
      element("article", { className: "asked", "aria-label": "You said" }, this.asked),
      element("article", { className: "answered", "aria-label": "muOmni answered" }, this.said, this.state),
    );
  }

  note(text) {
    this.state.textContent = [this.state.textContent, text].filter(Boolean).join(", ");
    this.state.hidden = false;
  }
}

export class TalkView {
  /** `onChange(talking)` hears when it begins and ends. */
  constructor(onChange) {
    this.onChange = onChange;
    this.state = "";
    this.exchanges = new Map(); // by the name of what the user said
    this.last = null;
  }

  begin() {
    notice("");
    this.exchanges.clear();
    this.last = null;
    this.onChange(true);
    const words = "Talk: a conversation of its own, without what was written above.";
    followEnd(() => byId("turns").append(element("li", { className: "divider" }, words)));
    this.show("connecting");
    byId("talk-end").focus();
  }

  show(state) {
    this.state = state;
    byId("talk-state").textContent = state;
    byId("talk-hint").textContent = HINTS[state] ?? "";
    byId("talk").dataset.state = state;
  }

  /** Of the microphone, 0 to 1. */
  level(value) {
    byId("level").firstElementChild.style.transform = `scaleX(${value.toFixed(2)})`;
    byId("level").setAttribute("aria-valuenow", String(Math.round(100 * value)));
  }

  userSpeaks(item) {
    if (this.exchanges.has(item)) return;
    notice("");
    this.last = new Exchange();
    this.exchanges.set(item, this.last);
    followEnd(() => byId("turns").append(this.last.element));
  }

  /** The user showed a picture. */
  gave(picture) {
    const asked = element("article", { className: "asked", "aria-label": "You showed" }, preview(picture));
    followEnd(() => byId("turns").append(element("li", { className: "turn" }, asked)));
  }

  userSaid(item, text) {
    const exchange = this.exchanges.get(item);
    if (!exchange) return;
    exchange.asked.textContent = text?.trim() || "(no words were understood)";
    exchange.asked.className = text?.trim() ? "" : "pending";
  }

  /** `last` may be newer than what is answered; what comes belongs to the exchange that was last then. */
  answerBegins() {
    this.answering = this.last;
  }

  write(text) {
    if (this.answering) followEnd(() => this.answering.said.append(text));
  }

  answered(delay) {
    this.answering?.note(`answered after ${delay.toFixed(2)} s`);
  }

  interrupted() {
    this.answering?.note("interrupted");
  }

  fail(message) {
    notice(message);
  }

  end(why = "") {
    this.level(0);
    for (const { asked } of this.exchanges.values()) if (asked.textContent === "…") asked.textContent = "(not answered)";
    this.show("");
    this.onChange(false);
    announce("The talk has ended.");
    if (why) notice(why);
  }
}
