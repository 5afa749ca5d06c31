"""Conversations that somebody brings: JSON lines in the chat format, with pictures and recordings that they name.

A line is ``{"messages": [...]}``; user and assistant take turns, the user first and the assistant last, and a system's
message before them is put before the first question, as the server does. ``content`` is a text or a list of parts::

    {"type": "text", "text": "What is this?"}
    {"type": "image", "image": "photos/rex.jpg"}
    {"type": "audio", "audio": "sounds/question.wav"}
"""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import soundfile

from muomni.data.badsamples import BadSamples
from muomni.data.folders import Folder
from muomni.data.mixtures import Origin, Part, read_mixture, times
from muomni.data.own_pictures import load_image, square
from muomni.data.picture_sources import MOST_BYTES
from muomni.errors import UserError, shortened
from muomni.recording import as_learned
from muomni.sound import load_audio

TASK = "own"
SUFFIXES = (".jsonl", ".ndjson")
LONGEST_LINE = 1_000_000  # bytes
MOST_MESSAGES, MOST_MEDIA = 100, 16
LONGEST_TEXT = 20_000  # characters of a message
MOST_PIXELS = 50_000_000
MOST_SOUND = 500_000_000  # bytes of a recording's file


class ConversationPart(Part):
    """A source of conversations in a mixture."""

    source: Literal["jsonl"]


@dataclass(frozen=True)
class Fitting:
    """How pictures and recordings are made: pixels of a picture's side, samples a second, most seconds."""

    size_px: int
    sample_rate: int
    max_seconds: float


@dataclass
class OwnConversation:
    """One line, ready for the shards.

    Attributes:
        id: of the line; a repeated one has ``#2`` at its end.
        messages: in the shards' form, media named by member.
        members: PNG and FLAC bytes by name.
    """

    id: str
    messages: list[dict[str, Any]]
    members: dict[str, bytes] = field(default_factory=dict)
    task: str = TASK

    def about(self) -> dict[str, Any]:
        """The sample's JSON."""
        answer = self.messages[-1]["content"][0]["text"]
        return {
            "task": TASK,
            "kind": TASK,
            "messages": self.messages,
            "targets": [answer],
            "key": f"train:{self.id}",
            "more": [],
            "line": self.id,
        }


def read_conversations(
    source: str, address: str, fitting: Fitting, seed: int, bad: BadSamples
) -> tuple[list[OwnConversation], list[Origin]]:
    """All usable conversations, each as often as its source weighs, in the order of the lines.

    Args:
        source: ``jsonl`` or ``mixture``.
        address: of the folder, or of the mixture's file.
        fitting: how media are made.
        seed: the project's; says which conversations a weight's fraction repeats.
        bad: takes the lines that cannot be used, each with the first reason.

    Raises:
        UserError: if a folder is missing or has no such file.
    """
    parts = [ConversationPart(source="jsonl", path=address)] if source == "jsonl" else []
    found: list[OwnConversation] = []
    origins = []
    for part in parts or read_mixture(address, ConversationPart, "conversations.path"):
        before, origin = len(bad), Origin(part.name or part.source, part.source, "", part.licence, part.weight)
        bad.within = f"{part.name}/" if part.name else ""
        mine = list(_folder(part, fitting, bad, origin))
        often = times([item.id for item in mine], part.weight, seed)
        for item in mine:
            again = range(2, often[item.id] + 1)
            found += [item] * (often[item.id] > 0)
            found += [OwnConversation(f"{item.id}#{n}", item.messages, item.members) for n in again]
        origin.items, origin.bad = len(mine), len(bad) - before
        origins.append(origin)
    return found, origins


def state_of_conversations(address: str, origin: Origin) -> tuple[Folder, list[str]]:
    """A folder and its files of lines; `origin` takes the state of all of its files, the media among them.

    Raises:
        UserError: if there is no such folder, or no such file in it.
    """
    folder = Folder(address, "conversations.path")
    names = folder.files()
    lines = [name for name in names if name.lower().endswith(SUFFIXES)]
    if not lines:
        raise UserError(f"conversations.path: {folder.address} holds no .jsonl file")
    origin.saw(folder, names)
    return folder, lines


def _folder(part: ConversationPart, fitting: Fitting, bad: BadSamples, origin: Origin) -> Iterator[OwnConversation]:
    folder, names = state_of_conversations(part.path, origin)
    for name in names:
        try:
            with folder.open(name) as file:
                for number, line in enumerate(iter(partial(file.readline, LONGEST_LINE), b""), 1):
                    item = f"{name}:{number}"
                    if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                        bad.add(item, f"a line of {LONGEST_LINE:,} bytes; the rest of the file is left out")
                        break
                    try:
                        yield _Reader(folder, fitting).read(f"{bad.within}{item}", line)
                    except ValueError as error:
                        bad.add(item, str(error))
        except ValueError as error:
            bad.add(name, str(error))


