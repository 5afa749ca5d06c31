"""What may be sent to ``/v1/audio/...``, and what comes back."""

from typing import Annotated, Literal

from pydantic import Field

from muomni.serve.schema import Asked, ModelName, Told, Voice


class SpeechRequest(Asked):
    """A text to be read aloud."""

    model: ModelName
    input: str = Field(min_length=1, max_length=4096)
    voice: Voice
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None
    stream_format: Literal["audio", "sse"] | None = None
    speed: Annotated[float, Field(ge=1, le=1, description="this model speaks at one speed")] | None = None


class TokenUsage(Told):
    """What it took: text or positions of sound that were read; tokens or frames of speech that were made."""

    type: Literal["tokens"] = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: dict[str, int]


class DurationUsage(Told):
    """How much was heard."""

    type: Literal["duration"] = "duration"
    seconds: float


class Transcription(Told):
    """What was said."""

    text: str
    usage: TokenUsage


class VerboseTranscription(Told):
    """What was said, and how long it took to say it. The model knows no times of words."""

    task: Literal["transcribe"] = "transcribe"
    language: Literal["english"] = "english"
    duration: float
    text: str
    usage: DurationUsage


class SpeechEvent(Told):
    """An event of streamed speech: base64 of a piece of the file, or the end."""

    type: Literal["speech.audio.delta", "speech.audio.done"]
    audio: str | None = None
    usage: TokenUsage | None = None


class TranscriptionEvent(Told):
    """An event of a streamed transcription: more text, or the end with all of it."""

    type: Literal["transcript.text.delta", "transcript.text.done"]
    delta: str | None = None
    text: str | None = None
    usage: TokenUsage | None = None
