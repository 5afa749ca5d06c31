"""What ``/v1/chat/completions`` answers with."""

from typing import Literal

from muomni.serve.schema import Told, Usage


class Likely(Told):
    """A token that might have come, and its natural log probability."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Likely):
    """A token that came, with what might have."""

    top_logprobs: list[Likely]


class Logprobs(Told):
    """Of the tokens of an answer or of a piece of one."""

    content: list[TokenLogprob]
    refusal: None = None


class Spoken(Told):
    """The speech of an answer: base64 of a file in the asked format."""

    id: str
    data: str
    expires_at: int
    transcript: str


class AnswerMessage(Told):
    """An answer. With speech its text is the transcript."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    audio: Spoken | None = None


class Choice(Told):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"]


class SeenInput(Told):
    """A picture or recording as the encoder got it; ``png`` is a data address."""

    kind: Literal["image", "audio"]
    positions: int
    png: str
    size: list[int] | None = None
    patch_size: int | None = None
    grid: int | None = None
    seconds: float | None = None
    frames: int | None = None


class Details(Told):
    """What the model read, and how fast it answered."""

    positions: dict[str, int] | None = None
    answer: int | None = None
    dropped_turns: int | None = None
    dropped_audio_s: float | None = None
    context: int | None = None
    inputs: list[SeenInput] | None = None
    first_token_s: float | None = None
    first_audio_s: float | None = None
    tokens_per_s: float | None = None


class ChatAnswer(Told):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: Usage
    muomni: Details | None = None


class AudioDelta(Told):
    """More of the speech: ``data`` is base64 of samples of 16 bits, 24,000 a second."""

    id: str
    transcript: str | None = None
    data: str | None = None
    expires_at: int | None = None


class Delta(Told):
    """More of an answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    audio: AudioDelta | None = None


class ChunkChoice(Told):
    """More of one of the answers."""

    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None


class ChatChunk(Told):
    """One event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    muomni: Details | None = None
