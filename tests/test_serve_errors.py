"""What is refused: in the API's own form, with its status, naming the field or the limit."""

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from serving import Place, asked, audio_part, image_part, png, refused, running, sound

from muomni.serve.schema import Error
from muomni.serve.settings import Limits, Settings

LIMITS = Limits(
    body=200_000,
    messages=6,
    characters=300,
    pictures=2,
    picture=5000,
    pixels=5000,
    recordings=2,
    seconds=2.0,
    choices=3,
)
KEY = "a-key-of-the-tests"


@pytest.fixture(scope="module")
def place(checkpoint: Path) -> Iterator[Place]:
    with running(checkpoint, Settings(limits=LIMITS), slots=4) as place:
        yield place


URL = "messages[0].content[0].image_url.url"


def at(url: str) -> dict[str, Any]:
    """A picture at an address, in a message."""
    return {"messages": asked({"type": "image_url", "image_url": {"url": url}})}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages"),
    ({"messages": "Hello"}, "messages"),
    ({"messages": [{"role": "tool", "content": "Hello"}]}, "messages[0]"),
    ({"messages": [{"role": "assistant", "content": "Hello"}]}, "messages[0]"),
    ({"messages": [*asked("Hello"), {"role": "assistant", "content": "Hello"}]}, "messages[1]"),
    ({"messages": asked({"type": "video", "video": "x"})}, "messages[0].content[0]"),
    ({"messages": asked({"type": "text"})}, "messages[0].content[0].text"),
    ({"messages": asked({"type": "text", "text": 5})}, "messages[0].content[0].text"),
    ({"messages": asked("")}, "messages"),
    ({"messages": asked(image_part(b"hello"))}, URL),
    (at("data:image/png;base64,@"), URL),
    (at("data:text/html;base64,aaaa"), URL),
    (at("http://127.0.0.1/a.png"), URL),
    (at("file:///etc/passwd"), URL),
    ({"messages": asked("x", audio_part(b"hello"))}, "messages[0].content[1].input_audio.data"),
    ({"messages": asked(audio_part(sound(0.1), "ogg"))}, "messages[0].content[0].input_audio.format"),
    ({"temperature": 3}, "temperature"),
    ({"temperature": "warm"}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"seed": 2**70}, "seed"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"logit_bias": {"9999": 1}}, "logit_bias"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"modalities": ["text", "audio"]}, "audio"),
    ({"audio": {"voice": "hibari", "format": "wav"}}, "modalities"),
    ({"modalities": ["text", "audio"], "audio": {"voice": "bob", "format": "wav"}}, "audio.voice"),
    ({"modalities": ["text", "audio"], "audio": {"voice": "hibari", "format": "wav"}, "stream": True}, "audio.format"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format.type"),
    ({"functions": []}, "functions"),
    ({"colour": "red"}, "colour"),
    # Limits.
    ({"messages": asked("Hello") * 7}, "messages"),
    ({"messages": asked("a" * 301)}, "messages"),
    ({"messages": asked("a" * 151, "a" * 150)}, "messages"),
    ({"messages": asked(*[image_part(png())] * 3)}, "messages"),
    ({"messages": asked(*[audio_part(sound(0.1))] * 3)}, "messages"),
    ({"messages": asked(image_part(png(size=(80, 80))))}, URL),
    ({"messages": asked(image_part(png() + bytes(5000)))}, URL),
    ({"messages": asked(audio_part(sound(2.1)))}, "messages[0].content[0].input_audio.data"),
    ({"messages": asked(*[audio_part(sound(1.1))] * 2)}, "messages[0].content[1].input_audio.data"),
    ({"n": 4}, "n"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param"), BAD, ids=lambda value: str(value)[:40])
def test_bad_requests_name_the_field(place: Place, body: dict[str, Any], param: str) -> None:
    error = refused(place, **body)
    assert error["param"] == param and error["type"] == "invalid_request_error" and error["code"]
    assert place.house.current.leases == 0 and place.house.current.engine.active == 0


def test_limits_are_named_with_their_option(place: Place) -> None:
    for body, option in (
        ({"messages": asked("Hello") * 7}, "--messages"),
        ({"messages": asked(image_part(png(size=(80, 80))))}, "--pixels"),
        ({"messages": asked(audio_part(sound(2.1)))}, "--sound-seconds"),
        ({"n": 4}, "--choices"),
    ):
        error = refused(place, **body)
        assert option in error["message"] and error["code"] == "limit_exceeded"


def test_a_question_that_is_too_long_says_so(checkpoint: Path) -> None:
    with running(checkpoint) as place:
        error = refused(place, messages=asked("word " * 200))
        assert error["code"] == "context_length_exceeded" and "160" in error["message"]


def test_what_clients_send_without_a_meaning_here_is_taken(place: Place) -> None:
    answer = place.client().chat.completions.create(
        model="muomni", messages=[{"role": "user", "content": "Hello", "name": "Ada"}], user="ada", store=False,
        metadata={"a": "b"}, service_tier="auto", response_format={"type": "text"}, tool_choice="none", tools=[],
        parallel_tool_calls=True, max_tokens=2,
    )  # fmt: skip
    assert answer.choices[0].message.role == "assistant"


def test_the_client_raises_its_own_exceptions(place: Place) -> None:
    client = place.client()
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="muomni", messages=asked("Hello"), temperature=9)
    assert bad.value.param == "temperature" and bad.value.code == "invalid_value"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=asked("Hello"))
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4o")
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="muomni", input="Hello")


