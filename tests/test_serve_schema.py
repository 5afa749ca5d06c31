"""The OpenAPI document is true: whatever it allows or forbids is answered as it says."""

import secrets
from pathlib import Path

import httpx
import pytest
from schema_cases import examine
from serving import running

CASES = 150


def test_every_answer_is_one_of_the_document(checkpoint: Path) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    with running(checkpoint, slots=4) as place:
        report = examine(place.url, CASES, seed)
    assert not report.faults, "\n".join(report.faults[:3])
    assert report.cases > CASES // 2
    assert sum(counts[200] for counts in report.answers.values()) > CASES // 20
    assert not any(status >= 500 for counts in report.answers.values() for status in counts)


def test_the_document_names_every_route_and_its_errors(checkpoint: Path) -> None:
    with running(checkpoint, slots=1) as place:
        document = httpx.get(f"{place.url}/openapi.json").json()
        assert httpx.get(f"{place.url}/docs").status_code == 404  # its page would load from other hosts
    posts = {path: methods["post"] for path, methods in document["paths"].items() if "post" in methods}
    assert set(posts) == {"/v1/chat/completions", "/v1/audio/speech", "/v1/audio/transcriptions"}
    for operation in posts.values():
        codes = {"200", "400", "401", "403", "404", "408", "413", "415", "429", "500", "503"}
        assert set(operation["responses"]) == codes
        for code in codes - {"200"}:
            error = operation["responses"][code]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/Error"}
        assert "text/event-stream" in operation["responses"]["200"]["content"]
    assert "audio/mpeg" in posts["/v1/audio/speech"]["responses"]["200"]["content"]
    assert "ValidationError" not in document["components"]["schemas"]
    assert "ChatChunk" in document["components"]["schemas"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_told_which_one_to_use(checkpoint: Path, method: str) -> None:
    with running(checkpoint, slots=1) as place:
        answer = httpx.request(method, f"{place.url}/v1/audio/speech")
        assert answer.status_code == 405 and answer.headers["allow"] == "POST"
