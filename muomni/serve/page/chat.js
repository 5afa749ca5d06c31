// The conversation: asks the server, shows and plays what comes, stops it.

import { Answer } from "./answer.js";
import { chat } from "./api.js";
import { announce, byId } from "./dom.js";
import { messages } from "./history.js";
import { Turn } from "./turn.js";

const CUT = "cut off at the limit of tokens";

export class Chat {
  /**
   * @param player plays the speech.
   * @param settings fields of the requests.
   * @param edit puts a question's text and attachments back where they are typed.
   * @param onChange hears when it begins or ends to be busy.
   */
  constructor(player, settings, edit, onChange) {
    Object.assign(this, { player, settings, edit, onChange });
    this.model = "muomni";
    this.turns = [];
    this.abort = null; // of the request that is under way
  }

  /** Whether there is something to stop. */
  get busy() {
    return Boolean(this.abort) || this.player.playing;
  }

  ask(text, attachments) {
    const turn = new Turn(text, attachments);
    this.turns.push(turn);
    byId("turns").append(turn.element);
    turn.element.scrollIntoView({ block: "end" });
    return this.run(turn);
  }

  async run(turn) {
    this.stop();
    const abort = new AbortController();
    const answer = new Answer();
    const fields = this.settings.request();
    this.abort = abort;
    turn.begin(answer);
    this.onChange();
    const track = fields.audio ? this.player.begin((playing) => this.playing(turn, playing)) : null;
    const request = { model: this.model, messages: messages(this.turns, turn), ...fields };
    Object.assign(request, { stream: true, stream_options: { include_usage: true }, details: true });
    let failed = null;
    try {
      for await (const chunk of chat(request, abort.signal)) this.take(turn, answer, track, chunk);
      track?.finish();
    } catch (error) {
      if (error.name !== "AbortError") failed = error;
      track?.drop();
    }
    if (this.abort === abort) this.abort = null;
    if (abort.signal.aborted) turn.show("stopped");
    else if (track?.sources.length && !track.over) turn.show("speaking");
    else turn.show(answer.finish === "length" ? CUT : "");
    turn.end(() => this.replay(turn), fields.seed);
    if (failed) turn.fail(failed.message, () => this.run(turn), () => this.takeBack(turn));
    this.onChange();
  }

  take(turn, answer, track, chunk) {
    if (turn.answer !== answer) return; // asked again meanwhile
    const { text, samples } = answer.take(chunk);
    if (text) {
      if (!track?.sources.length) turn.show("writing");
      turn.write(text);
    }
    if (samples && track) answer.heardIn(track.push(samples));
  }

  playing(turn, playing) {
    if (playing) turn.show("speaking");
    else if (turn.answered.dataset.state === "speaking") turn.show(turn.answer.finish === "length" ? CUT : "");
    turn.showPlaying(playing);
    this.onChange();
  }

  /** Play an answer again; stops it if it plays. */
  replay(turn) {
    const own = this.player.track?.turn === turn && this.player.playing;
    this.player.drop();
    if (own) return;
    const track = this.player.begin((playing) => this.playing(turn, playing));
    track.turn = turn;
    track.push(turn.answer.speech);
    track.finish();
  }

  /** Silence and no more words, now. Returns whether there was something to stop. */
  stop() {
    const busy = this.busy;
    this.player.drop();
    this.abort?.abort();
    this.abort = null;
    if (busy) announce("Stopped.");
    return busy;
  }

  /** Remove a question and put it back where it was typed. */
  takeBack(turn) {
    this.turns.splice(this.turns.indexOf(turn), 1);
    turn.element.remove();
    this.edit(turn.text, turn.attachments);
    this.onChange();
  }

  clear() {
    this.stop();
    this.turns = [];
    byId("turns").replaceChildren();
    this.onChange();
  }
}
