"""A server of a checkpoint in a thread, for tests of what clients get from it."""

import asyncio
import base64
import io
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import openai
import soundfile
import uvicorn
from fastapi import FastAPI
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from muomni.serve.app import make_app
from muomni.serve.command import Server
from muomni.serve.engine import Engine
from muomni.serve.hall import Hall
from muomni.serve.house import House, Source
from muomni.serve.schema import Error
from muomni.serve.settings import Settings

T = TypeVar("T")


class Told(Server):
    """A server that says when it listens."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, grace: float) -> None:
        super().__init__(config, app, grace)
        self.listens = threading.Event()

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


class Place:
    """A running server.

    Attributes:
        url: of its API, without ``/v1``.
        app, house, hall: what runs.
        server, thread: uvicorn's, and where it runs.
    """

    def __init__(self, app: FastAPI, server: Told, thread: threading.Thread, port: int) -> None:
        self.app, self.server, self.thread, self.port = app, server, thread, port
        self.url = f"http://127.0.0.1:{port}"
        self.house: House = app.state.house
        self.hall: Hall = app.state.hall

    def client(self, key: str = "none", **more: Any) -> openai.OpenAI:
        """The official client, which does not try again by itself."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=30, **more)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the server's event loop."""
        assert self.server.loop is not None
        return asyncio.run_coroutine_threadsafe(work, self.server.loop).result(30)

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that the server comes to; fails after half a minute."""

        async def wait() -> None:
            async with asyncio.timeout(30):
                while not holds():
                    await asyncio.sleep(0.01)

        self.run(wait())


@contextmanager
def held(engine: Engine) -> Iterator[threading.Event]:
    """Have a model stop before its next token, until the event is set or the block ends."""
    free, step = threading.Event(), engine.writer.step

    def later() -> None:
        assert free.wait(60)
        step()

    engine.writer.step = later  # type: ignore[method-assign]
    try:
        yield free
    finally:
        free.set()
        engine.writer.step = step  # type: ignore[method-assign]


@contextmanager
def running(folder: Path, settings: Settings | None = None, check_every: float = 0.0, **source: Any) -> Iterator[Place]:
    """A server of a checkpoint's folder, on a free port."""
    settings = settings or Settings()
    house = House(Source(str(folder), **source), check_every=check_every)
    app = make_app(house, settings)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5, lifespan="on")
    server = Told(config, app, settings.grace)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), name="server", daemon=True)
    thread.start()
    assert server.listens.wait(30)
    try:
        yield Place(app, server, thread, listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def png(color: str = "red", size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def sound(seconds: float = 1.0, rate: int = 16000, kind: str = "WAV", seed: int = 0) -> bytes:
    """Noise as a file."""
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(seed).normal(0, 0.1, int(seconds * rate)), rate, format=kind)
    return file.getvalue()


def image_part(data: bytes) -> dict[str, Any]:
    """A picture in a message."""
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def audio_part(data: bytes, kind: str = "wav") -> dict[str, Any]:
    """A recording in a message."""
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": kind}}


def asked(*parts: Any) -> list[dict[str, Any]]:
    """One question: text or parts."""
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return [{"role": "user", "content": content}]


BODY: dict[str, Any] = {"model": "muomni", "messages": asked("What is it?")}


def chat(place: Place, **more: object) -> httpx.Response:
    """Ask `BODY` with more in it."""
    return httpx.post(f"{place.url}/v1/chat/completions", json=BODY | more, timeout=60)


def value(place: Place, name: str, **labels: str) -> float:
    """A figure of /metrics, all of its labels summed."""
    text = httpx.get(f"{place.url}/metrics").text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


def refused(place: Place, status: int = 400, **body: Any) -> dict[str, Any]:
    """Ask for a chat that is refused; the error."""
    whole = {"model": "muomni", "messages": asked("Hello")} | body
    answer = httpx.post(f"{place.url}/v1/chat/completions", json=whole)
    assert answer.status_code == status, answer.text
    Error.model_validate(answer.json())
    error: dict[str, Any] = answer.json()["error"]
    return error
