"""From the messages of a request to the sequence that the model reads.

The model knows questions and answers in turns: pictures, then recordings, then text in a question, text in an answer.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from muomni.conversation import Conversation, Encoded, Prompt
from muomni.errors import UserError
from muomni.serve import schema_chat as chat
from muomni.serve.errors import invalid
from muomni.serve.house import Served
from muomni.serve.inputs import check_seconds, from_base64, from_data_address, over_limit, picture, recording
from muomni.serve.settings import Limits, Settings
from muomni.sound import Samples

KEPT_S = 3600  # seconds that the words of a spoken answer are known by its id
KEPT = 1000  # of them at most


class Said:
    """The words of answers that were spoken, by the id that clients send back in their place."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.kept: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def keep(self, name: str, words: str) -> int:
        """Remember an answer; until when, seconds since 1970."""
        end = self.clock() + KEPT_S
        self.kept[name] = (words, end)
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return int(end)

    def words(self, name: str, param: str) -> str:
        """What was said; raises `ApiError` if it is not known any more."""
        words, end = self.kept.get(name, ("", 0.0))
        if end < self.clock():
            raise invalid(f"{param}: no spoken answer has this id now; send its transcript", param, "audio_not_found")
        return words


@dataclass
class Question:
    """A question before anything of it is decoded: addresses of pictures, base64 of recordings, each with its field."""

    texts: list[str] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    recordings: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Asked:
    """A conversation of which the last question is to be answered."""

    exchanges: list[tuple[Question, str]]
    question: Question

    def questions(self) -> list[Question]:
        """All of them."""
        return [*(question for question, _ in self.exchanges), self.question]


def in_turns(messages: Sequence[chat.Message], said: Said, limits: Limits) -> Asked:
    """Sort messages into turns.

    What holds for all of the conversation is put before the first question's text; messages of one side that follow
    each other are one. A question whose answer is empty is left out, as the model knows no empty answer.

    Raises:
        ApiError: if there are too many, they do not begin and end with the user, or a spoken answer is not known.
    """
    if len(messages) > limits.messages:
        raise over_limit(f"messages: {len(messages)}, at most {limits.messages} (--messages)", "messages")
    rules, turns = list[str](), list[tuple[Question, list[str] | None]]()
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        if isinstance(message, chat.SystemMessage):
            rules.append(text_of(message.content))
        elif isinstance(message, chat.AssistantMessage):
            if not turns:
                raise invalid(f"{where}: a conversation begins with the user's message", where)
            question, words = turns[-1]
            turns[-1] = (question, [*(words or []), answer_text(message, said, where)])
        else:
            if not turns or turns[-1][1] is not None:
                turns.append((Question(), None))
            add(turns[-1][0], message, where)
    if not turns or turns[-1][1] is not None:
        where = f"messages[{len(messages) - 1}]"
        raise invalid("messages: the last one, but for the system's, must be the user's", where)
    first = turns[0][0]
    first.texts = [text for text in rules if text.strip()] + first.texts
    answered = [(question, "\n".join(text for text in words or [] if text)) for question, words in turns[:-1]]
    asked = Asked([(question, words) for question, words in answered if words.strip()], turns[-1][0])
    check(asked, limits)
    return asked


