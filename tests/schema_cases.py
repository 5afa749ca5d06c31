"""Requests that the server's OpenAPI document allows, and ones that it forbids, sent to a running server.

schemathesis draws them from the document. What it draws for a model's name, a picture or a recording would all be
refused, so most of those are replaced by ones that exist: what lies behind is to be reached, too.
"""

import base64
import json
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from pydantic import ValidationError
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import asked, png, sound

from muomni.serve.schema import Error
from muomni.serve.schema_answer import ChatChunk
from muomni.serve.schema_audio import SpeechEvent, TranscriptionEvent

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Of all cases; a route that is not named here and takes something gets one in fifty.
SHARES = {"/v1/chat/completions": 0.65, "/v1/audio/speech": 0.2, "/v1/audio/transcriptions": 0.15}
EVENTS = {
    "/v1/chat/completions": ChatChunk,
    "/v1/audio/speech": SpeechEvent,
    "/v1/audio/transcriptions": TranscriptionEvent,
}
REAL = 0.8  # of the names, pictures and recordings that are replaced
PICTURE = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
SOUNDS = {kind: base64.b64encode(sound(0.3, kind=kind.upper())).decode() for kind in ("wav", "mp3", "flac")}
WAV = sound(0.3)


@dataclass
class Report:
    """What came of the cases.

    Attributes:
        answers: how many of each status, by route.
        faults: what was wrong, each with its request.
    """

    answers: dict[str, Counter[int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many were sent."""
        return sum(sum(counts.values()) for counts in self.answers.values())


def existing(value: Any, rng: random.Random, allowed: bool) -> Any:
    """A body with a model, pictures and recordings that exist in the place of most that do not.

    Args:
        value: the body, or a part of it.
        rng: draws which.
        allowed: whether the document allows the body; what makes another wrong must stay.
    """
    if isinstance(value, list):
        return [existing(one, rng, allowed) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: existing(one, rng, allowed) for name, one in value.items()}
    if rng.random() < REAL:
        if isinstance(found.get("model"), str) and found["model"]:
            found["model"] = "muomni"
        if isinstance(found.get("url"), str) and found["url"]:
            found["url"] = PICTURE
        if isinstance(found.get("data"), str) and found["data"] and found.get("format") in SOUNDS:
            found["data"] = SOUNDS[found["format"]]
        if isinstance(found.get("voice"), str) and found["voice"]:
            found["voice"] = "hibari"
        if allowed and found.get("file"):
            found["file"] = WAV
        if allowed and isinstance(found.get("messages"), list):
            found |= fitting(found)
    return found


def fitting(body: dict[str, Any]) -> dict[str, Any]:
    """What makes the parts of a chat fit to each other, which the document cannot tell."""
    found: dict[str, Any] = {"messages": [*body["messages"], *asked("What is it?")]}
    if body["messages"] and isinstance(body["messages"][0], dict) and body["messages"][0].get("role") == "assistant":
        found["messages"] = found["messages"][1:]
    if body.get("top_logprobs") is not None:
        found["logprobs"] = True
    if body.get("stream_options") is not None:
        found["stream"] = True
    if body.get("audio") is not None:
        found["modalities"] = ["text", "audio"]
    elif body.get("modalities") is not None:
        found["modalities"] = ["text"]
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        found["max_tokens"] = body["max_completion_tokens"]
    return found


def wrong_events(path: str, text: str) -> Iterator[str]:
    """What is wrong with server-sent events."""
    for event in text.strip().split("\n\n"):
        data = event.removeprefix("data: ")
        if data == "[DONE]":
            continue
        try:
            values = json.loads(data)
            (Error if "error" in values else EVENTS[path]).model_validate(values)
            if "error" in values and values["error"]["code"] == "internal_error":
                yield f"the server failed while it sent: {data[:300]}"
        except (ValueError, ValidationError) as error:
            yield f"no event of the document: {data[:300]} ({error})"


def send(case: Case, url: str, rng: random.Random, report: Report) -> None:
    """Send one case and note what came."""
    assert case.meta is not None
    allowed = case.meta.generation.mode is GenerationMode.POSITIVE
    if isinstance(case.body, dict):
        case.body = existing(case.body, rng, allowed)
    answer = case.call(base_url=url)
    path = case.operation.path
    report.answers.setdefault(path, Counter())[answer.status_code] += 1
    try:
        case.validate_response(answer, checks=CHECKS if allowed else [*CHECKS, negative_data_rejection])
    except (Exception, BaseExceptionGroup) as error:  # a class for each kind of failure, and groups of them
        report.faults.append(f"{case.method} {path} {answer.status_code}: {str(error)[:2000]}")
    if answer.status_code == 200 and answer.headers["content-type"][0].startswith("text/event-stream"):
        report.faults += [f"{path}: {wrong}" for wrong in wrong_events(path, answer.text)]


def examine(url: str, cases: int, seed: int) -> Report:
    """Send cases to a server.

    Args:
        url: of it.
        cases: how many, about.
        seed: of what is drawn.
    """
    report, rng = Report(), random.Random(seed)
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()
        share = SHARES.get(operation.path, 0.02 if "{" in operation.path else 0.0)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.POSITIVE or operation.path in SHARES:
                draw(operation, mode, max(1, round(cases * share / 2)), url, seed, rng, report)
    return report


def draw(
    operation: APIOperation,
    mode: GenerationMode,
    count: int,
    url: str,
    seed: int,
    rng: random.Random,
    report: Report,
) -> None:
    """Draw cases of one route and send them."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def sent(case: Case) -> None:
        send(case, url, rng, report)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sent()
