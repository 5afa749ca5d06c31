"""Asking the model: a session that streams text and speech, and dictation."""

import codecs
from collections.abc import Generator, Hashable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from muomni.conversation import Conversation, Picture, Prompt, Recording
from muomni.decoder import Cache, Decoder
from muomni.errors import UserError
from muomni.fusion import Plan
from muomni.matrix import Weights
from muomni.omni import Omni
from muomni.prompts import DICTATION
from muomni.sampling import Sampling, answer_tokens
from muomni.speech import SpeechStream, Spoken, speak
from muomni.tokenizer import Tokenizer

GREEDY = Sampling()


@dataclass(frozen=True)
class PlanEvent:
    """What of the conversation goes into the context; the first event of an answer."""

    plan: Plan


@dataclass(frozen=True)
class TextEvent:
    """More of the answer's text; joined, the pieces are the text."""

    piece: str


@dataclass(frozen=True, eq=False)
class AudioEvent:
    """More of the answer's speech: float32 ``[samples]`` at the model's sample rate."""

    wave: Tensor


@dataclass(frozen=True, eq=False)
class Answer:
    """A whole answer; the last event.

    Attributes:
        text: what was written.
        plan: what the model read.
        ended: whether the model ended the answer itself; False where the limit of tokens did.
        wave: float32 ``[samples]`` at the model's sample rate; None if not spoken or nothing in it can be.
        codes: ``[T, Q]`` int64 of the speech, or None.
    """

    text: str
    plan: Plan
    ended: bool
    wave: Tensor | None = None
    codes: Tensor | None = None


Event = PlanEvent | TextEvent | AudioEvent | Answer


class TextStream:
    """Token ids to pieces of text, an incomplete UTF-8 character held back until its last byte is there.

    Joined, the pieces are what `Tokenizer.decode` makes of all ids.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.begun = False  # whether any text was given
        self.bytes = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Text that is new with this token; often empty within a character spelled in bytes."""
        self.ids.append(token)
        spelled = self.tokenizer.spelled(token)
        if isinstance(spelled, bytes):
            return self._more(self.bytes.decode(spelled))
        return self.finish() + self._more(spelled)

    def finish(self) -> str:
        """What was held back: bytes that are no character."""
        rest = self.bytes.decode(b"", final=True)
        self.bytes.reset()
        return self._more(rest)

    def _more(self, piece: str) -> str:
        if piece and not self.begun:
            self.begun = True
            return piece.removeprefix(" ")
        return piece


