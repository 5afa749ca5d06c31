"""Many clients at once: tokens a second, whether each gets its own answer, memory.

    python benchmarks/load.py --profile base --json load.json

A server in a process of its own, asked over HTTP with streaming. First one client and sixteen in turns, for the ratio
of their tokens a second. Then, for some minutes, many clients, each with questions, and with words for its answers, of
its own: a reply must be made of these alone, and be the one that the model gives when it is asked alone. Where rounding
decides between two words that are equally likely, a reply may go on differently; it is looked at then whether they are.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from served import Served, random_checkpoint, serving

from muomni.bench.machine import describe
from muomni.conversation import Conversation
from muomni.decoder import Decoder
from muomni.device import DeviceConfig, pick_device
from muomni.matrix import Weights
from muomni.omni import Omni, load_omni
from muomni.sampling import Sampling, answer_tokens
from muomni.tokenizer import Tokenizer

MARKS = 24  # ids of a client's own
NEAR = 1e-4  # logits that rounding may exchange
TOKENS = 100  # of an answer, where the speed is measured


@dataclass
class Question:
    """Something to ask, and what the answer has to be.

    Attributes:
        marks: ids that the answer is made of; empty for any.
        ids: of the answer, as the model gives it when it is asked alone.
    """

    text: str
    marks: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)


@dataclass
class Got:
    """What came of a question."""

    status: int
    text: str = ""
    tokens: int = 0
    first: float = 0.0  # seconds to the first text
    seconds: float = 0.0
    error: str = ""


async def ask(server: Served, question: Question, limit: int) -> Got:
    """Ask, streaming, over a connection of its own."""
    body: dict[str, Any] = {
        "model": "muomni",
        "messages": [{"role": "user", "content": question.text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": limit,
        "temperature": 0,
    }
    if question.marks:
        body["logit_bias"] = {str(mark): 100 for mark in question.marks}
    data = json.dumps(body).encode()
    began, got, pieces = time.perf_counter(), Got(0), list[str]()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {server.host}:{server.port}\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        got.status = int((await reader.readline()).split()[1])
        done = False
        async for line in reader:
            if line.startswith(b"data: [DONE]"):
                done = True
            elif line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                if chunk.get("usage"):
                    got.tokens = chunk["usage"]["completion_tokens"]
                for choice in chunk.get("choices", ()):
                    if piece := choice["delta"].get("content"):
                        got.first = got.first or time.perf_counter() - began
                        pieces.append(piece)
                if "error" in chunk:
                    got.error = chunk["error"]["message"]
        if got.status == 200 and not done:
            got.error = got.error or "the stream ended too soon"
    finally:
        writer.close()
    got.text, got.seconds = "".join(pieces), time.perf_counter() - began
    return got


def questions(tokenizer: Tokenizer, count: int, seed: int, marked: bool) -> list[Question]:
    """Questions of random words, each with marks of its own."""
    draws = random.Random(seed)
    ids = [i for i, word in enumerate(map(tokenizer.spelled, range(tokenizer.vocab_size))) if is_word(word)]
    found = []
    for _ in range(count):
        words = [str(tokenizer.spelled(draws.choice(ids))).strip() for _ in range(draws.randint(5, 60))]
        found.append(Question(" ".join(words), sorted(draws.sample(ids, MARKS)) if marked else []))
    return found


def is_word(spelled: str | bytes) -> bool:
    """Whether a token is the beginning of a word, so that where a text of such tokens is divided is plain to see."""
    return isinstance(spelled, str) and spelled[:1] == " " and spelled[1:].isalpha()


class Reference:
    """The model asked alone, with nothing of the server."""

    def __init__(self, model: Omni, tokenizer: Tokenizer, weights: Weights) -> None:
        self.model, self.tokenizer, self.decoder = model, tokenizer, Decoder(model.thinker, weights)

    def prompt(self, question: Question) -> torch.Tensor:
        """Embeddings ``[1, T, D]`` of a question."""
        conversation = Conversation(self.model, self.tokenizer)
        return conversation.prompt(conversation.message(question.text), 16).x

    def answer(self, question: Question, limit: int) -> None:
        """Find the answer."""
        banned = set(range(self.tokenizer.vocab_size)) - set(question.marks)
        tokens = answer_tokens(self.decoder, self.prompt(question), (), limit, Sampling(), torch.Generator(), banned)
        question.ids = [token for token, _ in tokens]

    def judge(self, got: Got, question: Question) -> str:
        """What a reply is: its own, its own up to a tie, or what is wrong with it."""
        if got.error:
            return f"error: {got.error}"
        own = {str(self.tokenizer.spelled(mark)).strip(): mark for mark in question.marks}
        words = got.text.split()
        if not set(words) <= set(own):
            return "mixed up"
        ids = [own[word] for word in words]
        if len(ids) != len(question.ids):
            return "lost a part"
        same = next((n for n, (a, b) in enumerate(zip(ids, question.ids, strict=True)) if a != b), None)
        if same is None:
            return "own"
        before = self.decoder.embed(torch.tensor([ids[:same]], dtype=torch.int64))
        logits = self.decoder.logits(self.decoder(torch.cat((self.prompt(question), before), 1))[0, -1])
        tie = abs(float(logits[ids[same]] - logits[question.ids[same]])) < NEAR
        return "own up to a tie" if tie else "another answer"


async def speed(server: Served, asked: Sequence[Question], rounds: int) -> dict[str, Any]:
    """Tokens a second of one client and of sixteen, in turns."""
    rates: dict[int, list[float]] = {1: [], 16: []}
    firsts: dict[int, list[float]] = {1: [], 16: []}
    draws = random.Random(0)
    for number in range(rounds + 1):
        for clients in rates:
            began = time.perf_counter()
            got = await asyncio.gather(*(ask(server, draws.choice(asked), TOKENS) for _ in range(clients)))
            if number:  # the first round makes what is made once
                rates[clients].append(sum(one.tokens for one in got) / (time.perf_counter() - began))
                firsts[clients] += [one.first for one in got]
    medians = {clients: statistics.median(values) for clients, values in rates.items()}
    return {
        "rounds": rounds,
        "tokens a second, median": {str(clients): round(rate) for clients, rate in medians.items()},
        "16 clients against one": round(medians[16] / medians[1], 2),
        "first text, ms, median": {str(c): round(1000 * statistics.median(values)) for c, values in firsts.items()},
    }


async def crowd(
    server: Served, asked: Sequence[Question], clients: int, seconds: float, limit: int
) -> tuple[list[tuple[Question, Got]], list[tuple[float, float]]]:
    """Clients that ask one question after the other; all that came, and the server's memory in MB by time."""
    found: list[tuple[Question, Got]] = []
    memory: list[tuple[float, float]] = []
    began, process = time.monotonic(), psutil.Process(server.pid)

    async def client(own: Sequence[Question]) -> None:
        at = 0
        while time.monotonic() - began < seconds:
            question = own[at % len(own)]
            got = await ask(server, question, limit)
            found.append((question, got))
            at += 1
            if got.status == 429:
                await asyncio.sleep(0.2)

    async def watch() -> None:
        while time.monotonic() - began < seconds:
            memory.append((time.monotonic() - began, process.memory_info().rss / 2**20))
            await asyncio.sleep(2)

    await asyncio.gather(watch(), *(client(asked[n::clients]) for n in range(clients)))
    return found, memory


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="base", help="a model of this size with random weights")
    parser.add_argument("--checkpoint", help="a trained one instead")
    parser.add_argument("--weights", default="fp32")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--tokens", type=int, default=48, help="of an answer, with the many clients")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(options.checkpoint) if options.checkpoint else random_checkpoint(options.profile, Path(folder))
        model, tokenizer, _ = load_omni(place)
        reference = Reference(model, tokenizer, options.weights)
        marked = questions(tokenizer, 4 * options.clients, options.seed, marked=True)
        torch.set_num_threads(1)
        for question in marked:
            reference.answer(question, options.tokens)
        with serving(place, "--weights", options.weights) as server:
            fast = asyncio.run(speed(server, questions(tokenizer, 64, options.seed + 1, False), options.rounds))
            print(json.dumps(fast, indent=1), flush=True)
            seconds = 60 * options.minutes
            came, memory = asyncio.run(crowd(server, marked, options.clients, seconds, options.tokens))
    kinds = Counter(
        reference.judge(got, question) if got.status == 200 else f"status {got.status}" for question, got in came
    )
    answered = [got for _, got in came if got.status == 200]
    early, late = (
        statistics.median([mb for at, mb in memory if low * seconds <= at <= high * seconds])
        for low, high in ((0.1, 0.3), (0.8, 1.0))
    )
    found = {
        "machine": describe(pick_device(DeviceConfig(name="cpu", precision="fp32", threads=1, memory_gb=None))),
        "profile": options.checkpoint or options.profile,
        "weights": options.weights,
        "seed": options.seed,
        "speed": fast,
        "clients": options.clients,
        "minutes": options.minutes,
        "replies": dict(kinds),
        "tokens a second": round(sum(got.tokens for got in answered) / seconds),
        "first text, ms": {
            name: round(1000 * value)
            for name, value in zip(
                ("median", "95 of 100"),
                (lambda t: (t[len(t) // 2], t[int(0.95 * len(t))]))(sorted(got.first for got in answered)),
                strict=True,
            )
        },
        "MB after a fifth": round(early),
        "MB at the end": round(late),
    }
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
