"""A server with the realtime interface, in a thread, and a client that keeps what it got."""

import asyncio
import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from muomni.checkpoint import make_card, save_checkpoint
from muomni.data.voices import Hibari, clean
from muomni.omni import Omni, load_omni
from muomni.serve.app import make_app
from muomni.serve.house import House, Source
from muomni.serve.realtime import Connections
from muomni.serve.realtime_dialogue import Limits
from muomni.serve.settings import Settings

PIECE = 480  # samples at 24 kHz: 20 ms
LONG = "Read this aloud: good morning."  # what `small_omni` answers at length, in 13 s of sound


class Server:
    """A real uvicorn in a thread of its own.

    Attributes:
        house: its model.
        app: its application.
        address: ``ws://.../v1``.
    """

    def __init__(self, checkpoint: Path, limits: Limits) -> None:
        self.house = House(Source(str(checkpoint)), "muomni")
        self.app = make_app(self.house, Settings())
        self.app.state.realtime = Connections(limits)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"ws://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.server = uvicorn.Server(uvicorn.Config(self.app, log_level="warning"))
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        """The thread."""

        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self.server.serve([self.socket])

        asyncio.run(serve())

    def __enter__(self) -> "Server":
        self.thread.start()
        wait_for(lambda: self.server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()


def long_checkpoint(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint like another, but with so large a context that `LONG` is answered for many seconds."""
    model, tokenizer, _ = load_omni(checkpoint, "cpu")
    thinker = model.cfg.thinker.model_copy(update={"context": 2048})
    longer = Omni(model.cfg.model_copy(update={"thinker": thinker})).eval()
    longer.load_state_dict(model.state_dict())
    card = make_card("omni", longer, data={}, params={}, metrics={}, seconds=0.0)
    words = {"tokenizer.model": checkpoint / "tokenizer.model"}
    save_checkpoint(folder, longer.state_dict(), longer.cfg.model_dump(mode="json"), card, words)
    return folder


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


class Client:
    """A raw WebSocket; all that it got is in ``events``."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[dict[str, Any]] = []

    async def send(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def next(self) -> dict[str, Any]:
        """The next event."""
        event: dict[str, Any] = json.loads(await asyncio.wait_for(self.socket.recv(), 20))
        self.events.append(event)
        return event

    async def until(self, kind: str) -> dict[str, Any]:
        """The next event of a kind."""
        while (event := await self.next())["type"] != kind:
            pass
        return event

    async def settle(self) -> list[dict[str, Any]]:
        """All that came until the server has followed everything that was sent."""
        begin = len(self.events)
        await self.send("settled?", event_id="settle")
        while (await self.until("error"))["error"]["event_id"] != "settle":
            pass
        return self.events[begin:-1]

    async def hear(self, wave: np.ndarray) -> None:
        """Send sound in pieces, as fast as it goes."""
        for piece in pieces(wave):
            await self.send("input_audio_buffer.append", audio=piece)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """All events of a kind so far."""
        return [event for event in self.events if event["type"] == kind]

    def kinds(self) -> list[str]:
        """What came, in order."""
        return [event["type"] for event in self.events]


@contextlib.asynccontextmanager
async def connected(server: Server, **session: Any) -> AsyncIterator[Client]:
    """A client with a session that was changed so."""
    async with connect(f"{server.address}/realtime", max_size=None) as socket:
        client = Client(socket)
        await client.until("session.created")
        if session:
            await client.send("session.update", session={"type": "realtime", **session})
            await client.until("session.updated")
        yield client


def pieces(wave: np.ndarray) -> Iterator[str]:
    """Sound at 24 kHz as base64 of 20 ms each."""
    pcm = np.round(wave * 32767).astype("<i2")
    for at in range(0, len(pcm), PIECE):
        yield base64.b64encode(pcm[at : at + PIECE].tobytes()).decode()


def speech(text: str, before: float = 0.5, after: float = 0.8) -> np.ndarray:
    """A sentence with silence around it, float32 at 24 kHz."""
    said = clean(Hibari().say(text, 1.0, 0), 24000, 16000)
    wave = soxr.resample(said, 16000, 24000) * 0.5
    return np.concatenate((np.zeros(int(before * 24000)), wave, np.zeros(int(after * 24000)))).astype(np.float32)


def text_item(text: str, role: str = "user", **more: Any) -> dict[str, Any]:
    """An item of text."""
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}
