"""What clients of the realtime interface may send, and what is told of what is wrong with it.

The names are those of OpenAI's Realtime API. An option that this server cannot honour is refused, never ignored.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from muomni.errors import one_line, shortened

LONGEST_TEXT = 20_000  # characters
LONGEST_ID = 64
M = TypeVar("M", bound=BaseModel)


class BadEvent(Exception):
    """An event that cannot be followed; the client is told, and the connection stays.

    Attributes:
        message: what is wrong and what to do.
        code: short name for programs.
        param: the field that is meant.
    """

    def __init__(self, message: str, code: str = "invalid_value", param: str | None = None) -> None:
        super().__init__(message)
        self.message, self.code, self.param = shortened(one_line(message), 400), code, param


class Strict(BaseModel):
    """Neither unknown fields nor values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


# The session


class Pcm(Strict):
    """16 bit, little-endian, mono."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class ServerVad(Strict):
    """Turns end by themselves, when the user is silent."""

    type: Literal["server_vad"]
    threshold: float = Field(default=0.5, ge=0, le=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=2000)
    silence_duration_ms: int = Field(default=500, ge=100, le=5000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: None = None


class Transcription(Strict):
    """What the user says is written down too, by the model that answers whatever is named here."""

    model: str | None = Field(default=None, max_length=LONGEST_ID)
    language: Literal["en"] | None = None
    prompt: Literal[""] | None = None


class AudioInput(Strict):
    """How sound from the client comes, and what is done with it."""

    format: Pcm = Pcm()
    transcription: Transcription | None = None
    noise_reduction: None = None
    turn_detection: ServerVad | None = ServerVad(type="server_vad")


class AudioOutput(Strict):
    """How speech goes to the client; a session begins with the model's first voice."""

    format: Pcm = Pcm()
    voice: str = Field(default="", max_length=LONGEST_ID)
    speed: float = Field(default=1.0, ge=1, le=1)


class Audio(Strict):
    """Both directions of sound."""

    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


Modalities = list[Literal["text", "audio"]]
MaxTokens = int | Literal["inf"]


class SessionConfig(Strict):
    """The whole configuration; `updated` changes some of it."""

    type: Literal["realtime"] = "realtime"
    object: Literal["realtime.session"] = "realtime.session"
    id: str = ""
    model: str = ""
    expires_at: int = 0
    output_modalities: Modalities = Field(default=["audio"], min_length=1, max_length=1)
    instructions: str = Field(default="", max_length=LONGEST_TEXT)
    max_output_tokens: MaxTokens = Field(default="inf")
    audio: Audio = Audio()
    tools: list[Any] = Field(default=[], max_length=0)
    tool_choice: Literal["auto", "none"] = "auto"
    truncation: Literal["auto"] = "auto"
    tracing: None = None
    prompt: None = None
    include: None = None


def updated(config: SessionConfig, change: dict[str, Any]) -> SessionConfig:
    """The configuration with the fields that are present changed; an object's own fields one by one.

    Raises:
        BadEvent: if a value cannot be used.
    """
    fresh = _checked(SessionConfig, _merged(config.model_dump(), change), "session")
    for name in ("id", "object", "model", "expires_at"):
        if getattr(fresh, name) != getattr(config, name):
            raise BadEvent(f"session.{name}: cannot be changed; leave it out", param=f"session.{name}")
    _check_tokens(fresh.max_output_tokens, "session.max_output_tokens")
    return fresh


def _merged(old: Any, change: Any) -> Any:
    if not (isinstance(old, dict) and isinstance(change, dict)):
        return change
    return old | {name: _merged(old.get(name), value) for name, value in change.items()}


def _check_tokens(tokens: MaxTokens | None, param: str) -> None:
    if isinstance(tokens, int) and not 1 <= tokens <= 4096:
        raise BadEvent(f"{param}: expected 1 to 4096 or 'inf', got {tokens}", param=param)


# Items and responses


class ContentParam(Strict):
    """A piece of an item: text, sound in base64 with its transcript, or a picture's address."""

    type: Literal["input_text", "input_audio", "input_image", "output_text", "output_audio"]
    text: str | None = Field(default=None, max_length=LONGEST_TEXT)
    audio: str | None = None
    transcript: str | None = Field(default=None, max_length=LONGEST_TEXT)
    image_url: str | None = None
    detail: Literal["auto", "low", "high"] | None = None


class ItemParam(Strict):
    """A message of the conversation, as a client gives it."""

    type: Literal["message"]
    role: Literal["user", "assistant", "system"]
    content: list[ContentParam] = Field(min_length=1, max_length=16)
    id: str | None = Field(default=None, min_length=1, max_length=LONGEST_ID)
    object: Literal["realtime.item"] | None = None
    status: Literal["completed", "incomplete", "in_progress"] | None = None


