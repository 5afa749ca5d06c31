"""Speaking while the model speaks: how soon it is noticed, how soon no sound comes any more, how soon the model stops.

    python benchmarks/barge_in.py --checkpoint checkpoints/omni --count 50 --json barge-in.json

A server in a process of its own, and a client that sends a microphone's sound in real time, 20 ms at a time, quiet
noise while nobody speaks. Each trial asks a question aloud (how long until the first sound of the answer, with the wait
for the end of the question told apart), has a long text read aloud, and speaks while that is being made; every fifth
speaks while it is only being played. Times begin when the piece with the first loud sample is sent. ``--profile base``
takes random weights of that size.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import uvicorn
from fastapi import FastAPI
from served import random_checkpoint
from websockets.asyncio.client import ClientConnection, connect

from muomni.bench.machine import describe
from muomni.data.voices import Hibari, clean
from muomni.device import DeviceConfig, pick_device
from muomni.prompts import read_aloud
from muomni.serve.app import make_app
from muomni.serve.engine import Engine
from muomni.serve.house import House, Source
from muomni.serve.settings import Settings
from muomni.serve.sounds import WIRE_RATE, text, to_pcm16
from muomni.serve.voice_activity import RATE, VoiceActivity

PIECE = WIRE_RATE // 50  # samples of 20 ms
NOISE = 0.0005  # of a quiet room, -66 dB of full scale
QUESTIONS = ("What is above the cat?", "How many things are there?", "Is a dog an animal?", "What is in the picture?")
WORDS = ("Stop, that is enough.", "Wait a moment.", "No, something else.", "How many dogs are there?", "Is it a cat?")
SENTENCES = "The green circle is above the cat. There are two dogs. A mountain is bigger than a microphone. It is red. "
EARLIEST, LATEST = 0.0, 0.1  # seconds after the first sound at which the user begins to speak
SHORT = 24  # tokens of an answer whose end is awaited
PLAYED = 5  # every so many trials speak after the answer is made
WAIT = 60.0


def serve(checkpoint: str) -> None:
    """The server's process: prints its port, and can be asked when its model became idle."""
    house = House(Source(checkpoint))
    app = make_app(house, Settings())
    idle: list[float] = []
    threading.Thread(target=watch, args=(house.current.engine, idle), daemon=True).start()

    async def stops() -> list[float]:
        return idle

    add(app, stops)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))

    async def run() -> None:
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        print(server.servers[0].sockets[0].getsockname()[1], flush=True)
        await task

    asyncio.run(run())


def add(app: FastAPI, stops: Any) -> None:
    """The one route that only this benchmark has."""
    app.get("/stops", response_model=list[float])(stops)


def watch(engine: Engine, idle: list[float]) -> None:
    """Note when the Thinker's and the Talker's threads have nothing left to do."""
    busy = False
    while True:
        was, busy = busy, bool(engine.queue or engine.writer.rows.inside or not engine.speaker.idle)
        if was and not busy:
            idle.append(time.monotonic())
        time.sleep(0.001)


