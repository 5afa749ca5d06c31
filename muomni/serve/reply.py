"""What goes between the web's event loop and the model: how an answer is wanted, and its events as they come."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from muomni.errors import UserError
from muomni.generate import GREEDY
from muomni.sampling import Sampling


@dataclass(frozen=True)
class Options:
    """How an answer is to be made.

    Attributes:
        sampling: how tokens are drawn.
        max_tokens: at most; the context may leave room for fewer.
        seed: of the draws of tokens and codes.
        stop: texts that end the answer; they are not part of it.
        logprobs: None, or how many alternatives to tell beside each token's log probability, 0 to 20.
        bias: added to the logits of some ids; -100 and 100 ban and force.
        presence_penalty, frequency_penalty: taken from the logits of tokens that the answer has, once and each time.
        speak: also say the answer.
        voice: index into the Talker's voices.
    """

    sampling: Sampling = GREEDY
    max_tokens: int = 128
    seed: int = 0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    bias: Mapping[int, float] = field(default_factory=dict)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    speak: bool = False
    voice: int = 0


@dataclass(frozen=True)
class Token:
    """A token of the answer was drawn.

    Attributes:
        id: of the token.
        piece: text that is certain now; empty while a character, or a text that may be a stop, is incomplete.
        logprob: of this token, natural; None if not asked for.
        alternatives: the likeliest ids with their log probabilities.
    """

    id: int
    piece: str
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Text:
    """The last text, that was held back until it was certain."""

    piece: str


@dataclass(frozen=True, eq=False)
class Sound:
    """More of the speech: float32 ``[samples]`` at the model's rate, on the CPU."""

    wave: Tensor


@dataclass(frozen=True)
class End:
    """The last event.

    Attributes:
        reason: why the text ended: ``stop``, the model's own or a given one; ``length``, a limit.
        tokens: that were drawn, the one that ended the answer among them.
    """

    reason: Literal["stop", "length"]
    tokens: int


Event = Token | Text | Sound | End


class Full(UserError):
    """The queue is full.

    Attributes:
        seconds: after which it is worth trying again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("the server is busy: its queue is full; try again later")
        self.seconds = seconds


class Closed(UserError):
    """The engine takes no requests any more."""


class Reply:
    """An answer on its way, to be read by one coroutine: ``async for event in reply``.

    It ends after `End`, raises what went wrong in the model, and ends early, without `End`, once it was cancelled.

    Args:
        loop: the reader's.
        left: called in the loop with the reply once it is complete, failed or not wanted.

    Attributes:
        cancelled: whether it is not wanted.
        over: whether nothing more has to be made, because it is not wanted or failed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, left: Callable[["Reply"], None]) -> None:
        self.loop, self.left = loop, left
        self.queue: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        self.cancelled, self.over = threading.Event(), threading.Event()

    def cancel(self) -> None:
        """Nobody wants the rest. What is queued is forgotten and the model stops at its next step; from any thread."""
        self.cancelled.set()
        self.over.set()
        hand_over([(self, None)])

    async def __aiter__(self) -> AsyncIterator[Event]:
        while not self.cancelled.is_set():
            event = await self.queue.get()
            if event is None or self.cancelled.is_set():
                return
            if isinstance(event, BaseException):
                raise event
            yield event
            if isinstance(event, End):
                return


Given = tuple[Reply, Event | BaseException | None]


def hand_over(given: Sequence[Given]) -> None:
    """Give events to their replies, from any thread; None or an exception ends a reply."""
    loops: dict[asyncio.AbstractEventLoop, list[Given]] = {}
    for one in given:
        loops.setdefault(one[0].loop, []).append(one)
        if isinstance(one[1], BaseException):
            one[0].over.set()
    for loop, some in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            loop.call_soon_threadsafe(put_all, some)


def put_all(given: Sequence[Given]) -> None:
    """Queue events, in their event loop."""
    for reply, event in given:
        reply.queue.put_nowait(event)
        if event is None or isinstance(event, End | BaseException):
            reply.left(reply)
