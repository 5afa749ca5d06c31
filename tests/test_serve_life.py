"""How a server lives: clients that leave, a full queue, what is counted, and how it stops."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from serving import BODY, Place, chat, held, running, value

from muomni.errors import UserError
from muomni.serve.settings import Settings
from muomni.serve.streams import Stream


@pytest.fixture
def place(checkpoint: Path) -> Iterator[Place]:
    with running(checkpoint, slots=1, queue=2) as place:
        yield place


def sent(place: Place, path: str, body: dict) -> socket.socket:
    """A request on a connection of its own, which the client can leave."""
    data = json.dumps(body).encode()
    raw = socket.create_connection(("127.0.0.1", place.port), 20)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost:{place.port}\r\nContent-Type: application/json\r\n"
    raw.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return raw


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_nobody_waits_for_is_not_made(place: Place, stream: bool) -> None:
    engine = place.house.current.engine
    with held(engine) as free:
        raw = sent(place, "/v1/chat/completions", BODY | {"stream": stream, "n": 2})
        place.until(lambda: len(engine.replies) == 2)
        if stream:
            assert raw.recv(100).startswith(b"HTTP/1.1 200")
        raw.close()
        place.until(lambda: place.house.current.leases == 0)  # while the model stands still
        assert place.app.state.gate.asking == 0
        free.set()
        place.until(lambda: engine.active == 0 and engine.queued == 0)
    assert engine.written == 0 and chat(place).status_code == 200


def test_speech_that_nobody_hears_is_not_made(place: Place) -> None:
    engine = place.house.current.engine
    body = {"model": "muomni", "voice": "hibari", "input": "There are two dogs. " * 100, "response_format": "pcm"}
    raw = sent(place, "/v1/audio/speech", body)
    assert raw.recv(100).startswith(b"HTTP/1.1 200")
    raw.close()
    place.until(lambda: engine.active == 0 and place.house.current.leases == 0)
    assert value(place, "muomni_completion_tokens_total", kind="audio") == 0


def test_a_full_queue_says_when_to_come_again(place: Place) -> None:
    engine, gate = place.house.current.engine, place.app.state.gate
    with held(engine) as free, ThreadPoolExecutor(3) as threads:
        begun = [threads.submit(chat, place) for _ in range(3)]
        place.until(lambda: gate.asking == 3 and len(engine.replies) == 3)
        with pytest.raises(openai.RateLimitError) as busy:
            place.client().chat.completions.create(**BODY)
        assert busy.value.code == "queue_full" and int(busy.value.response.headers["retry-after"]) >= 1
        assert value(place, "muomni_queue") == 2 and value(place, "muomni_slots_active") == 1
        free.set()
        answers = [one.result() for one in begun]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    many = chat(place, n=4)  # more than the slot and the queue hold: none of them is begun
    assert many.status_code == 429 and many.headers["retry-after"] and not engine.replies
    assert chat(place, n=3).status_code == 200


def test_metrics_count_what_happened(place: Place) -> None:
    answer = chat(place, max_tokens=5).json()
    chat(place, temperature=9)
    httpx.get(f"{place.url}/nothing/here")
    route = "/v1/chat/completions"
    assert value(place, "muomni_requests_total", route=route, status="200") == 1
    assert value(place, "muomni_requests_total", route=route, status="400") == 1
    assert value(place, "muomni_requests_total", route="other", status="404") == 1
    assert value(place, "muomni_prompt_tokens_total", kind="text") == answer["usage"]["prompt_tokens"]
    assert value(place, "muomni_completion_tokens_total") == answer["usage"]["completion_tokens"]
    assert value(place, "muomni_first_token_seconds_count", route=route) == 1
    assert value(place, "muomni_model_info", fingerprint=answer["system_fingerprint"]) == 1
    assert value(place, "muomni_requests_in_progress") == 1  # the one that asks


def test_a_fault_of_the_model_ends_what_it_was_at_and_nothing_else(place: Place) -> None:
    engine = place.house.current.engine
    step = engine.writer.step
    for fault in (RuntimeError("a secret"), UserError("not a finite number")):

        def broken(fault: Exception = fault) -> None:
            raise fault

        engine.writer.step = broken  # type: ignore[method-assign]
        with pytest.raises(openai.InternalServerError) as caught:
            place.client().chat.completions.create(**BODY)
        assert caught.value.code == "internal_error" and "secret" not in str(caught.value)
        streamed = chat(place, stream=True)
        assert streamed.status_code == 200 and '"code":"internal_error"' in streamed.text
        engine.writer.step = step  # type: ignore[method-assign]
        assert chat(place).status_code == 200
    assert value(place, "muomni_requests_total", status="500") == 2


def test_who_reads_too_slowly_is_left() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"more"

    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    closed = list[bool]()
    stream = Stream(endless(), "text/plain", lambda: closed.append(True), 0.05)
    asyncio.run(stream({"type": "http", "asgi": {"spec_version": "2.3"}}, never, never))
    assert closed == [True]


# Stop


def test_a_stop_finishes_what_was_begun_and_takes_nothing_new(checkpoint: Path) -> None:
    with running(checkpoint, slots=2) as place, ThreadPoolExecutor(1) as threads:
        engine = place.house.current.engine
        with held(engine) as free:
            begun = threads.submit(chat, place, stream=True)
            place.until(lambda: len(engine.replies) == 1)
            assert httpx.get(f"{place.url}/readyz").status_code == 200
            place.server.handle_exit(signal.SIGTERM, None)
            ready = httpx.get(f"{place.url}/readyz")
            assert ready.status_code == 503 and ready.json()["error"]["code"] == "stopping"
            assert httpx.get(f"{place.url}/healthz").status_code == 200
            late = chat(place)
            assert late.status_code == 503 and late.headers["retry-after"]
            with pytest.raises(openai.InternalServerError):
                place.client().chat.completions.create(**BODY)
            free.set()
            assert begun.result().text.endswith("data: [DONE]\n\n")
        place.thread.join(20)
        assert not place.thread.is_alive()


def test_a_stop_has_an_end(checkpoint: Path) -> None:
    with running(checkpoint, Settings(grace=0.2)) as place, ThreadPoolExecutor(1) as threads:
        with held(place.house.current.engine) as free:
            begun: Future[httpx.Response] = threads.submit(chat, place)
            place.until(lambda: place.app.state.gate.asking == 1)
            place.until(lambda: bool(place.house.current.engine.replies))
            threading.Timer(0.5, free.set).start()
            place.server.handle_exit(signal.SIGTERM, None)
            answer = begun.result()
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "stopping"


def test_the_command_stops_so(checkpoint: Path) -> None:
    """A process: reads its options, tells its address, and after SIGTERM finishes a long speech."""
    command = [sys.executable, "-m", "muomni.cli", "serve", "--checkpoint", str(checkpoint), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        assert process.stderr is not None
        url = process.stderr.readline().split(" answers at ")[1].strip()
        body = {"model": "muomni", "voice": "hibari", "input": "There are two dogs. " * 15, "response_format": "pcm"}
        with httpx.stream("POST", f"{url}/audio/speech", json=body, timeout=60) as answer:
            pieces = answer.iter_raw()
            heard = len(next(pieces))
            process.send_signal(signal.SIGTERM)
            assert process.stderr.readline().startswith("stopping")
            assert httpx.post(f"{url}/audio/speech", json=body).status_code == 503
            heard += sum(len(piece) for piece in pieces)
        assert heard > 15 * 24000  # more than half a second for each of the sentences
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--checkpoint", "nowhere"], "no trained model"),
        (["--host", "0.0.0.0"], "clients must show a key"),
        (["--host", "0.0.0.0", "--api-key-file", "nowhere"], "cannot be read"),
        (["--port", "99999"], "from 0 to 65535"),
        (["--pixels", "lots"], "expected a whole number"),
    ],
)
def test_bad_options_are_one_line(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    from muomni.cli import main

    assert main(["serve", *options]) == 2
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and said.out == ""


def test_a_key_that_can_be_guessed_or_read_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from muomni.cli import make_parser
    from muomni.serve.command import settings_of

    def key(*options: str) -> str | None:
        return settings_of(make_parser().parse_args(["serve", *options])).key

    monkeypatch.delenv("MUOMNI_API_KEY", raising=False)
    assert key() is None
    file = tmp_path / "key"
    file.write_text("a-long-enough-key\n")
    file.chmod(0o644)
    with pytest.raises(UserError, match="others can read"):
        key("--api-key-file", str(file))
    file.chmod(0o600)
    assert key("--api-key-file", str(file)) == "a-long-enough-key"
    monkeypatch.setenv("MUOMNI_API_KEY", "short")
    with pytest.raises(UserError, match="16 or more"):
        key()
    monkeypatch.setenv("MUOMNI_API_KEY", "another-long-enough-key")
    assert key("--host", "0.0.0.0") == "another-long-enough-key"
