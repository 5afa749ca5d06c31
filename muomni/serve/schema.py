"""Forms that several routes share: what a client may send is checked, what it gets is described."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SEED = 2**63 - 1


class Asked(BaseModel):
    """A part of a request: nothing else may be in it, and nothing is taken for another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Told(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(allow_inf_nan=False)


def whole(value: Any) -> Any:
    """JSON knows one kind of number: 3.0 is an integer there."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(whole)  # after the bounds of a field, or the document would lose them


class VoiceId(Asked):
    """A voice as an object."""

    id: str = Field(min_length=1, max_length=200)


Voice = Annotated[str, Field(min_length=1, max_length=200)] | VoiceId
ModelName = Annotated[str, Field(min_length=1, max_length=200, description="`muomni`, or what /v1/models lists")]


class ErrorDetail(Told):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class Error(Told):
    """Every failure has this form."""

    error: ErrorDetail


class Model(Told):
    """A model that can be asked, and the voices it has learned, which OpenAI's own do not tell."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "muomni"
    voices: list[str]


class ModelList(Told):
    """All models: one."""

    object: Literal["list"] = "list"
    data: list[Model]


class PromptDetails(Told):
    """Positions of a prompt by kind."""

    text_tokens: int
    image_tokens: int
    audio_tokens: int
    cached_tokens: int = 0


class CompletionDetails(Told):
    """What was made: tokens of text, and frames of speech, 50 a second."""

    text_tokens: int
    audio_tokens: int
    reasoning_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(Told):
    """What an answer took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Health(Told):
    """Whether the server lives, or takes requests."""

    status: str
