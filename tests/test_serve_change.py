"""Another model in the place of the old, without a request lost."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from serving import BODY, chat, running, value
from small_models import small_omni

from muomni.checkpoint import CARD, make_card, save_checkpoint
from muomni.generate import Session, last
from muomni.omni import Omni
from muomni.serve.house import House, Source
from muomni.tokenizer import MODEL_FILE, Tokenizer


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
        run = client.create_run("0").info.run_id
        client.create_model_version("muomni", folder.as_uri(), run)
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
