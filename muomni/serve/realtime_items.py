"""What a realtime conversation consists of: messages with text, pictures and sound, for the model and for the API."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import soxr
from PIL import Image

from muomni.conversation import Conversation, Encoded
from muomni.serve.errors import invalid
from muomni.serve.inputs import from_base64, from_data_address, picture
from muomni.serve.realtime_channel import new_id
from muomni.serve.realtime_schema import BadEvent, ContentParam, ItemParam
from muomni.serve.settings import Limits
from muomni.serve.sounds import WIRE_RATE
from muomni.serve.voice_activity import RATE

SIDE = 512  # pixels that are kept of a picture; the model looks at fewer
CHARACTERS_A_SECOND = 14.0  # that are spoken, where a sentence's own rate is not known yet

Samples = npt.NDArray[np.float32]


@dataclass(eq=False)
class Part:
    """Some of a message.

    Attributes:
        kind: what it is.
        text: of text; what was said, of sound, as far as it is known.
        source: what came, as base64 or a data address, until it is decoded.
        param: in which field of the event.
        sound: float32 ``[n]`` at 16 kHz, what the user said.
        picture: at most `SIDE` wide and high.
        encoded: for which model it was encoded, and the states.
    """

    kind: Literal["text", "audio", "image"]
    text: str = ""
    source: str = ""
    param: str = ""
    sound: Samples | None = None
    picture: Image.Image | None = None
    encoded: tuple[object, Encoded] | None = None

    @property
    def decoded(self) -> bool:
        """Whether the model can read it."""
        return not self.source

    def decode(self, limits: Limits) -> None:
        """Make sound or picture of what came. Takes a while.

        Raises:
            ApiError: if it cannot be read, or is too large.
        """
        if self.kind == "image" and self.picture is None:
            self.picture = picture(from_data_address(self.source, self.param), limits, self.param)
            self.picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
        if self.kind == "audio" and self.sound is None:
            sound = soxr.resample(pcm_samples(self.source, self.param), WIRE_RATE, RATE)
            self.sound = sound if len(sound) else np.zeros(1, np.float32)
        self.source = ""

    def encode(self, conversation: Conversation) -> Encoded:
        """Run the encoder of a conversation's model, once. Takes a while."""
        if self.encoded is None or self.encoded[0] is not conversation.model:
            if self.kind == "image":
                assert self.picture is not None
                states = conversation.encode_pictures([self.picture])[0]
            else:
                assert self.sound is not None
                rate = conversation.model.cfg.mel.sample_rate
                states = conversation.encode_recording(soxr.resample(self.sound, RATE, rate))
            self.encoded = (conversation.model, states)
        return self.encoded[1]


@dataclass(eq=False)
class Item:
    """A message of the conversation.

    Attributes:
        id: by which events call it.
        role: whose it is.
        parts: what is in it.
        status: whether it is complete.
        sent: seconds of sound of an answer that the client got.
        whole: of an answer: its text before anything was cut from it.
        spoken: whether all of ``whole`` is in the sound.
    """

    role: Literal["user", "assistant", "system"]
    parts: list[Part]
    id: str = field(default_factory=lambda: new_id("item"))
    status: Literal["completed", "incomplete", "in_progress"] = "completed"
    sent: float = 0.0
    whole: str = ""
    spoken: bool = False

    def wire(self) -> dict[str, Any]:
        """The item as the API shows it, without sound and pictures themselves."""
        answer = self.role == "assistant"
        content: list[dict[str, Any]] = []
        for part in self.parts:
            if part.kind == "text":
                content.append({"type": "output_text" if answer else "input_text", "text": part.text})
            elif part.kind == "audio":
                transcript = part.text if answer else part.text or None
                content.append({"type": "output_audio" if answer else "input_audio", "transcript": transcript})
            else:
                content.append({"type": "input_image"})
        return {
            "id": self.id,
            "object": "realtime.item",
            "type": "message",
            "status": self.status,
            "role": self.role,
            "content": content,
        }

    def cut(self, seconds: float) -> None:
        """Keep of a spoken answer what was heard in so many seconds."""
        self.parts[0].text = heard_text(self.whole, seconds, self.sent if self.spoken else None)


