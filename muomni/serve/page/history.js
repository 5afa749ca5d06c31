// What of the conversation is sent with a question.

// Less than a server takes by itself; the model's context holds less still.
const MOST = { exchanges: 24, image: 12, audio: 12, characters: 12_000_000 };

/** The API's messages for a turn: the last earlier ones that were answered, and its own question. */
export function messages(turns, turn) {
  const sent = [{ role: "user", content: content(turn) }];
  const room = { ...MOST };
  spend(room, turn);
  for (const earlier of turns.slice(0, turns.indexOf(turn)).reverse()) {
    if (!earlier.answer?.text.trim()) continue; // stopped before a word, or failed
    spend(room, earlier);
    if (Object.values(room).some((left) => left < 0)) break;
    sent.unshift({ role: "user", content: content(earlier) }, { role: "assistant", content: earlier.answer.text });
  }
  return sent;
}

function spend(room, { text, attachments, answer }) {
  room.exchanges -= 1;
  room.characters -= text.length + (answer?.text.length ?? 0);
  for (const { kind, part } of attachments) {
    room[kind] -= 1;
    room.characters -= kind === "image" ? part.image_url.url.length : part.input_audio.data.length;
  }
}

function content({ text, attachments }) {
  if (!attachments.length) return text;
  const parts = attachments.map((attachment) => attachment.part);
  return text ? [...parts, { type: "text", text }] : parts;
}