def test_faults_of_http_have_the_same_form(place: Place) -> None:
    chat = f"{place.url}/v1/chat/completions"
    kind = {"content-type": "application/json"}
    broken = json.dumps({"model": "muomni", "messages": asked("\ud800"), "\udc00\ud800": 1}).encode()
    for answer, status in (
        (httpx.get(f"{place.url}/v1/nothing"), 404),
        (httpx.get(chat), 405),
        (httpx.post(chat, content=b"{", headers=kind), 400),
        (httpx.post(chat, content=b"\xff", headers=kind), 400),
        (httpx.post(chat, content=b"[" * 100_000, headers=kind), 400),
        (httpx.post(chat, content=b"1" * 10_000, headers=kind), 400),
        (httpx.post(chat, content=b"", headers=kind), 400),
        (httpx.post(chat, content=b"{}", headers={"content-type": "text/plain"}), 415),
        (httpx.post(f"{place.url}/v1/audio/transcriptions", json={}), 415),
        (httpx.post(chat, content=broken, headers=kind), 400),
        (httpx.post(chat, content=b"x" * 200_001, headers=kind), 413),
        (httpx.post(chat, content=iter([b"x" * 150_000] * 2), headers=kind), 413),
    ):
        assert answer.status_code == status, (status, answer.text)
        Error.model_validate(answer.json())
        assert answer.headers["content-type"] == "application/json"
    assert httpx.get(chat).headers["allow"] == "POST"


def test_a_body_has_a_time_to_come_in(checkpoint: Path) -> None:
    limits = Limits(upload_s=0.2)
    with (
        running(checkpoint, Settings(limits=limits)) as place,
        socket.create_connection(("127.0.0.1", place.port), 20) as raw,
    ):
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{place.port}\r\n"
        raw.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_an_answer_has_a_time_to_come(checkpoint: Path) -> None:
    with running(checkpoint, Settings(limits=Limits(request_s=0.0))) as place:
        assert refused(place, 503)["code"] == "timeout"
        body = {"model": "muomni", "messages": asked("Hello"), "stream": True}
        answer = httpx.post(f"{place.url}/v1/chat/completions", json=body)
        assert answer.status_code == 200 and '"code":"timeout"' in answer.text and "[DONE]" not in answer.text
        with pytest.raises(openai.APIError):
            list(place.client().chat.completions.create(model="muomni", messages=asked("Hello"), stream=True))
        place.until(lambda: place.house.current.engine.active == 0)


# Who may ask


def test_who_has_no_key_gets_nothing(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    with running(checkpoint, Settings(key=KEY)) as place:
        with pytest.raises(openai.AuthenticationError) as wrong:
            place.client("another-key").models.list()
        assert wrong.value.code == "invalid_api_key"
        assert place.client(KEY).chat.completions.create(model="muomni", messages=asked("Hi"), max_tokens=1).choices
        bare = httpx.get(f"{place.url}/v1/models")
        assert bare.status_code == 401 and bare.headers["www-authenticate"] == "Bearer"
        Error.model_validate(bare.json())
        assert httpx.get(f"{place.url}/metrics").status_code == 401
        assert httpx.get(f"{place.url}/v1/models", headers={"authorization": b"Bearer \xff"}).status_code == 401
        assert httpx.get(f"{place.url}/healthz").status_code == 200
        assert httpx.get(f"{place.url}/openapi.json").json()["paths"]["/v1/models"]["get"]["security"]
    assert KEY not in caplog.text and KEY not in repr(Settings(key=KEY))


def test_other_names_and_pages_are_refused(place: Place) -> None:
    url = f"{place.url}/v1/models"
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}):
        answer = httpx.get(url, headers=headers)
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "foreign_host"
    own = {"host": f"localhost:{place.port}", "origin": f"http://localhost:{place.port}"}
    assert httpx.get(url, headers=own).status_code == 200


def test_base64_is_not_guessed(place: Place) -> None:
    text = base64.b64encode(sound(0.1)).decode()
    for data in (text[:-3], f" {text}", "\u00e9" * 8):
        part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
        assert refused(place, messages=asked(part))["param"] == "messages[0].content[0].input_audio.data"