class _Reader:
    """Reads one line: its messages, and the media that they name."""

    def __init__(self, folder: Folder, fitting: Fitting) -> None:
        self.folder, self.fitting = folder, fitting
        self.members: dict[str, bytes] = {}

    def read(self, item: str, line: bytes) -> OwnConversation:
        """The conversation of a line; raises ValueError with the reason if it cannot be used."""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from None
        given = row.get("messages") if isinstance(row, dict) else None
        if not isinstance(given, list) or not given:
            raise ValueError("no object with a list of messages")
        if len(given) > MOST_MESSAGES:
            raise ValueError(f"{len(given)} messages, more than {MOST_MESSAGES}")
        rules: list[dict[str, str]] = []
        messages: list[dict[str, Any]] = []
        for number, message in enumerate(given):
            where = f"messages[{number}]"
            if not isinstance(message, dict):
                raise ValueError(f"{where}: no object")
            role = message.get("role")
            if role == "system" and number == 0:
                rules = self._parts(message, where, role)
                continue
            wanted = "assistant" if len(messages) % 2 else "user"
            if role != wanted:
                raise ValueError(f"{where}: role {shortened(repr(role), 40)}, expected '{wanted}'; they take turns")
            parts = self._parts(message, where, role)
            if role == "user":
                messages.append({"role": "user", "content": parts})
            else:
                messages.append({"role": "assistant", "content": parts, "speech": False})
        if not messages or len(messages) % 2:
            raise ValueError("it does not end with the assistant's answer")
        if rules:
            messages[0]["content"] = _ruled(rules[0]["text"], messages[0]["content"])
        return OwnConversation(item, messages, self.members)

    def _parts(self, message: dict[str, Any], where: str, role: str) -> list[dict[str, str]]:
        content = message.get("content")
        given = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(given, list) or not given:
            raise ValueError(f"{where}: content is no text and no list of parts")
        texts, parts = [], []
        for number, part in enumerate(given):
            at = f"{where}.content[{number}]"
            kind = part.get("type") if isinstance(part, dict) else None
            value = part.get(kind) if isinstance(kind, str) else None
            if kind not in ("text", "image", "audio") or not isinstance(value, str):
                raise ValueError(f"{at}: expected a part with type text, image or audio, and that as its key")
            if kind == "text":
                text = _clean(value, at)
                texts.append(text)
                parts += [{"type": "text", "text": text}] if text else []
            elif role != "user":
                raise ValueError(f"{at}: the {role} has text only")
            else:
                parts.append(self._medium(kind, value, at))
        if not parts:
            raise ValueError(f"{where}: empty")
        return parts if role == "user" else [{"type": "text", "text": "\n".join(filter(None, texts))}]

    def _medium(self, kind: str, name: str, at: str) -> dict[str, str]:
        if len(self.members) == MOST_MEDIA:
            raise ValueError(f"{at}: more than {MOST_MEDIA} pictures and recordings")
        makers: dict[str, tuple[str, Callable[[str], bytes]]] = {
            "image": ("png", self._picture),
            "audio": ("flac", self._recording),
        }
        ending, make = makers[kind]
        member = f"{sum(known.endswith(ending) for known in self.members)}.{ending}"
        try:
            self.members[member] = make(name)
        except ValueError as error:
            raise ValueError(f"{at}: {shortened(name, 100)}: {error}") from None
        return {"type": kind, "member": member}

    def _picture(self, name: str) -> bytes:
        image = square(load_image(self.folder.read(name, MOST_BYTES), MOST_PIXELS), self.fitting.size_px)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def _recording(self, name: str) -> bytes:
        data, rate = self.folder.read(name, MOST_SOUND), self.fitting.sample_rate
        if not data:
            raise ValueError("empty file")
        try:
            wave = load_audio(data, rate)
        except UserError as error:
            raise ValueError(str(error)) from None
        if not np.abs(wave).max(initial=0.0):
            raise ValueError("there is nothing but silence")
        wave = as_learned(wave, rate)
        if len(wave) > self.fitting.max_seconds * rate:
            raise ValueError(f"{len(wave) / rate:.1f} s, more than speech.max_seconds ({self.fitting.max_seconds:g})")
        buffer = io.BytesIO()
        soundfile.write(buffer, np.round(wave * 32767).astype(np.int16), rate, format="FLAC", subtype="PCM_16")
        return buffer.getvalue()


def _ruled(rules: str, content: list[dict[str, str]]) -> list[dict[str, str]]:
    """A first question with what holds for the whole conversation before its text."""
    for number, part in enumerate(content):
        if part["type"] == "text":
            return [*content[:number], {"type": "text", "text": f"{rules}\n{part['text']}"}, *content[number + 1 :]]
    return [*content, {"type": "text", "text": rules}]


def _clean(text: str, at: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{at}: {len(text):,} characters, more than {LONGEST_TEXT:,}")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{at}: a zero byte, or half of a character")
    return text.strip()
