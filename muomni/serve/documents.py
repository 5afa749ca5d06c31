"""What the OpenAPI document says beside the types: every status that a route answers with, and other media types."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from muomni import __version__
from muomni.serve import schema
from muomni.serve.errors import ApiError
from muomni.serve.schema_answer import ChatAnswer, ChatChunk
from muomni.serve.schema_audio import SpeechEvent, Transcription, TranscriptionEvent, VerboseTranscription
from muomni.serve.sounds import MEDIA

WAIT = {"Retry-After": {"description": "seconds", "required": True, "schema": {"type": "string"}}}
ASK = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
FAILURES: dict[int, str] = {
    400: "a value that cannot be used; `param` names it",
    401: "no API key, or a wrong one",
    403: "a foreign Host or Origin",
    404: "no such model",
    408: "the body did not come in time",
    413: "the body is too large",
    415: "the body is not of the type that is taken",
    429: "the queue is full",
    500: "the server failed",
    503: "the server stops, or the answer took too long",
}
HEADERS: dict[int, Mapping[str, Any]] = {401: ASK, 429: WAIT}
PLACE = "#/components/schemas/{model}"  # of a type in the document
EVENTS = (ChatChunk, SpeechEvent, TranscriptionEvent)
DESCRIPTION = "A server for muOmni, for clients of OpenAI's API. docs/serving.md says what differs."


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The descriptions of errors, for a route; of all that asking the model may end in, if none is named."""
    return {
        status: {"model": schema.Error, "description": FAILURES[status]}
        | ({"headers": HEADERS[status]} if status in HEADERS else {})
        for status in statuses or FAILURES
    }


def events(form: type[BaseModel], last: str | None = None) -> dict[str, Any]:
    """The media type of server-sent events, each of which is an object, as OpenAPI 3.2 has it.

    Args:
        form: of what is in them.
        last: what the last one has in its place.
    """
    forms = [{"$ref": PLACE.format(model=name)} for name in (form.__name__, schema.Error.__name__)]
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": forms}}
    whole: dict[str, Any] = data if last is None else {"anyOf": [{"const": last}, data]}
    item = {"type": "object", "properties": {"data": whole}, "required": ["data"]}
    return {"text/event-stream": {"itemSchema": item}}


def chat_answer() -> dict[str, Any]:
    """What comes from a conversation."""
    return {"model": ChatAnswer, "description": "the answer", "content": events(ChatChunk, "[DONE]")}


def speech_answer() -> dict[str, Any]:
    """What comes from a text that is read aloud."""
    files = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in dict.fromkeys(MEDIA.values())}
    return {"description": "the speech", "content": files | events(SpeechEvent)}


def transcription_answer() -> dict[str, Any]:
    """What comes from a recording."""
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "model": Transcription | VerboseTranscription,
        "description": "what was said",
        "content": text | events(TranscriptionEvent),
    }


async def JSON_BODY(request: Request) -> None:  # noqa: N802  # a constant for `Depends`
    """Refuse a body of another type."""
    need(request, "application/json")


async def FORM_BODY(request: Request) -> None:  # noqa: N802
    """Refuse a body of another type."""
    need(request, "multipart/form-data")


def need(request: Request, kind: str) -> None:
    """Raise `ApiError` unless a body is of a type."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != kind:
        raise ApiError(415, f"the body is {given[:60] or 'of no type'}; send {kind}", None, "unsupported_media_type")


def document(app: FastAPI, key: bool) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's without what never happens here, and with the key where one is asked for."""
    made = get_openapi(title="muOmni", version=__version__, description=DESCRIPTION, routes=app.routes)
    for path, methods in made["paths"].items():
        for operation in methods.values():
            operation["responses"].pop("422", None)  # faults of form are status 400
            if key and f"{path}/".startswith(("/v1/", "/metrics")):
                operation["security"] = [{"key": []}]
    schemas = made.get("components", {}).get("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for name, form_schema in schemas.items():
        if name.startswith("Body_"):  # of a form, whose other fields are refused
            form_schema["additionalProperties"] = False
    for form in EVENTS:  # no route has them as its body, so FastAPI leaves them out
        made_of = form.model_json_schema(ref_template=PLACE, mode="serialization")
        schemas |= made_of.pop("$defs", {}) | {form.__name__: made_of}
    if key:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return made