class Session:
    """A conversation with the model.

    A question's prompt begins with what was read before: the earlier questions, with their pictures and recordings,
    and answers. The Thinker's keys and values of those positions are kept, so that it reads only what is new.

    Args:
        model: in eval mode; it must not learn on meanwhile.
        tokenizer: the one it was trained with.
        weights: what the Thinker writes with.
        decoder: its weights laid out already, for many sessions with one model; in the place of `weights`.

    Attributes:
        conversation: what was asked and answered so far.
        reused: positions of the last prompt that did not have to be read again.
    """

    def __init__(
        self, model: Omni, tokenizer: Tokenizer, weights: Weights = "fp32", decoder: Decoder | None = None
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.decoder = decoder or Decoder(model.thinker, weights)
        self.conversation = Conversation(model, tokenizer)
        self.reused = 0
        self._read: tuple[Cache, list[Hashable]] | None = None  # what the Thinker has read, and what it keeps of it
        self._said: tuple[list[int], Tensor] = ([], torch.empty(0))  # the last answer's tokens and states

    def reset(self) -> None:
        """Forget the conversation."""
        self.conversation.exchanges.clear()
        self._read = None
        self._said = ([], torch.empty(0))

    def _write(
        self, prompt: Prompt, stop: set[int], limit: int, sampling: Sampling, rng: torch.Generator
    ) -> Generator[tuple[int, Tensor], None, None]:
        """`answer_tokens`, with what the prompt shares with the last one not read again."""
        cache, keys = self._read or (self.decoder.new_cache(1, self.model.cfg.thinker.context), [])
        self._read = None  # another answer that begins before this one ends gets a cache of its own
        shared = 0
        for old, new in zip(keys, prompt.keys[:-1], strict=False):  # the last is read for the state that answers
            if old != new:
                break
            shared += 1
        cache.lengths, self.reused, keys = [shared], shared, list(prompt.keys)
        banned = self.tokenizer.controls - stop
        try:
            for token, state in answer_tokens(
                self.decoder, prompt.x[:, shared:], stop, limit, sampling, rng, banned, cache
            ):
                keys.append(token)
                yield token, state
        finally:  # also if nobody wants the rest of the answer
            self._read = cache, keys[: cache.lengths[0]]

    @torch.no_grad()
    def ask(
        self,
        text: str | None = None,
        images: Sequence[Picture] = (),
        video: str | Path | bytes | None = None,
        audio: Sequence[Recording] = (),
        *,
        speak: bool = False,
        stream: bool = False,
        sampling: Sampling = GREEDY,
        max_tokens: int = 128,
        seed: int = 0,
        voice: str = "",
    ) -> Iterator[Event]:
        """Ask, and get the answer as it comes.

        The exchange joins the conversation once the text is complete. The same inputs and seed give the same answer,
        whatever else draws random numbers.

        Args:
            text: the question; may be missing if there is something to look at or listen to.
            images: pictures, as files or in memory.
            video: a file, of which one picture a second is seen. Its sound is not heard; give it as audio.
            audio: recordings, as files or samples.
            speak: say the answer too.
            stream: say it while it is being written, in pieces of a fifth of a second; else sentence by sentence once
                it is. The codes are the same, the sound differs by how its phases are found.
            sampling: how tokens are drawn; greedy by default.
            max_tokens: tokens of the answer at most; a long question may leave room for a quarter of the context only.
            seed: of the draws of tokens and codes.
            voice: one of those that the Talker learned, by default the first.

        Yields:
            The plan, pieces of text and speech, and the whole `Answer`.

        Raises:
            UserError: at the first event, if an input is bad or too long, or there is no such voice.
        """
        model, tokenizer = self.model, self.tokenizer
        speaker = model.talker.cfg.voice(voice)
        question = self.conversation.message(text, images, video, audio)
        prompt = self.conversation.prompt(question, min(max_tokens, model.cfg.thinker.context // 4))
        yield PlanEvent(prompt.plan)
        stop = {tokenizer.end, tokenizer.eos}
        written, states, ended = TextStream(tokenizer), list[Tensor](), False
        live: SpeechStream | None = None
        if speak and stream:
            live = SpeechStream(model, tokenizer, torch.Generator().manual_seed(seed), voice=speaker)
        waves, codes = list[Tensor](), list[Tensor]()

        def heard(pieces: Iterator[Spoken]) -> Iterator[AudioEvent]:
            for spoken in pieces:
                waves.append(spoken.wave)
                codes.append(spoken.codes)
                yield AudioEvent(spoken.wave)

        rng = torch.Generator().manual_seed(seed)
        limit = min(max_tokens, prompt.plan.answer)
        with closing(self._write(prompt, stop, limit, sampling, rng)) as tokens:
            for token, state in tokens:
                if token in stop:
                    ended = True
                    break
                states.append(state)
                if piece := written.push(token):
                    yield TextEvent(piece)
                if live:
                    yield from heard(live.more(written.ids, states))
        if piece := written.finish():
            yield TextEvent(piece)
        said = tokenizer.decode(written.ids)
        if said.strip():  # an empty answer has no place in the template
            self.conversation.exchanges.append((question, said))
        self._said = (written.ids, torch.stack(states) if states else torch.empty(0))
        if speak:
            yield from heard(live.more(written.ids, states, last=True) if live else self._speak(seed, speaker))
        wave = torch.cat(waves) if waves else None
        yield Answer(said, prompt.plan, ended, wave, torch.cat(codes) if codes else None)

    def _speak(self, seed: int, voice: int) -> Iterator[Spoken]:
        ids, states = self._said
        return speak(self.model, self.tokenizer, ids, states, torch.Generator().manual_seed(seed), voice=voice)

    def say_again(self, seed: int = 0, voice: str = "") -> Tensor:
        """The last answer as speech, float32 ``[samples]``.

        Raises:
            UserError: if there is no answer, nothing in it can be spoken, or there is no such voice.
        """
        waves = [sentence.wave for sentence in self._speak(seed, self.model.talker.cfg.voice(voice))]
        if not waves:
            raise UserError("there is no answer to speak yet; ask something first")
        return torch.cat(waves)


def last(events: Iterator[Event]) -> Answer:
    """The whole answer, without its pieces.

    Raises:
        RuntimeError: if there is none.
    """
    for event in events:
        if isinstance(event, Answer):
            return event
    raise RuntimeError("the events ended without an answer")


def transcribe(
    model: Omni, tokenizer: Tokenizer, recording: Recording, max_tokens: int = 128, weights: Weights = "fp32"
) -> Answer:
    """Write down what is said in a recording: the task of dictation.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        recording: as for `Session.ask`.
        max_tokens: of the transcript at most.
        weights: the kind of number that the Thinker's matrices are kept in (`muomni.matrix`).

    Raises:
        UserError: if it is a file that cannot be read.
    """
    return last(Session(model, tokenizer, weights).ask(DICTATION, audio=[recording], max_tokens=max_tokens))
