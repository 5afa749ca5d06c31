"""The realtime interface, asked by OpenAI's own client: text, speech, pictures, transcripts, cancelling."""

import asyncio
import base64
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeServerEvent
from PIL import Image
from pydantic import TypeAdapter
from realtime_tools import Server, connected, pieces, speech, text_item
from small_models import small_omni

from muomni.checkpoint import make_card, save_checkpoint
from muomni.conversation import Conversation
from muomni.generate import Session, last
from muomni.recording import as_learned
from muomni.serve.realtime_dialogue import Limits

PUSH_TO_TALK = {"input": {"turn_detection": None}}


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[Server]:
    with Server(checkpoint, Limits()) as server:
        yield server


def official(server: Server) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="none", base_url=server.address.replace("ws", "http"))


async def until(connection: AsyncRealtimeConnection, kind: str) -> list[Any]:
    """All events up to one of a kind, each checked against the client's own types."""
    events: list[Any] = []
    while not events or events[-1].type != kind:
        data = await asyncio.wait_for(connection.recv_bytes(), 20)
        events.append(TypeAdapter(RealtimeServerEvent).validate_json(data))
    return events


def expected(server: Server, *exchanges: tuple[str, str], question: str) -> tuple[str, int]:
    """What the model answers after these exchanges, and the positions that it reads."""
    engine = server.house.current.engine
    session = Session(engine.model, engine.tokenizer)
    for asked, answered in exchanges:
        session.conversation.exchanges.append((session.conversation.message(asked), answered))
    prompt = session.conversation.prompt(session.conversation.message(question), 8)
    return last(session.ask(question, max_tokens=8)).text, prompt.x.shape[1]


def test_text_turns_with_the_official_client(server: Server) -> None:
    async def talk() -> None:
        async with official(server).realtime.connect(model="muomni") as connection:
            (created,) = await until(connection, "session.created")
            assert created.session.model == "muomni" and created.session.output_modalities == ["audio"]
            await connection.session.update(
                session={"type": "realtime", "output_modalities": ["text"], "max_output_tokens": 8}
            )
            (changed,) = await until(connection, "session.updated")
            assert changed.session.output_modalities == ["text"] and changed.session.max_output_tokens == 8
            assert changed.session.audio.input.turn_detection.type == "server_vad", "what was not named stays"
            said = []
            for question in ("two pears", "Where is the cat?"):
                await connection.conversation.item.create(item=text_item(question))
                await connection.response.create()
                events = await until(connection, "response.done")
                deltas = "".join(e.delta for e in events if e.type == "response.output_text.delta")
                (done,) = (e for e in events if e.type == "response.output_text.done")
                text, positions = expected(server, *said, question=question)
                assert deltas == done.text == text
                response = events[-1].response
                assert response.output[0].content[0].text == text
                assert response.usage.input_tokens == response.usage.input_token_details.text_tokens == positions
                assert response.status_details.reason == "max_output_tokens" and response.usage.output_tokens == 8
                said.append((question, text))

    asyncio.run(talk())


def test_a_spoken_turn_with_the_official_client(server: Server) -> None:
    async def talk() -> None:
        async with official(server).realtime.connect(model="muomni") as connection:
            await connection.session.update(
                session={"type": "realtime", "audio": {"input": {"transcription": {"model": "muomni"}}}}
            )
            for piece in pieces(speech("What is above the cat?")):
                await connection.input_audio_buffer.append(audio=piece)
            events = await until(connection, "response.done")
            if not any("transcription" in e.type for e in events):
                events += await until(connection, "conversation.item.input_audio_transcription.completed")
        by_kind = {e.type: e for e in events}
        started, stopped = (by_kind[f"input_audio_buffer.speech_{what}"] for what in ("started", "stopped"))
        assert 100 <= started.audio_start_ms <= 300, "half a second of silence less 300 ms of padding"
        assert started.item_id == stopped.item_id == by_kind["input_audio_buffer.committed"].item_id
        transcript = by_kind["conversation.item.input_audio_transcription.completed"]
        assert transcript.item_id == started.item_id and transcript.usage.input_token_details.audio_tokens > 5
        response = by_kind["response.done"].response
        kinds = [e.type.removeprefix("response.") for e in events if e.type.startswith("response.")]
        assert kinds[:3] == ["created", "output_item.added", "content_part.added"]
        assert kinds[-4:] == ["output_audio_transcript.done", "content_part.done", "output_item.done", "done"]
        said = "".join(e.delta for e in events if e.type == "response.output_audio_transcript.delta")
        assert response.output[0].content[0].transcript == said
        pcm = b"".join(base64.b64decode(e.delta) for e in events if e.type == "response.output_audio.delta")
        frames = response.usage.output_token_details.audio_tokens
        assert abs(len(pcm) / 2 / 24000 - frames / 50) < 0.02 and frames > 20
        assert np.abs(np.frombuffer(pcm, "<i2")).max() > 100, "it is not silence"

    asyncio.run(talk())


