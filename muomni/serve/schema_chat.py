"""What may be sent to ``/v1/chat/completions``."""

from typing import Annotated, Literal

from pydantic import Field

from muomni.serve.schema import SEED, WHOLE, Asked, ModelName, Voice

AudioFormat = Literal["wav", "mp3", "flac", "opus", "aac", "pcm16"]
Name = Annotated[str, Field(max_length=200)]


class TextPart(Asked):
    """Text."""

    type: Literal["text"]
    text: str


class ImageUrl(Asked):
    """Where a picture is: ``data:image/png;base64,...``; ``http(s)`` only where the server allows it."""

    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Asked):
    """A picture."""

    type: Literal["image_url"]
    image_url: ImageUrl


class InputAudio(Asked):
    """A recording in base64."""

    data: str = Field(min_length=1)
    format: Literal["wav", "mp3", "flac"]


class AudioPart(Asked):
    """A recording."""

    type: Literal["input_audio"]
    input_audio: InputAudio


UserPart = Annotated[TextPart | ImagePart | AudioPart, Field(discriminator="type")]


class SystemMessage(Asked):
    """What holds for the whole conversation; it is put before the user's first text."""

    role: Literal["system", "developer"]
    content: str | list[TextPart]
    name: Name | None = None


class UserMessage(Asked):
    """A question."""

    role: Literal["user"]
    content: str | list[UserPart]
    name: Name | None = None


class SaidBefore(Asked):
    """An earlier answer that was spoken: its id, or all of it as it came."""

    id: Name
    data: str | None = None
    expires_at: Annotated[int, WHOLE] | None = None
    transcript: str | None = None


class AssistantMessage(Asked):
    """An earlier answer. What an answer of this server has may be sent back as it is."""

    role: Literal["assistant"]
    content: str | list[TextPart] | None = None
    audio: SaidBefore | None = None
    name: Name | None = None
    refusal: None = None
    annotations: Annotated[list[Name], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[Name], Field(max_length=0)] | None = None
    function_call: None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class AudioOut(Asked):
    """How the answer is to sound."""

    voice: Voice
    format: AudioFormat


class StreamOptions(Asked):
    """What a stream has beside the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextFormat(Asked):
    """The one form of answers."""

    type: Literal["text"]


class ChatRequest(Asked):
    """A conversation, and how it is to be answered."""

    model: ModelName
    messages: list[Message] = Field(min_length=1)
    modalities: Annotated[list[Literal["text", "audio"]], Field(min_length=1, max_length=2)] | None = None
    audio: AudioOut | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1), WHOLE] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1), WHOLE] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, description="default 0: the likeliest token")] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-SEED, le=SEED, description="default: a drawn one"), WHOLE] | None = None
    stop: (
        Annotated[str, Field(min_length=1, max_length=200)]
        | Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(max_length=4)]
        | None
    ) = None
    n: Annotated[int, Field(ge=1, le=128), WHOLE] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None
    logit_bias: (
        Annotated[
            dict[Annotated[str, Field(pattern="^[0-9]{1,6}$")], Annotated[float, Field(ge=-100, le=100)]],
            Field(max_length=1024, json_schema_extra={"additionalProperties": False}),
        ]
        | None
    ) = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    details: bool | None = Field(default=None, description="also tell what the model read; not part of OpenAI's API")

    # Taken because they change nothing here.
    response_format: TextFormat | None = None
    tools: Annotated[list[Name], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none"] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


# Parameters of OpenAI's API that this model cannot follow, which is not the same as an unknown one.
IMPOSSIBLE = (
    *("functions", "function_call", "instructions", "prediction", "web_search_options", "verbosity", "moderation"),
)
