// Talking: the microphone goes to the server all the time, answers come back as sound, and whoever begins to speak
// interrupts them. Speaks OpenAI's Realtime events.

import { realtime } from "./api.js";
import { level, openMicrophone } from "./microphone.js";
import { RATE } from "./player.js";
import { fromBase64, toBase64, toPcm16 } from "./sound.js";

const REFUSED = "The server takes no talk now: it is not there, busy, or asks for an API key (see the settings).";
const LOST = "The connection to the server was lost. Press Talk to begin again.";

export class Talk {
  /**
   * @param player plays the answers.
   * @param view shows what happens; see `TalkView`.
   * @param onReady is called once the server listens.
   */
  constructor(player, view, onReady) {
    Object.assign(this, { player, view, onReady });
    this.socket = null;
    this.closeMicrophone = null;
    this.track = null; // the sound of the answer that is under way
    this.item = null; // the answer's name at the server
    this.responding = false;
    this.silent = new Set(); // answers that were interrupted; what of them is still on its way is dropped
    this.sent = 0; // seconds of the microphone
    this.stoppedAt = null; // when the user fell silent, by `performance.now`
  }

  /** Begin. Rejects with an Error in words if there is no microphone. */
  async start(model, options) {
    this.player.wake();
    this.view.begin();
    this.sent = 0;
    try {
      this.closeMicrophone = await openMicrophone(RATE, (piece) => this.hear(piece));
    } catch (error) {
      this.view.end();
      throw error;
    }
    this.socket = realtime(model);
    let open = false;
    this.socket.onopen = () => {
      open = true;
      this.send("session.update", { session: session(options) });
    };
    this.socket.onmessage = (message) => this.take(JSON.parse(message.data));
    this.socket.onclose = ({ reason }) => {
      if (reason) this.end(`The server ended the talk: ${reason}.`);
      else this.end(open ? LOST : REFUSED);
    };
  }

  send(type, fields) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  /** Show the model a picture; what is asked next may be about it. */
  give(picture) {
    const content = [{ type: "input_image", image_url: picture.url }];
    this.send("conversation.item.create", { item: { type: "message", role: "user", content } });
    this.view.gave(picture);
  }

  hear(piece) {
    this.view.level(level(piece));
    if (this.socket?.readyState === WebSocket.OPEN) this.sent += piece.length / RATE;
    this.send("input_audio_buffer.append", { audio: toBase64(toPcm16(piece)) });
  }

  take(event) {
    const handlers = {
      "session.updated": () => {
        this.view.show("listening");
        this.onReady();
      },
      "input_audio_buffer.speech_started": () => {
        this.hush();
        this.view.userSpeaks(event.item_id);
        this.view.show("hearing you");
      },
      "input_audio_buffer.speech_stopped": () => {
        // The server is sure of it only some silence later.
        this.stoppedAt = performance.now() - (1000 * this.sent - event.audio_end_ms);
        this.view.show("thinking");
      },
      "conversation.item.input_audio_transcription.completed": () => this.view.userSaid(event.item_id, event.transcript),
      "conversation.item.input_audio_transcription.failed": () => this.view.userSaid(event.item_id, ""),
      "response.created": () => this.begin(),
      "response.output_audio.delta": () => this.play(event),
      "response.output_audio_transcript.delta": () => this.write(event),
      "response.done": () => this.done(event.response),
      error: () => this.view.fail(event.error.message),
    };
    handlers[event.type]?.();
  }

  begin() {
    this.responding = true;
    this.item = null;
    this.view.answerBegins();
    this.track = this.player.begin((playing) => this.playing(playing));
  }

  play({ item_id: item, delta }) {
    if (this.silent.has(item)) return;
    this.item = item;
    const first = !this.track.sources.length;
    const delay = this.track.push(fromBase64(delta));
    if (first && this.stoppedAt !== null) {
      this.view.answered((performance.now() - this.stoppedAt) / 1000 + delay);
      this.stoppedAt = null;
    }
  }

  write({ item_id: item, delta }) {
    if (!this.silent.has(item)) this.view.write(delta);
  }

  done(response) {
    this.responding = false;
    this.track?.finish();
    const { status, status_details: details } = response;
    if (status === "failed") this.view.fail(details?.error?.message ?? "The answer failed.");
    if (!this.player.playing) this.rest();
  }

  playing(playing) {
    if (playing) this.view.show("speaking");
    else if (!this.responding) this.rest();
  }

  /** Nobody speaks. */
  rest() {
    if (this.view.state === "speaking" || this.view.state === "thinking") this.view.show("listening");
  }

  /** Whether an answer is being made or heard. */
  get busy() {
    return this.responding || this.player.playing;
  }

  /** Silence, now; the server learns how much of the answer was heard. */
  hush() {
    const { track, item } = this;
    if (item !== null) this.silent.add(item);
    if (!track || track.over) return;
    const heard = track.drop();
    if (item === null) return;
    this.send("conversation.item.truncate", { item_id: item, content_index: 0, audio_end_ms: Math.floor(heard * 1000) });
    this.view.interrupted();
  }

  /** The user interrupts by a key. */
  interrupt() {
    if (this.responding) this.send("response.cancel", {});
    this.hush();
    this.view.show("listening");
  }

  /** Stop talking; `why` is told. */
  end(why = "") {
    if (this.socket) {
      this.socket.onclose = null;
      this.socket.close();
    }
    this.closeMicrophone?.();
    this.player.drop();
    this.socket = this.closeMicrophone = this.track = null;
    this.responding = false;
    this.view.end(why);
  }
}

function session({ voice, maxTokens }) {
  const fields = {
    type: "realtime",
    output_modalities: ["audio"],
    audio: {
      input: {
        // As little silence before the voice as in the recordings that the model learnt from.
        turn_detection: { type: "server_vad", prefix_padding_ms: 60 },
        transcription: { model: "muomni" },
      },
      output: voice ? { voice } : {},
    },
  };
  if (maxTokens) fields.max_output_tokens = Math.min(4096, Number(maxTokens));
  return fields;
}
