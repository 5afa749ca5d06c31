"""One model answering many requests: what stands between the web's event loop and the model.

The event loop hands requests in and awaits their events. The Thinker writes in one thread, the Talker speaks in
another, each for all requests together.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable

import torch

from muomni.conversation import Prompt
from muomni.decoder import Decoder
from muomni.matrix import Weights
from muomni.omni import Omni
from muomni.reading_aloud import sentences_to_read
from muomni.serve.reading import Reading
from muomni.serve.reply import Closed, End, Event, Full, Options, Reply, Sound, Text, Token, hand_over
from muomni.serve.speaker import Speaker
from muomni.serve.writer import Writer, Writing
from muomni.tokenizer import Tokenizer

__all__ = ["Closed", "End", "Engine", "Event", "Full", "Options", "Reply", "Sound", "Text", "Token"]

MEMORY = 0.9  # share that an answer's duration keeps in the running mean at the next answer


class Engine:
    """A model at work.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        weights: of the Thinker while it writes, see `muomni.matrix`.
        slots: answers that are written, and spoken, at the same time.
        waiting: requests that may wait for a slot; more are refused.
        threads: CPU threads of one product of the Thinker. More than one helps on an otherwise idle machine, and costs
            many times what it gains where others want the same cores.

    Attributes:
        written: tokens so far.
    """

    def __init__(
        self,
        model: Omni,
        tokenizer: Tokenizer,
        weights: Weights = "fp32",
        slots: int = 32,
        waiting: int = 64,
        threads: int = 1,
    ) -> None:
        self.model, self.tokenizer, self.slots, self.waiting = model, tokenizer, slots, waiting
        self.decoder = Decoder(model.thinker, weights)
        self.speaker = Speaker(model, tokenizer, slots)
        self.writer = Writer(self.decoder, tokenizer, self.speaker, slots)
        self.queue: deque[Writing] = deque()
        self.readings: deque[Reading] = deque()
        self.changed = threading.Condition()  # guards the queues, and wakes the writer
        self.news = threading.Event()  # wakes the speaker
        self.open, self.working = True, True
        self.replies: dict[Reply, float] = {}  # those that are not complete, and when they came
        self.duration = 1.0  # running mean of an answer's, seconds
        self.threads = [
            threading.Thread(target=self.run, args=(work, fail, count), name=work.__name__, daemon=True)
            for work, fail, count in (
                (self.write, self.writer.fail, threads),
                (self.speak, self.speaker.fail, 1),
            )
        ]
        for thread in self.threads:
            thread.start()

    @property
    def active(self) -> int:
        """Requests that are being worked on."""
        return len(self.replies) - self.queued

    @property
    def queued(self) -> int:
        """Requests that wait for a slot."""
        with self.changed:
            return sum(not writing.reply.over.is_set() for writing in self.queue)

    @property
    def written(self) -> int:
        """Tokens that were written so far."""
        return self.writer.written

    def ask(self, prompt: Prompt, options: Options) -> Reply:
        """Answer a prompt (`muomni.conversation.Conversation.prompt`). Call it in the event loop; it does not block.

        Raises:
            Full: if as many requests wait as may.
            Closed: after `close`, and while it drains.
        """
        reply = self.admitted()
        with self.changed:
            self.queue.append(Writing(prompt, options, reply, self.tokenizer))
            self.changed.notify()
        return reply

    def say(self, text: str, seed: int = 0, voice: int = 0) -> Reply:
        """Read a text aloud; the events are `Sound` and `End`. As `ask`.

        Raises:
            Full, Closed: as `ask`.
            UserError: if there is nothing in it to say, or a sentence does not fit the context.
        """
        sentences = sentences_to_read(self.model, self.tokenizer, text)
        reply = self.admitted()
        with self.changed:
            self.readings.append(Reading(sentences, reply, seed, voice))
            self.changed.notify()
        return reply

    def admitted(self) -> Reply:
        """A reply, if there is room for another request.

        Raises:
            Closed: if the server is stopping.
            Full: if there is none.
        """
        if not self.open:
            raise Closed("the server is stopping: it takes no new requests")
        waiting = len(self.replies) - self.slots
        if waiting >= self.waiting:
            raise Full(max(1.0, round(self.duration * (waiting + 1) / self.slots, 1)))
        reply = Reply(asyncio.get_running_loop(), self.left)
        self.replies[reply] = time.monotonic()
        return reply

    def left(self, reply: Reply) -> None:
        """A reply is complete or not wanted; in the event loop."""
        came = self.replies.pop(reply, None)
        if came is not None and not reply.over.is_set():
            self.duration = MEMORY * self.duration + (1 - MEMORY) * (time.monotonic() - came)

    def run(self, work: Callable[[], None], fail: Callable[[BaseException], None], threads: int) -> None:
        """A thread's whole life. What goes wrong in the model ends the answers that it works on, and nothing else."""
        torch.set_num_threads(threads)
        with torch.inference_mode():
            while self.working:
                try:
                    work()
                except Exception as error:
                    fail(error)

    def write(self) -> None:
        """The writer's turn: new prompts, a sentence that is to be read, a token of every answer."""
        with self.changed:
            while self.working and not (self.queue or self.readings or self.writer.rows.inside):
                self.changed.wait()
            new = self.writer.take(self.queue)
        if not self.working:
            return
        self.writer.admit(new)
        if self.readings:
            self.read()
        self.writer.step()
        self.writer.deliver()
        if self.speaker.news:
            self.news.set()

    def read(self) -> None:
        """A sentence of the text whose turn it is."""
        reading = self.readings.popleft()
        if reading.reply.over.is_set():
            return
        self.speaker.news.append(reading.next(self.decoder))
        if reading.sentences:
            self.readings.append(reading)

    def speak(self) -> None:
        """The speaker's turn: a frame of every utterance."""
        if self.speaker.idle:
            self.news.wait()
        self.news.clear()
        moved = self.speaker.step()
        self.speaker.deliver()
        if not moved and self.working:
            self.news.wait()

    async def drain(self, seconds: float) -> bool:
        """Take nothing new and wait until all that was taken is done, ``seconds`` at most; whether all is."""
        self.open = False
        end = time.monotonic() + seconds
        while self.replies and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return not self.replies

    def close(self) -> None:
        """End the threads; replies on their way end with `Closed`."""
        self.open = self.working = False
        with self.changed:
            self.changed.notify_all()
        self.news.set()
        for thread in self.threads:
            thread.join()
        hand_over([(reply, Closed("the server has stopped")) for reply in tuple(self.replies)])