def test_push_to_talk_and_a_picture(server: Server) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 30)).save(file, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

    engine = server.house.current.engine
    picture = Image.new("RGB", (40, 30))
    image_positions = len(Conversation(engine.model, engine.tokenizer).encode_pictures([picture])[0].states)

    async def talk() -> None:
        async with connected(server, audio=PUSH_TO_TALK, output_modalities=["text"], max_output_tokens=4) as client:
            image = {"type": "input_image", "image_url": address}
            await client.send("conversation.item.create", item={"type": "message", "role": "user", "content": [image]})
            await client.hear(speech("What is it?"))
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            usage = (await client.until("response.done"))["response"]["usage"]["input_token_details"]
            assert not client.of("input_audio_buffer.speech_started")
            seconds = len(speech("What is it?", before=0, after=0)) / 24000
            assert abs(usage["audio_tokens"] - seconds * 12.5) <= 1, "without the silence around it"
            assert usage["image_tokens"] == image_positions

    asyncio.run(talk())


def test_what_stands_together_is_one_question_in_the_models_order(server: Server) -> None:
    async def talk() -> None:
        async with connected(
            server, output_modalities=["text"], max_output_tokens=8, instructions="Be short."
        ) as client:
            await client.send("conversation.item.create", item=text_item("Where is the cat?"))
            await client.send("conversation.item.create", item=text_item("It is here.", "assistant"))
            await client.send("conversation.item.create", item=text_item("What"))
            await client.send("conversation.item.create", item=text_item("is it?"))
            await client.send("response.create")
            done = (await client.until("response.done"))["response"]
            said = ("Where is the cat?", "It is here.")
            text, positions = expected(server, said, question="Be short.\nWhat\nis it?")
            assert done["output"][0]["content"][0]["text"] == text
            assert done["usage"]["input_tokens"] == positions

    asyncio.run(talk())


def test_an_answer_beside_the_conversation(server: Server) -> None:
    async def talk() -> None:
        async with connected(server, output_modalities=["text"], max_output_tokens=8) as client:
            beside = {"conversation": "none", "input": [text_item("What is it?")], "metadata": {"about": "it"}}
            await client.send("response.create", response=beside)
            done = (await client.until("response.done"))["response"]
            assert done["output"][0]["content"][0]["text"] == expected(server, question="What is it?")[0]
            assert done["metadata"] == {"about": "it"} and done["conversation_id"] is None
            assert "conversation.item.added" not in client.kinds()

    asyncio.run(talk())


def test_old_turns_leave_where_the_context_is_full(server: Server) -> None:
    async def talk() -> None:
        async with connected(server, output_modalities=["text"], max_output_tokens=4) as client:
            for number in range(6):
                await client.send("conversation.item.create", item=text_item(f"Number {number}: " + "what is it? " * 4))
                await client.send("response.create")
                done = (await client.until("response.done"))["response"]
                assert done["status"] in ("completed", "incomplete"), done
                assert done["usage"]["input_tokens"] <= 156
            await client.send("conversation.item.create", item=text_item("too long " * 100))
            await client.send("response.create")
            done = (await client.until("response.done"))["response"]
            assert done["status"] == "failed" and "the context" in done["status_details"]["error"]["message"]

    asyncio.run(talk())


def test_no_such_model(server: Server) -> None:
    async def talk() -> None:
        async with official(server).realtime.connect(model="other"):
            pass

    with pytest.raises(Exception, match="404"):
        asyncio.run(talk())


def test_another_model_takes_the_next_question(checkpoint: Path, tmp_path: Path) -> None:
    """What was heard before is encoded again, for the model that answers now."""
    folder = tmp_path / "omni"
    shutil.copytree(checkpoint, folder)

    async def talk(server: Server) -> None:
        async with connected(server, audio=PUSH_TO_TALK, output_modalities=["text"], max_output_tokens=8) as client:
            await client.hear(speech("What is it?"))
            await client.send("input_audio_buffer.commit")
            await client.send("response.create")
            said = (await client.until("response.done"))["response"]["output"][0]["content"][0]["text"]
            other = small_omni(seed=1)
            card = make_card("omni", other, data={}, params={}, metrics={}, seconds=0.0)
            config = other.cfg.model_dump(mode="json")
            words = {"tokenizer.model": checkpoint / "tokenizer.model"}
            save_checkpoint(folder, other.state_dict(), config, card, words)
            changed = asyncio.run_coroutine_threadsafe(server.house.check(), server.loop)
            assert await asyncio.wrap_future(changed)
            await client.send("conversation.item.create", item=text_item("Where?"))
            await client.send("response.create")
            done = (await client.until("response.done"))["response"]
            engine = server.house.current.engine
            session = Session(engine.model, engine.tokenizer)
            (kept,) = server.app.state.realtime.sessions
            heard = as_learned(kept.dialogue.items[0].parts[0].sound, 16000)
            session.conversation.exchanges.append((session.conversation.message(audio=[heard]), said))
            assert done["output"][0]["content"][0]["text"] == last(session.ask("Where?", max_tokens=8)).text

    with Server(folder, Limits()) as server:
        asyncio.run(talk(server))


def test_a_recording_is_made_like_those_that_the_model_learned_from() -> None:
    rng = np.random.default_rng(0)
    said = np.sin(np.arange(16000) / 5).astype(np.float32) * np.hanning(16000).astype(np.float32)
    wave = np.concatenate((np.zeros(8000), said, np.zeros(4000))).astype(np.float32)
    expected = as_learned(wave, 16000)
    assert 15000 < len(expected) < 16000 + 2 * 960 and np.abs(expected).max() == pytest.approx(0.9)
    quiet = 0.05 * wave + 1e-4 * rng.standard_normal(len(wave)).astype(np.float32)
    found = as_learned(quiet, 16000)
    assert abs(len(found) - len(expected)) < 1600 and np.abs(found).max() == pytest.approx(0.9)
    noise = 1e-4 * rng.standard_normal(16000).astype(np.float32)
    assert np.abs(as_learned(noise, 16000)).max() < 0.1, "noise alone is not made as loud as speech"
    assert not as_learned(np.zeros(1, np.float32), 16000).any()
