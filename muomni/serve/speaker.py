"""The Talker's work for many answers at once: their next frames are made together, each as its text becomes known."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muomni.omni import Omni
from muomni.serve.reply import End, Event, Given, Reply, Sound, hand_over
from muomni.serve.rows import Rows
from muomni.speech import SpeechStream, Utterance
from muomni.tokenizer import Tokenizer
from muomni.walk import TalkerDecoder


class Speech:
    """What is to be heard in one reply: an answer as it is written, or sentences of a text that is read.

    Attributes:
        streams: one for each text, in order; the first is being spoken.
        end: the reply's last event, once the whole text is known.
    """

    def __init__(self, reply: Reply, seed: int, voice: int) -> None:
        self.reply, self.voice = reply, voice
        self.rng = torch.Generator().manual_seed(seed)
        self.streams: deque[SpeechStream] = deque()
        self.end: End | None = None


@dataclass(frozen=True, eq=False)
class Known:
    """News of a text: all its tokens so far, the Thinker's state after each, and whether it is complete.

    Attributes:
        new: whether it is another text than the one before.
        end: as `Speech.end`.
    """

    speech: Speech
    ids: Sequence[int]
    states: Sequence[Tensor]
    complete: bool
    new: bool
    end: End | None


@dataclass(frozen=True, eq=False)
class Voice:
    """An utterance with a row of the cache."""

    stream: SpeechStream
    utterance: Utterance

    @property
    def length(self) -> int:
        """Frames that were made."""
        return len(self.utterance.walk.codes)


class Speaker:
    """The Talker's work, a frame of all utterances at a time; `muomni.serve.engine` gives it a thread.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        slots: utterances at the same time.
    """

    def __init__(self, model: Omni, tokenizer: Tokenizer, slots: int) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.decoder = TalkerDecoder(model.talker)
        self.rows: Rows[Voice] = Rows(self.decoder.stack, slots, model.talker.cfg.frames)
        self.speeches: list[Speech] = []
        self.news: deque[Known] = deque()  # appended to by other threads
        self.given: list[Given] = []

    def stream(self, speech: Speech) -> SpeechStream:
        """Another text of a reply."""
        return SpeechStream(self.model, self.tokenizer, speech.rng, voice=speech.voice, decoder=self.decoder)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until there is news."""
        return not self.news and not self.speeches

    def hear(self) -> None:
        """Take the news."""
        while self.news:
            known = self.news.popleft()
            speech = known.speech
            if speech not in self.speeches:
                self.speeches.append(speech)
            if known.new:
                speech.streams.append(self.stream(speech))
            speech.streams[-1].feed(known.ids, known.states, known.complete)
            speech.end = known.end

    def step(self) -> bool:
        """Make the next frame of every utterance that can go on; whether there was one."""
        self.hear()
        ready: set[SpeechStream] = set()
        for speech in list(self.speeches):
            if speech.reply.over.is_set():
                self.speeches.remove(speech)
            elif (stream := self.look(speech)) is not None:
                ready.add(stream)
        for place in reversed(range(len(self.rows.inside))):
            voice = self.rows.inside[place]
            gone = all(not s.streams or s.streams[0] is not voice.stream for s in self.speeches)
            if gone or voice.stream.speaking is not voice.utterance:
                self.rows.leave(place)
        inside = {voice.stream for voice in self.rows.inside}
        for stream in ready:
            if stream not in inside and self.rows.room and stream.speaking is not None:
                self.rows.inside.append(Voice(stream, stream.speaking))
        moving = [row for row, voice in enumerate(self.rows.inside) if voice.stream in ready]
        if moving:
            self.frame(moving)
        return bool(moving)

    def look(self, speech: Speech) -> SpeechStream | None:
        """The text of a reply that a frame can be made of now, after what was heard is given and what is over left."""
        while speech.streams:
            stream = speech.streams[0]
            walk = stream.walk()
            self.give(speech, [Sound(piece.wave) for piece in stream.pieces()])
            if walk is not None:
                return stream
            if not stream.over:
                return None
            speech.streams.popleft()
        if speech.end is not None:
            self.give(speech, [speech.end])
            self.speeches.remove(speech)
        return None

    def frame(self, moving: list[int]) -> None:
        """Make a frame in some rows. The others are computed along, and what comes of it is not looked at."""
        voices = self.rows.inside
        walks = [voice.utterance.walk for voice in voices]
        characters = torch.cat(
            [
                voice.utterance.characters[:, min(walk.at, voice.utterance.upto - 1)]
                for voice, walk in zip(voices, walks, strict=True)
            ]
        )
        codes = self.decoder.frames(walks, characters, self.rows.view(), moving)
        for row, frame in zip(moving, codes, strict=True):
            voices[row].stream.take(frame)

    def give(self, speech: Speech, events: Sequence[Event]) -> None:
        """Events of a reply, to be handed over."""
        self.given += [(speech.reply, event) for event in events]

    def deliver(self) -> None:
        """Hand the events of a step over together."""
        given, self.given = self.given, []
        hand_over(given)

    def fail(self, error: BaseException) -> None:
        """End all replies with an error."""
        self.given += [(speech.reply, error) for speech in self.speeches]
        self.speeches.clear()
        while self.rows.inside:
            self.rows.leave(len(self.rows.inside) - 1)
        self.deliver()