class OutputParam(Strict):
    """How the speech of one response differs from the session's."""

    format: Pcm = Pcm()
    voice: str | None = Field(default=None, max_length=LONGEST_ID)


class AudioParam(Strict):
    """The sound of one response."""

    output: OutputParam = OutputParam()


class ResponseParams(Strict):
    """How one response differs from what the session says."""

    conversation: Literal["auto", "none"] = "auto"
    input: list[ItemParam] | None = Field(default=None, max_length=64)
    instructions: str | None = Field(default=None, max_length=LONGEST_TEXT)
    max_output_tokens: MaxTokens | None = None
    metadata: dict[str, str] | None = Field(default=None, max_length=16)
    output_modalities: Modalities | None = Field(default=None, min_length=1, max_length=1)
    audio: AudioParam | None = None
    tools: list[Any] | None = Field(default=None, max_length=0)
    tool_choice: Literal["auto", "none"] | None = None
    prompt: None = None


# Events


class ClientEvent(Strict):
    """What all events have: a type, and an id that errors about the event name."""

    type: str
    event_id: str | None = Field(default=None, max_length=512)


class SessionUpdate(ClientEvent):
    """Change fields of the configuration; see `updated`."""

    session: dict[str, Any]


class AudioAppend(ClientEvent):
    """More sound of the user, base64 of `Pcm`."""

    audio: str


class AudioCommit(ClientEvent):
    """End the user's turn: the sound so far becomes an item."""


class AudioClear(ClientEvent):
    """Forget the sound that has not become an item."""


class ItemCreate(ClientEvent):
    """Put an item into the conversation, behind another one or at its end."""

    item: ItemParam
    previous_item_id: str | None = None


class ItemDelete(ClientEvent):
    """Take an item out of the conversation."""

    item_id: str


class ItemRetrieve(ClientEvent):
    """Send an item as the server has it."""

    item_id: str


class ItemTruncate(ClientEvent):
    """Cut a spoken answer to what the user heard of it, ``audio_end_ms`` milliseconds."""

    item_id: str
    content_index: int = Field(ge=0, le=1000)
    audio_end_ms: int = Field(ge=0, le=10**9)


class ResponseCreate(ClientEvent):
    """Answer now."""

    response: ResponseParams | None = None


class ResponseCancel(ClientEvent):
    """Stop an answer: the one of this id, or the one that is being made."""

    response_id: str | None = None


EVENTS: dict[str, type[ClientEvent]] = {
    "session.update": SessionUpdate,
    "input_audio_buffer.append": AudioAppend,
    "input_audio_buffer.commit": AudioCommit,
    "input_audio_buffer.clear": AudioClear,
    "conversation.item.create": ItemCreate,
    "conversation.item.delete": ItemDelete,
    "conversation.item.retrieve": ItemRetrieve,
    "conversation.item.truncate": ItemTruncate,
    "response.create": ResponseCreate,
    "response.cancel": ResponseCancel,
}


def read_json(message: str | bytes) -> dict[str, Any]:
    """The object in a message.

    Raises:
        BadEvent: if there is none.
    """
    try:
        found = from_json(message, allow_inf_nan=False)
    except (ValueError, RecursionError) as error:
        raise BadEvent(f"the event is not JSON ({error})", "invalid_json") from None
    if not isinstance(found, dict):
        raise BadEvent("the event is not a JSON object", "invalid_json")
    return found


def read_event(found: dict[str, Any]) -> ClientEvent:
    """Check an event.

    Raises:
        BadEvent: if it is not one that this server knows, or lacks something.
    """
    kind = found.get("type")
    if kind is None:
        raise BadEvent("type: is missing; give the event's name", "missing_required_parameter", "type")
    if not isinstance(kind, str) or kind not in EVENTS:
        shown = shortened(repr(kind), 60)
        raise BadEvent(f"type: no event {shown} here; there are {', '.join(EVENTS)}", param="type")
    event = _checked(EVENTS[kind], found, "")
    if isinstance(event, ResponseCreate) and event.response:
        _check_tokens(event.response.max_output_tokens, "response.max_output_tokens")
    return event


def _checked(model: type[M], value: Any, place: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _fault(first["loc"], first["type"], first["msg"], place) from None
    except RecursionError:
        raise BadEvent(f"{place or 'the event'}: is nested too deep") from None


def _fault(loc: Sequence[int | str], kind: str, message: str, place: str) -> BadEvent:
    """The first fault that pydantic found, with its place as the API writes it: ``session.audio.input``."""
    joined = place + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    param = shortened(joined.lstrip("."), 100)
    if kind == "extra_forbidden":
        return BadEvent(f"{param}: no such parameter here; leave it out", "unknown_parameter", param)
    if kind == "missing":
        return BadEvent(f"{param}: is missing; give it", "missing_required_parameter", param)
    return BadEvent(f"{param}: {message}", "invalid_type" if kind.endswith("_type") else "invalid_value", param)
