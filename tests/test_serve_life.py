"""How a server lives: clients that leave, a full queue, a stop, and another model in the place of the old."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving import Place, asked, held, running
from small_models import small_omni

from muomni.checkpoint import CARD, make_card, save_checkpoint
from muomni.errors import UserError
from muomni.generate import Session, last
from muomni.omni import Omni
from muomni.serve.house import House, Source
from muomni.serve.settings import Settings
from muomni.tokenizer import MODEL_FILE, Tokenizer

BODY = {"model": "muomni", "messages": asked("What is it?")}


@pytest.fixture
def place(checkpoint: Path) -> Iterator[Place]:
    with running(checkpoint, slots=1, queue=2) as place:
        yield place


def chat(place: Place, **more: object) -> httpx.Response:
    return httpx.post(f"{place.url}/v1/chat/completions", json=BODY | more, timeout=60)


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


def value(place: Place, name: str, **labels: str) -> float:
    """A figure of /metrics, all of its labels summed."""
    text = httpx.get(f"{place.url}/metrics").text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


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


# Another model


def put(folder: Path, tokenizer: Tokenizer, seed: int) -> Omni:
    """A checkpoint of other weights."""
    model = small_omni(seed)
    vocabulary = folder.parent / MODEL_FILE
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(vocabulary)
    card = make_card("omni", model, data={}, params={"seed": seed}, metrics={}, seconds=0.0)
    save_checkpoint(folder, model.state_dict(), model.cfg.model_dump(mode="json"), card, {MODEL_FILE: vocabulary})
    return model


def answer_of(model: Omni, tokenizer: Tokenizer) -> str:
    return last(Session(model, tokenizer).ask("What is it?", max_tokens=160)).text


def test_another_model_takes_the_place_without_a_request_lost(small: tuple[Omni, Tokenizer], tmp_path: Path) -> None:
    tokenizer, folder = small[1], tmp_path / "omni"
    texts = [answer_of(put(folder, tokenizer, 0), tokenizer)]
    with running(folder, slots=2, queue=100, check_every=0.02) as place:
        prints, stop = [place.house.current.fingerprint], threading.Event()

        async def ask() -> list[tuple[str, str]]:
            found = []
            async with openai.AsyncOpenAI(base_url=f"{place.url}/v1", api_key="none", max_retries=0) as client:
                while not stop.is_set():
                    answer = await client.chat.completions.create(**BODY)
                    found.append((answer.system_fingerprint, answer.choices[0].message.content))
            return found

        async def all_of_them() -> list[tuple[str, str]]:
            return [one for found in await asyncio.gather(*(ask() for _ in range(6))) for one in found]

        with ThreadPoolExecutor(1) as threads:
            asking = threads.submit(asyncio.run, all_of_them())
            for change in (1, 2):
                old = place.house.current.engine
                place.until(lambda old=old: old.written > 0)
                texts.append(answer_of(put(folder, tokenizer, change), tokenizer))
                place.until(lambda change=change: place.house.changes == change)
                prints.append(place.house.current.fingerprint)
                place.until(lambda old=old: not old.working and not old.replies)
            place.until(lambda: place.house.current.engine.written > 0)
            stop.set()
            found = asking.result(30)
        right = dict(zip(prints, texts, strict=True))
        assert len(set(prints)) == len(set(texts)) == 3
        assert {name for name, _ in found} == set(prints)
        assert all(right[name] == text for name, text in found)
        assert value(place, "muomni_model_changes") == 2
        assert value(place, "muomni_requests_total", status="200", route="/v1/chat/completions") == len(found)


def test_requests_that_still_read_their_pictures_keep_their_model(
    small: tuple[Omni, Tokenizer], tmp_path: Path
) -> None:
    folder = tmp_path / "omni"
    put(folder, small[1], 0)
    with running(folder, slots=2) as place, ThreadPoolExecutor(1) as threads:
        old, busy = place.house.current, threading.Event()
        for _ in range(2):
            place.hall.workers.pool.submit(busy.wait, 30)  # both threads, so that the request waits for one
        begun = threads.submit(chat, place)
        place.until(lambda: old.leases == 1)
        put(folder, small[1], 1)
        assert place.run(place.house.check()) and place.house.current is not old
        assert old.engine.open
        busy.set()
        assert begun.result().json()["system_fingerprint"] == old.fingerprint
        place.until(lambda: not old.engine.working)
        assert chat(place).json()["system_fingerprint"] == place.house.current.fingerprint


def test_a_model_that_is_broken_changes_nothing(
    small: tuple[Omni, Tokenizer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "omni"
    put(folder, small[1], 0)
    with running(folder, slots=2) as place:
        before = chat(place).json()
        card = json.loads((folder / CARD).read_text())
        (folder / CARD).write_text(json.dumps(card | {"weights_sha256": "0" * 64}))
        for _ in range(3):
            assert not place.run(place.house.check())
        assert caplog.text.count("the model stays as it is") == 1
        assert chat(place).json()["choices"] == before["choices"] and httpx.get(f"{place.url}/readyz").is_success
        put(folder, small[1], 1)
        assert place.run(place.house.check())
        assert chat(place).json()["system_fingerprint"] != before["system_fingerprint"]


def test_a_champion_that_moves_is_followed(
    small: tuple[Omni, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines.sender import tracking_uri

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / "state"))
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri())
    client.create_registered_model("muomni")
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        put(folder / "artifacts/omni", small[1], seed)
        client.create_model_version("muomni", folder.as_uri())
    client.set_registered_model_alias("muomni", "champion", "1")

    async def followed() -> list[str]:
        house = House(Source("models:/muomni@champion", registered=True, slots=1))
        prints = [house.current.fingerprint]
        assert not await house.check()
        client.set_registered_model_alias("muomni", "champion", "2")
        assert await house.check()
        prints.append(house.current.fingerprint)
        await house.stop(10)
        return prints

    assert len(set(asyncio.run(followed()))) == 2
