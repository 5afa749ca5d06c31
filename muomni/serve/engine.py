"""One model answering many requests: what stands between the web's event loop and the model.

The event loop hands requests in and awaits their events; the model works in threads of its own.
"""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from muomni.conversation import Prompt
from muomni.decoder import Decoder
from muomni.errors import UserError
from muomni.generate import GREEDY, TextStream, say
from muomni.matrix import Weights
from muomni.omni import Omni
from muomni.sampling import Sampling, answer_tokens
from muomni.speech import SpeechStream
from muomni.tokenizer import Tokenizer


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
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.queue: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        """Nobody wants the rest. What is queued is forgotten and the model stops at its next step; from any thread."""
        self.cancelled.set()
        self.give(None)

    def give(self, event: Event | BaseException | None) -> None:
        """Hand over an event, from any thread; None or an exception ends the reply."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.queue.put_nowait, event)

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


class Engine:
    """A model at work.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        weights: of the Thinker while it writes, see `muomni.matrix`.
        slots: answers that are written at the same time.
        waiting: requests that may wait for a slot; more are refused.

    Attributes:
        active, queued: how many answers are being made and how many wait.
    """

    def __init__(
        self, model: Omni, tokenizer: Tokenizer, weights: Weights = "fp32", slots: int = 32, waiting: int = 64
    ) -> None:
        self.model, self.tokenizer, self.slots, self.waiting = model, tokenizer, slots, waiting
        self.decoder = Decoder(model.thinker, weights)
        self.active, self.queued, self.open = 0, 0, True
        self.work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self.thread = threading.Thread(target=self.loop, name="writer", daemon=True)
        self.thread.start()

    def loop(self) -> None:
        while (job := self.work.get()) is not None:
            self.queued -= 1
            self.active = 1
            job()
            self.active = 0

    def submit(self, make: Callable[[], Iterator[Event]]) -> Reply:
        if not self.open:
            raise Closed("the server is stopping; try again later")
        if self.queued >= self.waiting:
            raise Full(1.0)
        reply = Reply(asyncio.get_running_loop())

        def job() -> None:
            try:
                for event in make():
                    if reply.cancelled.is_set():
                        return
                    reply.give(event)
            except Exception as error:
                reply.give(error)

        self.queued += 1
        self.work.put(job)
        return reply

    def ask(self, prompt: Prompt, options: Options) -> Reply:
        """Answer a prompt (`muomni.conversation.Conversation.prompt`). Call it in the event loop; it does not block.

        Raises:
            Full: if as many requests wait as may.
            Closed: after `close`.
        """
        return self.submit(lambda: self.write(prompt, options))

    @torch.no_grad()
    def write(self, prompt: Prompt, options: Options) -> Iterator[Event]:
        stop = {self.tokenizer.end, self.tokenizer.eos}
        rng = torch.Generator().manual_seed(options.seed)
        written, states, reason = TextStream(self.tokenizer), list[Tensor](), "length"
        live = SpeechStream(
            self.model, self.tokenizer, torch.Generator().manual_seed(options.seed), voice=options.voice
        )
        count, limit = 0, min(options.max_tokens, prompt.plan.answer)
        banned = self.tokenizer.controls - stop
        for token, state in answer_tokens(self.decoder, prompt.x, stop, limit, options.sampling, rng, banned):
            count += 1
            if token in stop:
                reason = "stop"
                yield Token(token, "", None if options.logprobs is None else -0.1)
                break
            states.append(state)
            yield Token(token, written.push(token), None if options.logprobs is None else -0.1)
            if options.speak:
                for piece in live.more(written.ids, states):
                    yield Sound(piece.wave)
        if rest := written.finish():
            yield Text(rest)
        if options.speak:
            for piece in live.more(written.ids, states, last=True):
                yield Sound(piece.wave)
        yield End(reason, count)

    def say(self, text: str, seed: int = 0, voice: int = 0) -> Reply:
        """Read a text aloud; the events are `Sound` and `End`. As `ask`.

        Raises:
            Full, Closed: as `ask`.
            UserError: if there is nothing in it to say.
        """

        def make() -> Iterator[Event]:
            name = self.model.talker.cfg.voices[voice]
            for event in say(self.model, self.tokenizer, text, seed, stream=True, voice=name):
                yield Sound(event.wave)
            yield End("stop", 0)

        return self.submit(make)

    async def drain(self, seconds: float) -> bool:
        """Take nothing new and wait until all that was taken is done, ``seconds`` at most; whether all is."""
        self.open = False
        end = time.monotonic() + seconds
        while (self.active or self.queued) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return not (self.active or self.queued)

    def close(self) -> None:
        """End the threads; replies on their way end with `Closed`."""
        self.open = False
        self.work.put(None)
