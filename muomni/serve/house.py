"""The model that answers now, and its change for another without a request lost.

A source is a checkpoint's folder or an address such as ``models:/muomni@champion``. Every so many seconds it is asked
which model it means; another one is loaded beside the old, asked something, and put in its place. The old one finishes
what it has begun.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from muomni.checkpoint import CARD
from muomni.conversation import Conversation
from muomni.errors import UserError
from muomni.matrix import Weights
from muomni.model_sources import fetch_model
from muomni.omni import load_omni
from muomni.serve.engine import Closed, End, Engine, Options
from muomni.untrusted import MOST_JSON, plain_file

log = logging.getLogger("muomni.serve")
TRIAL = "What is it?"
TRIAL_S = 60.0  # in which a model that was just loaded must have answered that


@dataclass(frozen=True)
class Source:
    """Where models come from.

    Attributes:
        place: a folder, or an address of `muomni.model_sources`.
        registered: whether it is an address.
        device: ``cpu`` or ``cuda``.
        weights: what the Thinker writes with.
        slots: answers that are written at the same time.
        queue: requests that may wait for that.
        threads: CPU threads of one product of the Thinker.
    """

    place: str
    registered: bool = False
    device: str = "cpu"
    weights: Weights = "fp32"
    slots: int = 32
    queue: int = 64
    threads: int = 1

    def folder(self) -> Path:
        """The folder of the model that is meant now; takes seconds if it has to be fetched. Raises `UserError`."""
        return fetch_model(self.place) if self.registered else Path(self.place)

    def mark(self) -> tuple[Path, str]:
        """What is another when the model is: its folder and its card's hash. Raises `UserError`."""
        folder = self.folder()
        if not folder.is_dir() and not self.registered:
            raise UserError(f"{folder}: no trained model here; run `make repro` to train one, or give --checkpoint")
        return folder, hashlib.sha256(plain_file(folder, CARD, MOST_JSON).read_bytes()).hexdigest()


@dataclass(eq=False)
class Served:
    """A model that answers.

    Attributes:
        engine: the model at work.
        name: by which clients ask for it.
        created: when it was put here, seconds since 1970.
        fingerprint: the same for the same weights of the same precision.
        mark: of its source, see `Source.mark`.
        leases: requests that may still ask it something.
    """

    engine: Engine
    name: str
    created: int
    fingerprint: str
    mark: tuple[Path, str]
    leases: int = 0
    free: asyncio.Event = field(default_factory=asyncio.Event)


def load(source: Source, name: str) -> Served:
    """Load the model that a source means now; takes seconds.

    Raises:
        UserError: if there is none, or it is damaged.
    """
    for _ in range(3):
        mark = source.mark()
        model, tokenizer, card = load_omni(mark[0], source.device)
        if source.mark() == mark:  # else it was replaced meanwhile, and nobody would notice
            break
    digest = hashlib.sha256(f"{card['weights_sha256']} {source.weights} {source.device}".encode()).hexdigest()
    engine = Engine(model, tokenizer, source.weights, source.slots, source.queue, source.threads)
    return Served(engine, name, int(time.time()), f"fp_{digest[:12]}", mark)


async def try_out(served: Served) -> None:
    """Have a model answer something.

    Raises:
        UserError: if it does not.
    """
    conversation = Conversation(served.engine.model, served.engine.tokenizer)
    prompt = await asyncio.to_thread(conversation.prompt, conversation.message(TRIAL), 1)
    reply = served.engine.ask(prompt, Options(max_tokens=1))
    try:
        async with asyncio.timeout(TRIAL_S):
            if not [event async for event in reply if isinstance(event, End)]:
                raise UserError(f"{served.mark[0]}: the model gave no answer")
    except TimeoutError:
        raise UserError(f"{served.mark[0]}: the model gave no answer in {TRIAL_S:.0f} s") from None
    finally:
        reply.cancel()


class House:
    """The model that answers now.

    Args:
        source: where models come from.
        name: by which clients ask for them.
        check_every: seconds between looks at the source; 0: never.
        drain: seconds that an old model may take for what it has begun.

    Attributes:
        current: what new requests ask; a request takes it once, with `lease`.
        changes: how often another model took the place.
        stopping: set once the server is to stop: nothing new is taken.
    """

    def __init__(self, source: Source, name: str = "muomni", check_every: float = 0.0, drain: float = 300.0) -> None:
        self.source, self.name, self.check_every, self.drain = source, name, check_every, drain
        self.current = load(source, name)
        self.changes = 0
        self.stopping = asyncio.Event()
        self.told: set[str] = set()  # what went wrong and is in the log already
        self.leaving: set[asyncio.Task[None]] = set()
        self.watch: asyncio.Task[None] | None = None

    @contextmanager
    def lease(self) -> Iterator[Served]:
        """The model for one request, which stays open for it until the block ends.

        Raises:
            Closed: once the server is to stop.
        """
        if self.stopping.is_set():
            raise Closed("the server is stopping; try again later")
        served = self.current
        served.leases += 1
        try:
            yield served
        finally:
            served.leases -= 1
            if not served.leases:
                served.free.set()

    @property
    def ready(self) -> bool:
        """Whether new requests are taken."""
        return not self.stopping.is_set() and self.current.engine.open

    def start(self) -> None:
        """Begin to look at the source; in the event loop."""
        if self.check_every:
            self.watch = asyncio.create_task(self.look_again())

    async def look_again(self) -> None:
        """Look at the source until the server stops."""
        while True:
            await asyncio.sleep(self.check_every)
            await self.check()

    async def check(self) -> bool:
        """Put another model in the place if the source means one; whether that happened."""
        try:
            mark = await asyncio.to_thread(self.source.mark)
            if mark == self.current.mark:
                return False
            fresh = await asyncio.to_thread(load, self.source, self.name)
        except Exception as error:  # whatever is wrong with the new one, the old one answers
            self.tell(f"the model stays as it is: {error}", error)
            return False
        try:
            await try_out(fresh)
        except Exception as error:
            await asyncio.to_thread(fresh.engine.close)
            self.tell(f"the model stays as it is: {error}", error)
            return False
        old, self.current = self.current, fresh
        self.changes += 1
        self.told.clear()
        log.warning("another model answers now: %s", fresh.mark[0])
        leaving = asyncio.create_task(self.see_off(old))
        self.leaving.add(leaving)
        leaving.add_done_callback(self.leaving.discard)
        return True

    def tell(self, line: str, error: Exception) -> None:
        """Log a failure once."""
        if line not in self.told:
            self.told.add(line)
            log.error(line, exc_info=None if isinstance(error, UserError) else error)

    async def see_off(self, old: Served) -> None:
        """Close a model once its requests are done."""
        if not await self.emptied(old, self.drain):
            log.error("the old model did not finish in %.0f s; its requests end", self.drain)
        await asyncio.to_thread(old.engine.close)

    async def emptied(self, served: Served, seconds: float) -> bool:
        """Wait until all requests of a model are done, ``seconds`` at most; whether they are."""
        end = time.monotonic() + seconds
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while served.leases:
                    served.free.clear()
                    await served.free.wait()
        return await served.engine.drain(max(0.0, end - time.monotonic()))

    async def stop(self, seconds: float) -> bool:
        """Take nothing new, wait until all that was begun is done, ``seconds`` at most, and close; whether all was."""
        self.stopping.set()
        if self.watch is not None:
            self.watch.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*self.leaving)
        done = await self.emptied(self.current, seconds) and not self.leaving
        await asyncio.to_thread(self.current.engine.close)
        return done