@contextlib.contextmanager
def serving(checkpoint: Path) -> Iterator[int]:
    """The port of a server in another process."""
    words = [sys.executable, __file__, "--server", str(checkpoint)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.terminate()


class Microphone:
    """Sends sound in real time until it is closed."""

    def __init__(self, socket: ClientConnection, seed: int) -> None:
        self.socket, self.noise = socket, np.random.default_rng(seed)
        self.said = np.zeros(0, np.float32)
        self.sent: list[tuple[float, np.ndarray]] = []  # when each piece went out
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        """One piece after the other."""
        due = time.monotonic()
        while True:
            piece = NOISE * self.noise.standard_normal(PIECE).astype(np.float32)
            now, self.said = self.said[:PIECE], self.said[PIECE:]
            piece[: len(now)] += now
            event = {"type": "input_audio_buffer.append", "audio": text(to_pcm16(piece))}
            self.sent.append((time.monotonic(), piece))
            await self.socket.send(json.dumps(event))
            due += PIECE / WIRE_RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def say(self, wave: np.ndarray) -> tuple[float, float]:
        """Say something; when the pieces with its first and with its last loud sample went out."""
        loud = np.flatnonzero(np.abs(wave) > 10 ** (-30 / 20) * np.abs(wave).max())
        first, last = len(self.sent) + int(loud[0]) // PIECE, len(self.sent) + int(loud[-1]) // PIECE
        self.said = wave
        while len(self.sent) <= last:
            await asyncio.sleep(0.002)
        return self.sent[first][0], self.sent[last][0]


class Listener:
    """Keeps what came, and when."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.got: list[tuple[float, dict[str, Any]]] = []
        self.news = asyncio.Event()
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        """Until the connection is closed."""
        async for message in self.socket:
            self.got.append((time.monotonic(), json.loads(message)))
            self.news.set()

    async def after(self, start: int, kind: str) -> tuple[float, dict[str, Any]]:
        """The first event of a kind from a place in what came."""
        async with asyncio.timeout(WAIT):
            while True:
                for when, event in self.got[start:]:
                    if event["type"] == kind:
                        return when, event
                self.news.clear()
                await self.news.wait()


async def trial(
    port: int, number: int, question: np.ndarray, words: np.ndarray, draws: random.Random
) -> dict[str, Any]:
    """One conversation."""
    async with connect(f"ws://127.0.0.1:{port}/v1/realtime", max_size=None) as socket:
        listener, microphone = Listener(socket), Microphone(socket, number)
        try:
            await asyncio.sleep(0.5)
            found = await ask(listener, microphone, question)
            return found | await interrupt(listener, microphone, words, draws, number % PLAYED == PLAYED - 1)
        finally:
            microphone.task.cancel()


async def ask(listener: Listener, microphone: Microphone, question: np.ndarray) -> dict[str, Any]:
    """Ask aloud, and stop the answer once it sounds."""
    begin = len(listener.got)
    _, end = await microphone.say(question)
    stopped, _ = await listener.after(begin, "input_audio_buffer.speech_stopped")
    first, _ = await listener.after(begin, "response.output_audio.delta")
    await listener.socket.send(json.dumps({"type": "response.cancel"}))
    await listener.after(begin, "response.done")
    return {"question to speech_stopped": stopped - end, "speech_stopped to first sound": first - stopped}


async def interrupt(
    listener: Listener, microphone: Microphone, words: np.ndarray, draws: random.Random, played: bool
) -> dict[str, Any]:
    """Have a text read aloud, and speak meanwhile."""
    begin = len(listener.got)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": read_aloud(6 * SENTENCES)}]}
    await listener.socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
    params = {"max_output_tokens": SHORT} if played else {}
    await listener.socket.send(json.dumps({"type": "response.create", "response": params}))
    _, delta = await listener.after(begin, "response.output_audio.delta")
    if played:
        await listener.after(begin, "response.done")
    await asyncio.sleep(draws.uniform(EARLIEST, LATEST))
    first, _ = await microphone.say(words)
    started, _ = await listener.after(begin, "input_audio_buffer.speech_started")
    _, done = await listener.after(begin, "response.done")
    sound = [
        when
        for when, e in listener.got
        if e.get("delta") and e["response_id"] == delta["response_id"] and e["type"] == "response.output_audio.delta"
    ]
    return {
        "first": first,
        "made": done["response"]["status"] == "cancelled",
        "speech_started": started - first,
        "last sound": max(sound) - first,
        "waiting for speech": waiting(microphone, first),
    }


def waiting(microphone: Microphone, first: float) -> float:
    """Seconds of sound that the detector needs by itself, from the piece with the first loud sample on."""
    activity = VoiceActivity()
    resample = soxr.ResampleStream(WIRE_RATE, RATE, 1, "float32")
    for when, piece in microphone.sent:
        changes = activity.push(resample.resample_chunk(piece))
        if when >= first and any(change.kind == "started" for change in changes):
            return when - first
    return float("nan")


async def all_trials(port: int, count: int, seed: int) -> list[dict[str, Any]]:
    """So many, one after the other."""
    voice, draws = Hibari(), random.Random(seed)

    def said(words: str) -> np.ndarray:
        wave = soxr.resample(clean(voice.say(words, 1.0, 0), voice.rate, RATE), RATE, WIRE_RATE)
        return np.concatenate((np.zeros(draws.randrange(PIECE)), 0.3 * wave)).astype(np.float32)

    trials = []
    for number in range(count + 1):  # the first warms up
        question, words = said(draws.choice(QUESTIONS)), said(draws.choice(WORDS))
        trials.append(await trial(port, number, question, words, draws))
        print(f"\r{number} of {count}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    await asyncio.sleep(0.5)
    return trials[1:]


async def asked_stops(port: int) -> list[float]:
    """When the model became idle."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /stops HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    found: list[float] = json.loads(body)
    return found


def summary(seconds: list[float]) -> dict[str, float]:
    """Of times, in milliseconds."""
    ms = sorted(1000 * value for value in seconds)
    if not ms:
        return {"n": 0}
    high = ms[min(len(ms) - 1, int(0.95 * len(ms)))]
    return {"n": len(ms), "median": round(statistics.median(ms)), "p95": round(high), "max": round(ms[-1])}


def report(trials: list[dict[str, Any]], stops: list[float]) -> dict[str, Any]:
    """All figures, ms from the first loud sample of what the user says."""
    made = [t for t in trials if t["made"]]
    for t in made:
        t["model idle"] = min((s for s in stops if s >= t["first"]), default=float("nan")) - t["first"]
    started, alone = (statistics.median(t[k] for t in trials) for k in ("speech_started", "waiting for speech"))
    return {
        "while the answer is made": {
            name: summary([max(0.0, t[name]) for t in made])
            for name in ("waiting for speech", "speech_started", "last sound", "model idle")
        },
        "while it is only played": {"speech_started": summary([t["speech_started"] for t in trials if not t["made"]])},
        "share of waiting for speech in the median": round(alone / started, 2),
        "from the end of a question": {
            name: summary([t[name] for t in trials])
            for name in ("question to speech_stopped", "speech_stopped to first sound")
        },
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="checkpoints/omni")
    parser.add_argument("--profile", default="", help="a model of this size with random weights")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--server", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        serve(options.server)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = random_checkpoint(options.profile, Path(folder)) if options.profile else Path(options.checkpoint)
        with serving(path) as port:
            trials = asyncio.run(all_trials(port, options.count, options.seed))
            found = report(trials, asyncio.run(asked_stops(port)))
    found |= {
        "model": options.profile or "trained",
        "seed": options.seed,
        "machine": describe(pick_device(DeviceConfig(name="cpu", precision="fp32", threads=0, memory_gb=None))),
    }
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
