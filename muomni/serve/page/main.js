// Puts the page together.

import { models } from "./api.js";
import { acceptFiles, Attachments } from "./attachments.js";
import { Chat } from "./chat.js";
import { byId, notice } from "./dom.js";
import { whyNoMicrophone } from "./microphone.js";
import { Player } from "./player.js";
import { Recorder } from "./recorder.js";
import { Settings } from "./settings.js";
import { Talk } from "./talk.js";
import { TalkView } from "./talk-view.js";

const question = byId("question");
const player = new Player();
const attachments = new Attachments();
const settings = new Settings(connect);
const chat = new Chat(player, settings, edit, show);
const recorder = new Recorder((recording) => {
  attachments.add(recording);
  question.focus();
});

const talk = new Talk(player, new TalkView(showTalk), givePictures);

/** Ask what there is to talk to. */
async function connect() {
  notice("");
  try {
    const [model] = await models();
    chat.model = model.id;
    if (model.id !== "muomni") byId("model").textContent = model.id;
    settings.offer(model.voices ?? []);
  } catch (error) {
    notice(error.message);
    if (error.status === 401) settings.open(byId("key"));
  }
}

function edit(text, files) {
  question.value = text;
  attachments.set(files);
  grow();
  question.focus();
}

/** What can be done now. */
function show() {
  byId("empty").hidden = byId("turns").childElementCount > 0;
  byId("stop").hidden = !chat.busy;
  byId("send").hidden = Boolean(chat.abort);
  byId("talk-start").hidden = chat.busy;
}

/** While talking the question's place is the talk's. */
function showTalk(talking) {
  byId("talk").hidden = !talking;
  byId("composer").hidden = talking;
  byId("empty").hidden = talking || byId("turns").childElementCount > 0;
  if (!talking) question.focus();
}

async function startTalk() {
  chat.stop();
  if (recorder.pieces) await recorder.stop();
  try {
    await talk.start(chat.model, settings.values);
  } catch (error) {
    notice(error.message);
  }
}

/** Pictures that are attached go to whoever listens. */
async function givePictures() {
  for (const picture of await attachments.takePictures()) talk.give(picture);
}

/** As many lines as the question has. */
function grow() {
  question.style.height = "auto";
  question.style.height = `${Math.min(question.scrollHeight, window.innerHeight / 3)}px`;
}

async function send() {
  if (chat.abort) return; // one question at a time; what is typed stays
  if (recorder.pieces) await recorder.stop();
  player.wake(); // while it is still the user's own key or click
  const text = question.value.trim();
  const files = await attachments.take();
  if (!text && !files.length) {
    question.focus();
    return;
  }
  notice("");
  question.value = "";
  grow();
  chat.ask(text, files);
}

byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
question.addEventListener("input", grow);
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || byId("settings").open) return;
  if (recorder.pieces) recorder.stop();
  else if (!talk.socket) chat.stop();
  else if (talk.busy) talk.interrupt();
  else talk.end();
});
byId("stop").addEventListener("click", () => {
  chat.stop();
  question.focus(); // the button is gone
});
byId("talk-start").addEventListener("click", startTalk);
byId("talk-start").setAttribute("aria-disabled", String(Boolean(whyNoMicrophone())));
byId("talk-end").addEventListener("click", () => talk.end());
byId("new").addEventListener("click", () => {
  if (talk.socket) talk.end();
  chat.clear();
  notice("");
  question.focus();
});
for (const [opener, field] of [["add-picture", "picture-file"], ["add-sound", "sound-file"]]) {
  byId(opener).addEventListener("click", () => byId(field).click());
  byId(field).addEventListener("change", () => {
    attachments.addFiles([...byId(field).files]);
    byId(field).value = ""; // the same file may be chosen again
    question.focus();
  });
}
byId("examples").addEventListener("click", (event) => {
  if (!event.target.matches("button")) return;
  player.wake();
  chat.ask(event.target.textContent, []);
  question.focus();
});
acceptFiles(async (files) => {
  await attachments.addFiles([...files]);
  if (talk.socket) await givePictures();
});
connect();
show();
question.focus();
