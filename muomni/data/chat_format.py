"""The chat format: a line of JSON as a conversation, with the pictures and recordings that it names.

A line is ``{"messages": [...]}``; user and assistant take turns, the user first and the assistant last, and a system's
message before them is put before the first question, as the server does. ``content`` is a text or a list of parts::

    {"type": "text", "text": "What is this?"}
    {"type": "image", "image": "photos/rex.jpg"}
    {"type": "audio", "audio": "sounds/question.wav"}
"""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import soundfile

from muomni.data.folders import Folder
from muomni.data.own_pictures import load_image, square
from muomni.data.picture_entries import MOST_BYTES
from muomni.errors import UserError, shortened
from muomni.recording import as_learned
from muomni.sound import load_audio

TASK = "own"
MOST_MESSAGES, MOST_MEDIA = 100, 16
LONGEST_TEXT = 20_000  # characters of a message
MOST_PIXELS = 50_000_000
MOST_SOUND = 500_000_000  # bytes of a recording's file
Line = tuple[str, bytes]  # what messages call it, and its bytes


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
        digests: SHA-256 of the file that each member was made of.
        split: train, valid or test.
    """

    id: str
    messages: list[dict[str, Any]]
    members: dict[str, bytes] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    split: str = "train"
    task: str = TASK

    @property
    def key(self) -> str:
        """A hash of what the user says, in small letters, shows and plays."""
        asked = [part for message in self.messages[::2] for part in message["content"]]
        digest = hashlib.blake2b(digest_size=16)
        for part in asked:
            text = " ".join(part["text"].lower().split()).encode() if part["type"] == "text" else b""
            data = text or self.digests[part["member"]].encode()
            digest.update(f"{part['type']}\0{len(data)}\0".encode() + data)
        return f"{TASK}:{digest.hexdigest()}"

    def about(self) -> dict[str, Any]:
        """The sample's JSON."""
        answer = self.messages[-1]["content"][0]["text"]
        return {
            "task": TASK,
            "kind": TASK,
            "messages": self.messages,
            "targets": [answer],
            "key": self.key,
            "more": [],
            "line": self.id,
        }


@lru_cache(maxsize=8)
def _folder(address: str) -> Folder:
    return Folder(address, "conversations.path")


def read_lines(lines: Sequence[Line], address: str, fitting: Fitting, within: str) -> list[OwnConversation | str]:
    """The conversation of each line, or why there is none.

    Args:
        lines: of a file in the folder.
        address: of the folder that the media are in.
        fitting: how media are made.
        within: what ids begin with.
    """
    found: list[OwnConversation | str] = []
    for item, line in lines:
        try:
            found.append(_Reader(_folder(address), fitting).read(f"{within}{item}", line))
        except ValueError as error:
            found.append(str(error))
    return found


class _Reader:
    """Reads one line: its messages, and the media that they name."""

    def __init__(self, folder: Folder, fitting: Fitting) -> None:
        self.folder, self.fitting = folder, fitting
        self.members: dict[str, bytes] = {}
        self.digests: dict[str, str] = {}

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
        return OwnConversation(item, messages, self.members, self.digests)

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
        makers: dict[str, tuple[str, int, Callable[[bytes], bytes]]] = {
            "image": ("png", MOST_BYTES, self._picture),
            "audio": ("flac", MOST_SOUND, self._recording),
        }
        ending, most, make = makers[kind]
        member = f"{sum(known.endswith(ending) for known in self.members)}.{ending}"
        try:
            data = self.folder.read(name, most)
            self.members[member], self.digests[member] = make(data), hashlib.sha256(data).hexdigest()
        except ValueError as error:
            raise ValueError(f"{at}: {shortened(name, 100)}: {error}") from None
        return {"type": kind, "member": member}

    def _picture(self, data: bytes) -> bytes:
        image = square(load_image(data, MOST_PIXELS), self.fitting.size_px)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()

    def _recording(self, data: bytes) -> bytes:
        rate = self.fitting.sample_rate
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