def heard_text(text: str, seconds: float, length: float | None) -> str:
    """The words of a text that were said completely, about.

    Args:
        text: what is said.
        seconds: that were heard of it.
        length: seconds that all of it takes; None if that is not known.
    """
    if length is not None and seconds >= length - 0.01:
        return text
    rate = len(text) / length if length else CHARACTERS_A_SECOND
    count = int(seconds * rate)
    if count >= len(text):
        return text
    return text[: text.rfind(" ", 0, count + 1)].rstrip() if " " in text[: count + 1] else ""


def pcm_samples(source: str, param: str = "audio") -> Samples:
    """Base64 of sound on the wire to float32 ``[n]`` at its rate.

    Raises:
        ApiError: if it is no base64, or not whole samples of 16 bits.
    """
    data = from_base64(source, param)
    if len(data) % 2:
        raise invalid(f"{param}: an odd number of bytes; give whole samples of 16 bits", param)
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


FIELDS = {"input_text": "text", "output_text": "text", "input_audio": "audio", "input_image": "image_url"}
ROLES = {
    "user": ("input_text", "input_audio", "input_image"),
    "system": ("input_text",),
    "assistant": ("output_text", "output_audio"),
}


def new_item(given: ItemParam, param: str) -> Item:
    """An item as a client describes it, its sound and pictures not decoded yet.

    Args:
        given: the description.
        param: where in the event it stands, for messages.

    Raises:
        BadEvent: if something does not belong into it or is missing.
    """
    parts = [
        _new_part(content, given.role, f"{param}.content[{number}]") for number, content in enumerate(given.content)
    ]
    item = Item(given.role, parts)
    item.id = given.id or item.id
    item.whole = answer_text(parts)
    return item


def _new_part(content: ContentParam, role: str, param: str) -> Part:
    if content.type not in ROLES[role]:
        allowed = ", ".join(ROLES[role])
        raise BadEvent(f"{param}.type: a message of the {role} has {allowed}", param=f"{param}.type")
    name = FIELDS.get(content.type, "transcript")
    value = getattr(content, name)
    if not value:
        raise BadEvent(f"{param}.{name}: is missing; give it", "missing_required_parameter", f"{param}.{name}")
    if content.type in ("input_text", "output_text", "output_audio"):
        return Part("text", text=value)
    return Part("audio" if content.type == "input_audio" else "image", source=value, param=f"{param}.{name}")


def answer_text(parts: Sequence[Part]) -> str:
    """The text of an answer."""
    return " ".join(part.text for part in parts if part.text.strip())


Turn = tuple[list[Part], str]


def turns(items: Sequence[Item]) -> tuple[list[Turn], list[Part]]:
    """A conversation as the model learned it: questions with their answers, and the question that has none yet.

    What stands before an answer together is one question, in the order of the training data: pictures, sound, text. An
    answer of which nothing was heard leaves its question open. Answers in a row are one.
    """
    answered: list[Turn] = []
    question: list[Part] = []
    for item in items:
        if item.role != "assistant":
            question += item.parts
        elif not (text := answer_text(item.parts)):
            continue
        elif question:
            answered.append((question, text))
            question = []
        elif answered:
            answered[-1] = (answered[-1][0], f"{answered[-1][1]} {text}")
    return answered, question


def message(parts: Sequence[Part], conversation: Conversation, instructions: str = "") -> dict[str, Any]:
    """A question for the chat template. Takes a while.

    Args:
        parts: of the question, decoded.
        conversation: encodes them.
        instructions: put before its text.
    """
    content: list[dict[str, Any]] = [
        {"type": kind, "member": part.encode(conversation)}
        for kind in ("image", "audio")
        for part in parts
        if part.kind == kind
    ]
    text = "\n".join(filter(None, [instructions.strip(), *(p.text.strip() for p in parts if p.kind == "text")]))
    if text:
        content.append({"type": "text", "text": text})
    return {"role": "user", "content": content}
