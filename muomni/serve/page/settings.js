// How answers are to be made, kept in the browser; the key only as long as the tab is open.

import { apiKey, setApiKey } from "./api.js";
import { byId, element, icon } from "./dom.js";

const PLACE = "muomni-settings";
const FIELDS = { voice: "voice", temperature: "temperature", maxTokens: "max-tokens", seed: "seed" };
const DEFAULTS = { speak: true, voice: "", temperature: "0", maxTokens: "", seed: "" };

function stored() {
  try {
    return JSON.parse(localStorage.getItem(PLACE)) ?? {};
  } catch {
    return {}; // not allowed here, or not ours
  }
}

export class Settings {
  /** `onKey` is called after another key was given. */
  constructor(onKey) {
    this.values = { ...DEFAULTS, ...stored() };
    this.onKey = onKey;
    this.dialog = byId("settings");
    byId("settings-open").addEventListener("click", () => this.open());
    this.dialog.addEventListener("cancel", () => this.take());
    byId("settings-form").addEventListener("submit", (event) => {
      event.preventDefault(); // the browser has checked the fields
      this.take();
      this.dialog.close();
    });
    byId("speak").addEventListener("click", () => this.set({ speak: !this.values.speak }));
    window.addEventListener("key-needed", () => (byId("key-row").hidden = false));
    byId("key-row").hidden = !apiKey();
    this.showSpeak();
  }

  /** Voices to offer. */
  offer(voices) {
    byId("voices").replaceChildren(...voices.map((value) => element("option", { value })));
    if (voices.length) byId("voice").placeholder = voices[0];
    this.firstVoice = voices[0];
  }

  open(focus = null) {
    for (const [name, id] of Object.entries(FIELDS)) byId(id).value = this.values[name];
    byId("key").value = apiKey();
    this.dialog.showModal();
    focus?.focus();
  }

  /** Keep what the fields hold; a wrong value leaves the old one. */
  take() {
    const valid = Object.entries(FIELDS).filter(([, id]) => byId(id).checkValidity());
    this.set(Object.fromEntries(valid.map(([name, id]) => [name, byId(id).value.trim()])));
    const key = byId("key").value.trim();
    if (key !== apiKey()) {
      setApiKey(key);
      this.onKey();
    }
  }

  set(changes) {
    Object.assign(this.values, changes);
    try {
      localStorage.setItem(PLACE, JSON.stringify(this.values));
    } catch {
      // not allowed here: they last as long as the page
    }
    this.showSpeak();
  }

  showSpeak() {
    const button = byId("speak");
    button.setAttribute("aria-pressed", String(this.values.speak));
    button.title = this.values.speak ? "Answers are spoken" : "Answers are not spoken";
    button.replaceChildren(icon(this.values.speak ? "speaker" : "muted"));
  }

  /** The request's fields. Without a chosen seed another is drawn each time, and told, so that it can be repeated. */
  request() {
    const { speak, voice, temperature, maxTokens, seed } = this.values;
    const fields = {
      temperature: temperature === "" ? 0 : Number(temperature),
      seed: seed === "" ? crypto.getRandomValues(new Uint32Array(1))[0] >>> 1 : Number(seed),
    };
    if (maxTokens) fields.max_completion_tokens = Number(maxTokens);
    if (speak) {
      fields.modalities = ["text", "audio"];
      fields.audio = { voice: voice || this.firstVoice || "alloy", format: "pcm16" };
    }
    return fields;
  }
}