def text_of(content: str | Sequence[chat.TextPart] | None) -> str:
    """The text of a message that has only text."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)


def answer_text(message: chat.AssistantMessage, said: Said, where: str) -> str:
    """What an earlier answer was."""
    if message.audio is None:
        return text_of(message.content)
    if message.audio.transcript is not None:
        return message.audio.transcript
    return said.words(message.audio.id, f"{where}.audio.id")


def add(question: Question, message: chat.UserMessage, where: str) -> None:
    """Add a message to a question."""
    if isinstance(message.content, str):
        question.texts.append(message.content)
        return
    for number, part in enumerate(message.content):
        place = f"{where}.content[{number}]"
        if isinstance(part, chat.TextPart):
            question.texts.append(part.text)
        elif isinstance(part, chat.ImagePart):
            question.pictures.append((part.image_url.url, f"{place}.image_url.url"))
        else:
            question.recordings.append((part.input_audio.data, f"{place}.input_audio.data"))


def check(asked: Asked, limits: Limits) -> None:
    """Raise `ApiError` if a conversation has too much of something."""
    questions = asked.questions()
    characters = sum(len(text) for question in questions for text in question.texts)
    characters += sum(len(words) for _, words in asked.exchanges)
    for what, count, most, option in (
        ("characters of text", characters, limits.characters, "characters"),
        ("pictures", sum(len(question.pictures) for question in questions), limits.pictures, "pictures"),
        ("recordings", sum(len(question.recordings) for question in questions), limits.recordings, "recordings"),
    ):
        if count > most:
            raise over_limit(f"messages: {count:,} {what}, at most {most:,} (--{option})", "messages")


Fetch = Callable[[str, Limits, str], bytes]


async def fetched(asked: Asked, settings: Settings, run: Callable[..., Any], fetch: Fetch) -> dict[str, bytes]:
    """The pictures that are elsewhere, by their field.

    Args:
        asked: the conversation.
        settings: whether that is allowed.
        run: calls a function in a thread, see `muomni.serve.workers`.
        fetch: gets one, see `muomni.serve.remote`.

    Raises:
        ApiError: if it is not allowed, or one cannot be had.
    """
    found = {}
    for question in asked.questions():
        for url, param in question.pictures:
            if url[:5].lower() == "data:":
                continue
            if not settings.allow_remote:
                message = f"{param}: addresses are not fetched here (--allow-remote); give data:image/png;base64,..."
                raise invalid(message, param, "remote_refused")
            found[param] = await run(fetch, url, settings.limits, param)
    return found


@dataclass(frozen=True)
class Read:
    """What the model reads of a conversation.

    Attributes:
        prompt: for the engine.
        seen: of the newest question each picture or recording as it was decoded, and as its encoder made it.
    """

    prompt: Prompt
    seen: list[tuple[Any, Encoded]]


def read(served: Served, asked: Asked, remote: dict[str, bytes], limits: Limits, reserve: int) -> Read:
    """Decode and encode all of a conversation, and lay it out; takes long.

    Args:
        served: the model.
        asked: the conversation.
        remote: pictures that were fetched, by their field.
        limits: of pictures and sound.
        reserve: positions that are kept for the answer.

    Raises:
        ApiError: if something cannot be decoded, is too large, or all is too long.
    """
    conversation = Conversation(served.engine.model, served.engine.tokenizer)
    rate, seconds = served.engine.model.cfg.mel.sample_rate, 0.0
    seen: list[Any] = []

    def encode(question: Question) -> dict[str, Any]:
        nonlocal seconds, seen
        pictures, recordings = [], list[Samples]()
        for url, param in question.pictures:
            data = remote[param] if param in remote else from_data_address(url, param)
            pictures.append(picture(data, limits, param))
        for text, param in question.recordings:
            recordings.append(recording(from_base64(text, param), limits, param, rate))
            seconds += len(recordings[-1]) / rate
            check_seconds(seconds, limits, param)
        seen = [*pictures, *recordings]
        return conversation.message("\n".join(question.texts), pictures, audio=recordings)

    try:
        for question, words in asked.exchanges:
            conversation.exchanges.append((encode(question), words))
        last = encode(asked.question)
        prompt = conversation.prompt(last, reserve)
    except UserError as error:
        code = "context_length_exceeded" if "positions" in str(error) else "invalid_value"
        raise invalid(str(error), "messages", code) from None
    encoded = [part["member"] for part in last["content"] if part["type"] != "text"]
    return Read(prompt, list(zip(seen, encoded, strict=True)))
