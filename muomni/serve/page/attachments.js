// Pictures and sounds that go with the next question.

import { byId, element, icon, notice } from "./dom.js";
import { fileBase64, joined, trimmed, wav } from "./sound.js";

const MAX_BYTES = 12_000_000;
const MAX_SIDE = 1024; // the model sees far fewer pixels; larger pictures would only be slow to send
export const RECORDING_RATE = 16000; // Hz, what the model hears

/**
 * @typedef {object} Attachment
 * @property {"image" | "audio"} kind
 * @property {string} name
 * @property {string} url of the content, for the page itself
 * @property {object} part of the API's message
 */

/** Read a file that the user gave. Throws an Error in words if it is neither picture nor sound. */
async function read(file) {
  if (file.size > MAX_BYTES) throw new Error(`${file.name}: larger than ${MAX_BYTES / 1e6} MB; give a smaller part.`);
  if (!file.size) throw new Error(`${file.name}: the file is empty.`);
  if (file.type.startsWith("image/")) return readPicture(file);
  if (file.type.startsWith("audio/") || /\.(wav|mp3|flac)$/i.test(file.name)) return readSound(file);
  throw new Error(`${file.name}: neither a picture nor a sound; give PNG, JPEG, WAV, MP3 or FLAC.`);
}

async function readPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name}: cannot be read as a picture; save it again as PNG or JPEG.`);
  }
  const blob = await fitting(file, bitmap);
  const url = `data:${blob.type};base64,${await fileBase64(blob)}`;
  return { kind: "image", name: file.name, url, part: { type: "image_url", image_url: { url } } };
}

/** The file itself, or a smaller picture of it in a format that the server reads. */
async function fitting(file, bitmap) {
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && ["image/png", "image/jpeg", "image/webp"].includes(file.type)) return file;
  const canvas = element("canvas", {
    width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  const drawing = canvas.getContext("2d");
  drawing.imageSmoothingQuality = "high";
  drawing.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const type = file.type === "image/jpeg" ? "image/jpeg" : "image/png";
  return new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));
}

async function readSound(file) {
  const format = /mpeg|mp3/.test(file.type) || /\.mp3$/i.test(file.name) ? "mp3" : file.type.split("/")[1] || "";
  const known = { mp3: "mp3", flac: "flac", "x-flac": "flac", wav: "wav", "x-wav": "wav", "vnd.wave": "wav" };
  const named = known[format] ?? known[file.name.split(".").pop().toLowerCase()];
  return named ? sound(file, named) : sound(await decoded(file), "wav");
}

/** Another format than the API's, decoded by the browser. */
async function decoded(file) {
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, RECORDING_RATE).decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name}: cannot be read as sound; save it as WAV, MP3 or FLAC.`);
  }
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i));
  const mean = channels[0].map((_, i) => channels.reduce((sum, channel) => sum + channel[i], 0) / channels.length);
  return new File([wav(mean, RECORDING_RATE)], file.name);
}

async function sound(blob, format) {
  const data = await fileBase64(blob);
  const part = { type: "input_audio", input_audio: { data, format } };
  return { kind: "audio", name: blob.name, url: URL.createObjectURL(blob), part };
}

/** Pieces of a recording at `RECORDING_RATE` as an attachment. */
export function recording(pieces) {
  const said = trimmed(joined(pieces), RECORDING_RATE);
  return sound(new File([wav(said, RECORDING_RATE)], "recording"), "wav");
}

/** A thumbnail or player. */
export function preview({ kind, name, url }) {
  if (kind === "image") return element("img", { src: url, alt: name, title: name });
  return element("audio", { src: url, controls: true, "aria-label": name });
}

/** The list above the question. */
export class Attachments {
  constructor() {
    /** @type {Attachment[]} */
    this.all = [];
    this.reading = Promise.resolve(); // one file after the other, so that they keep their order
  }

  /** Take files, telling about those that cannot be. */
  addFiles(files) {
    notice("");
    for (const file of files) {
      this.reading = this.reading
        .then(() => read(file))
        .then((attachment) => this.add(attachment))
        .catch((error) => notice(error.message));
    }
    return this.reading;
  }

  /** The pictures alone; sounds stay. */
  async takePictures() {
    await this.reading;
    const pictures = this.all.filter((attachment) => attachment.kind === "image");
    this.set(this.all.filter((attachment) => attachment.kind !== "image"));
    return pictures;
  }

  add(attachment) {
    this.all.push(attachment);
    this.show();
  }

  /** All of them; the list is empty afterwards. */
  async take() {
    await this.reading;
    const taken = this.all;
    this.set([]);
    return taken;
  }

  set(attachments) {
    this.all = attachments;
    this.show();
  }

  remove(attachment) {
    this.set(this.all.filter((other) => other !== attachment));
    byId("question").focus();
  }

  show() {
    const items = this.all.map((attachment) => {
      const label = `Remove ${attachment.name}`;
      const remove = element(
        "button",
        { type: "button", className: "remove", title: label, "aria-label": label, onclick: () => this.remove(attachment) },
        icon("remove"),
      );
      return element("li", { className: attachment.kind }, preview(attachment), remove);
    });
    byId("attachments").replaceChildren(...items);
  }
}

/** Files dropped on the page or pasted into it. */
export function acceptFiles(addFiles) {
  const hint = byId("drop-hint");
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    hint.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) hint.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    hint.hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    addFiles(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    addFiles(event.clipboardData.files);
  });
}
