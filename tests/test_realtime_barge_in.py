"""The user speaks while an answer is being made, or while it is being played."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from realtime_tools import LONG, Client, Server, connected, long_checkpoint, pieces, speech, text_item, wait_for

from muomni.serve.realtime_channel import Outbox, Playback
from muomni.serve.realtime_dialogue import Limits
from muomni.serve.realtime_items import heard_text, turns
from muomni.serve.realtime_session import Session

QUIET = np.zeros(12000, np.float32)


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[Server]:
    with Server(checkpoint, Limits()) as server:
        yield server


@pytest.fixture(scope="module")
def slow(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that is still at it when somebody speaks."""
    with Server(long_checkpoint(checkpoint, tmp_path_factory.mktemp("long") / "omni"), Limits()) as server:
        yield server


def session_of(server: Server) -> Session:
    (session,) = server.app.state.realtime.sessions
    return session


async def ask(client: Client, question: str = LONG) -> dict[str, Any]:
    """Ask, and wait for the first sound; gives its event."""
    await client.send("conversation.item.create", item=text_item(question))
    await client.send("response.create")
    return await client.until("response.output_audio.delta")


async def interrupt(client: Client, wave: np.ndarray) -> list[dict[str, Any]]:
    """Speak, in one go; gives what came from the beginning of speech to the end of the next answer."""
    pcm = np.round(wave * 32767).astype("<i2").tobytes()
    await client.send("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())
    await client.until("input_audio_buffer.speech_started")
    begin = len(client.events)
    while (await client.until("response.done"))["response"]["status"] == "cancelled":
        pass
    return client.events[begin:]


def test_an_answer_ends_when_the_user_speaks(slow: Server) -> None:
    async def talk() -> None:
        async with connected(slow) as client:
            await client.hear(QUIET)
            first = await ask(client)
            await client.send("session.update", session={"max_output_tokens": 12})
            events = await interrupt(client, speech("Stop, that is enough.", before=0.1))
            sound = {e["response_id"] for e in events if e["type"] == "response.output_audio.delta"}
            assert sound and first["response_id"] not in sound, "no sound of the first after speech_started"
            done = next(e["response"] for e in events if e["type"] == "response.done")
            assert done["id"] == first["response_id"] and done["status"] == "cancelled"
            assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
            (cut,) = (e for e in events if e["type"] == "conversation.item.truncated")
            assert cut["item_id"] == first["item_id"] and cut["audio_end_ms"] < 3000
            answered, question = turns(session_of(slow).dialogue.items)
            assert (answered[0][0][0].text if answered else question[0].text) == LONG
            assert len(answered[0][1] if answered else "") < 60, "the model's history has what was heard"

    asyncio.run(talk())


def test_an_answer_that_is_cancelled(slow: Server) -> None:
    async def talk() -> None:
        async with connected(slow) as client:
            first = await ask(client)
            await client.send("response.cancel", response_id=first["response_id"])
            done = (await client.until("response.done"))["response"]
            assert done["status"] == "cancelled" and done["status_details"]["reason"] == "client_cancelled"
            assert done["output"][0]["status"] == "incomplete"
            assert not [e for e in await client.settle() if "delta" in e["type"]], "nothing of it comes any more"
            await client.send("response.cancel")
            assert (await client.until("error"))["error"]["code"] == "response_cancel_not_active"

    asyncio.run(talk())


def test_a_client_that_leaves_takes_its_answer_along(slow: Server) -> None:
    async def talk() -> None:
        async with connected(slow) as client:
            await ask(client)
            assert slow.house.current.engine.active == 1
            client.socket.transport.abort()

    asyncio.run(talk())
    engine = slow.house.current.engine
    wait_for(lambda: not slow.app.state.realtime.sessions and not engine.active and not engine.queued)
    assert not slow.house.current.leases


def test_playing_goes_on_after_the_answer_is_made(server: Server) -> None:
    async def talk() -> None:
        async with connected(server, max_output_tokens=60) as client:
            await client.hear(QUIET)
            first = await ask(client)
            done = (await client.until("response.done"))["response"]
            assert done["status"] == "incomplete" and session_of(server).playback.playing
            whole = done["output"][0]["content"][0]["transcript"]
            events = await interrupt(client, speech("Stop, that is enough.", before=0.1))
            (cut,) = (e for e in events if e["type"] == "conversation.item.truncated")
            assert cut["item_id"] == first["item_id"]
            # The client knows better how much was heard, more as well as less.
            length = sum(len(base64.b64decode(e["delta"])) / 48 for e in client.of("response.output_audio.delta")[:-1])
            assert length > 1000
            for ms in (700, 1500):
                await client.send(
                    "conversation.item.truncate", item_id=first["item_id"], content_index=0, audio_end_ms=ms
                )
                await client.until("conversation.item.truncated")
                await client.send("conversation.item.retrieve", item_id=first["item_id"])
                item = (await client.until("conversation.item.retrieved"))["item"]
                heard = item["content"][0]["transcript"]
                assert whole.startswith(heard) and len(heard) < len(whole)
                answered, _ = turns(session_of(server).dialogue.items)
                assert (answered[0][1] if heard else "") == heard, "the model's history has that"

    asyncio.run(talk())


def test_without_interrupt_response_the_answer_goes_on(server: Server) -> None:
    turn = {"type": "server_vad", "interrupt_response": False, "create_response": False}

    async def talk() -> None:
        async with connected(server, max_output_tokens=60, audio={"input": {"turn_detection": turn}}) as client:
            await client.hear(QUIET)
            first = await ask(client)
            for piece in pieces(speech("Stop, that is enough.", before=0.1)):
                await client.send("input_audio_buffer.append", audio=piece)
            done = (await client.until("response.done"))["response"]
            assert done["id"] == first["response_id"] and done["status"] == "incomplete"
            if not client.of("input_audio_buffer.committed"):
                await client.until("input_audio_buffer.committed")
            await client.settle()
            assert not client.of("conversation.item.truncated") and len(client.of("response.done")) == 1

    asyncio.run(talk())


def test_what_cannot_be_truncated(server: Server) -> None:
    async def talk() -> None:
        async with connected(server, max_output_tokens=12) as client:
            await client.send("conversation.item.create", item=text_item("a question", id="question"))
            await client.send("response.create")
            item = (await client.until("response.output_item.done"))["item"]
            for name, index, ms, param in (
                ("question", 0, 10, "item_id"),
                (item["id"], 1, 10, "item_id"),
                (item["id"], 0, 1_000_000, "audio_end_ms"),
                ("nothing", 0, 10, "item_id"),
            ):
                await client.send("conversation.item.truncate", item_id=name, content_index=index, audio_end_ms=ms)
                assert (await client.until("error"))["error"]["param"] == param
            await client.send("conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=0)
            await client.until("conversation.item.truncated")
            answered, question = turns(session_of(server).dialogue.items)
            assert not answered and question[0].text == "a question", "nothing was heard: it is still to be answered"

    asyncio.run(talk())


def test_the_clock_of_what_is_played() -> None:
    now = 0.0
    playback = Playback(lambda: now)
    playback.add("a", 2.0)
    now = 1.0
    assert playback.playing and playback.heard == 1.0
    playback.add("a", 1.0)
    assert playback.heard == 1.0
    now = 3.5
    assert not playback.playing and playback.heard == 3.0, "it stood still after what there was"
    playback.add("a", 1.0)
    now = 4.0
    assert playback.heard == 3.5
    playback.add("b", 1.0)
    assert playback.heard == 0.0, "waits for the rest of the other"
    now = 5.0
    assert playback.heard == 0.5
    playback.stop()
    assert not playback.playing


def test_the_words_that_were_heard() -> None:
    text = "There are two dogs and a cat."
    assert heard_text(text, 2.0, 2.0) == text
    assert heard_text(text, 1.0, 2.0) == "There are two"
    assert heard_text(text, 0.0, 2.0) == "" and heard_text(text, 0.2, 2.0) == ""
    assert heard_text(text, 0.75, None) == "There are", "14 characters a second"
    assert heard_text(text, 9.0, None) == text


def test_sound_that_was_not_sent_is_dropped_and_the_rest_stays_in_order() -> None:
    outbox = Outbox(10_000)
    for number in range(4):
        outbox.put("text", number=number)
        outbox.put("sound", 0.25, number=number)
    assert outbox.drop_sound() == 1.0
    assert [text.count("sound") for text, _ in outbox.waiting] == [0, 0, 0, 0]
    assert outbox.size == sum(len(text) for text, _ in outbox.waiting)
    outbox.put("much", text="x" * 10_000)
    assert outbox.overflowed.is_set()
