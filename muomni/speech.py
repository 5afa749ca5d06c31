"""An answer's text as speech: sentence by sentence through Talker, codec and vocoder."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muomni.audio_encoder import normalise
from muomni.codec import DecoderStream
from muomni.omni import Omni
from muomni.talker import Talker, spell
from muomni.tokenizer import Tokenizer
from muomni.walk import Speaker, TalkerDecoder, Walk

# Frames that a character takes on average at most; 3.5 is usual. What is longer than the Talker's frames is divided.
FRAMES_A_CHARACTER = 5
LONGEST = 160  # characters, about 12 s: no recording that the Talker learned from is longer
ABBREVIATIONS = ("mr.", "mrs.", "ms.", "dr.", "st.", "no.", "vs.", "e.g.", "i.e.")
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")


@dataclass(frozen=True)
class Spoken:
    """A sentence or a piece of one as sound.

    Attributes:
        wave: float32 ``[samples]`` at the mel's sample rate, in [-1, 1].
        codes: ``[T, Q]`` int64, 50 frames a second.
    """

    wave: Tensor
    codes: Tensor


def sentences(text: str, longest: int) -> list[tuple[int, int]]:
    """Where the sentences of a text are, each short enough to be spoken in one go.

    Args:
        text: any text.
        longest: characters of a sentence at most, digits counted as the words they are spoken as.

    Returns:
        Start and end of each. A longer sentence is divided between words, a longer word anywhere.
    """
    found, rest = closed_sentences(text, longest)
    return [*found, rest] if rest else found


def closed_sentences(text: str, longest: int) -> tuple[list[tuple[int, int]], tuple[int, int] | None]:
    """`sentences`, and apart from them the last one if more text would belong to it."""
    found: list[tuple[int, int]] = []
    begin, end, size = 0, 0, 0
    digits = max(1, longest // 8)
    for word in re.finditer(rf"[0-9]{{1,{digits}}}|[^\s0-9]{{1,{longest}}}", text):
        cost = max(len(word[0]), len(normalise(word[0]))) + 1
        if size and size + cost > longest:
            found.append((begin, end))
            size = 0
        if not size:
            begin = word.start()
        end, size = word.end(), size + cost
        last = text[begin:end].rsplit(maxsplit=1)[-1]
        closes = SENTENCE_END.search(last) and last.lower() not in ABBREVIATIONS
        if closes and (end == len(text) or text[end].isspace()):
            found.append((begin, end))
            size = 0
    return found, (begin, end) if size else None


def longest_sentence(talker: Talker) -> int:
    """Characters that the Talker can say in one go."""
    return max(16, min(LONGEST, talker.cfg.frames // FRAMES_A_CHARACTER))


def speakable(text: str) -> bool:
    """Whether anything of a text is heard: a letter or a digit."""
    return bool(normalise(text).strip(" '"))


def spell_part(text: str, spans: Sequence[tuple[int, int]], start: int, end: int) -> tuple[list[int], list[int]]:
    """Like `muomni.talker.spell` for ``text[start:end]`` of a longer text; tokens are counted in the whole."""
    inside = [i for i, (a, b) in enumerate(spans) if a < end and b > start]
    part = [(max(a, start) - start, min(b, end) - start) for a, b in (spans[i] for i in inside)]
    characters, tokens = spell(text[start:end], part)
    return characters, [inside[token] for token in tokens]


@torch.no_grad()
def speak(
    model: Omni,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    states: Tensor,
    rng: torch.Generator,
    temperature: float | None = None,
    voice: int = 0,
) -> Iterator[Spoken]:
    """Say a text in a voice of the Talker.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        ids: the text's tokens.
        states: the Thinker's state after reading each, ``[n, D]``.
        rng: source of the codes, on the CPU.
        temperature: of the codes, by default the configured one; 0 takes the likeliest.
        voice: index into the Talker's voices.

    Yields:
        Each sentence; those without a letter or digit are passed over.
    """
    text, spans = tokenizer.decode(ids), tokenizer.char_spans(ids)
    for start, end in sentences(text, longest_sentence(model.talker)):
        if not speakable(text[start:end]):
            continue
        characters, tokens = spell_part(text, spans, start, end)
        codes, _ = model.talker.generate(
            torch.tensor(characters, device=states.device), states[tokens], rng, temperature, voice=voice
        )
        mel = model.codec.decode(codes[None])[0].float()  # [T, M] at 50 Hz
        yield Spoken(model.vocoder(mel).cpu(), codes.cpu())


class SpeechStream:
    """Speech of a text that is still being written, in the pieces that can be made so far.

    The Talker says a character once it knows the few after it that colour it, within words that are complete. Its codes
    are the same as `speak` gives for the whole text; the sound is found in windows that move on
    (`muomni.vocoder.VocoderStream`).

    `more` makes everything at once. Who makes the frames of many utterances together uses its parts: `feed` says what
    is known, `walk` whose next frame can be made, `take` that it was made, and `pieces` what can be heard.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        rng: source of the codes, on the CPU.
        temperature: of the codes, by default the configured one; 0 takes the likeliest.
        chunk: frames that are turned into sound at once, 50 a second.
        voice: index into the Talker's voices.
        decoder: the Talker laid out already.

    Attributes:
        speaking: the sentence that is being spoken, if any.
    """

    def __init__(
        self,
        model: Omni,
        tokenizer: Tokenizer,
        rng: torch.Generator,
        temperature: float | None = None,
        chunk: int = 10,
        voice: int = 0,
        decoder: TalkerDecoder | None = None,
    ) -> None:
        self.voice = voice
        self.model, self.tokenizer, self.rng, self.temperature, self.chunk = model, tokenizer, rng, temperature, chunk
        self.decoder = decoder or TalkerDecoder(model.talker)
        self.said = 0  # sentences that are spoken
        self.complete = False  # whether the whole text is known
        self.waiting: list[Known] = []  # sentences that are not, the last perhaps in parts
        self.speaking: Utterance | None = None
        self.made: list[Spoken] = []

    @torch.no_grad()
    def more(self, ids: Sequence[int], states: Sequence[Tensor], last: bool = False) -> Iterator[Spoken]:
        """Speak what has become known.

        Args:
            ids: all tokens of the text so far.
            states: the Thinker's state after reading each, ``[D]``.
            last: whether the text is complete.

        Yields:
            Pieces of sound with the codes that were made since the piece before.
        """
        self.feed(ids, states, last)
        while self.walk() is not None:
            utterance = self.speaking
            assert utterance is not None
            if utterance.speaker is None:
                utterance.speaker = Speaker(self.decoder, utterance.walk)
            for codes in utterance.speaker.to(utterance.characters, utterance.upto):
                self.take(codes)
                yield from self.pieces()
        yield from self.pieces()

    @torch.no_grad()
    def feed(self, ids: Sequence[int], states: Sequence[Tensor], last: bool = False) -> None:
        """Say what is known of the text; arguments as of `more`."""
        self.complete = last
        text, spans = self.tokenizer.decode(ids), self.tokenizer.char_spans(ids)
        if not last:  # a word may go on
            text = text[: max((place for place, c in enumerate(text, 1) if c.isspace()), default=0)]
        closed, rest = closed_sentences(text, longest_sentence(self.model.talker))
        parts = [*((part, True) for part in closed), *([(rest, last)] if rest else [])]
        self.waiting = [
            Known(*spell_part(text, spans, start, end), states, complete, speakable(text[start:end]))
            for (start, end), complete in parts[self.said :]
        ]

    @torch.no_grad()
    def walk(self) -> Walk | None:
        """The way of the sentence whose next frame can be made with what is known; None if more has to be known."""
        while self.waiting:
            known = self.waiting[0]
            if self.speaking is None and known.audible:
                self.speaking = Utterance(self)
            if self.speaking is not None:
                if known.fresh:
                    self.speaking.learn(known)
                    known.fresh = False
                if self.speaking.walk.goes_on(self.speaking.upto):
                    return self.speaking.walk
            if not known.complete:
                return None
            if self.speaking is not None:
                self.made += self.speaking.finish()
                self.speaking = None
            self.waiting.pop(0)
            self.said += 1
        return None

    @property
    def over(self) -> bool:
        """Whether all is spoken; to be asked after `walk`."""
        return self.complete and not self.waiting

    def take(self, codes: Tensor) -> None:
        """The next frame was made, its codes ``[Q]`` int64; the walk knows them."""
        assert self.speaking is not None
        self.made += self.speaking.take(codes)

    def pieces(self) -> list[Spoken]:
        """What can be heard now and was not given yet."""
        made, self.made = self.made, []
        return made


@dataclass
class Known:
    """What is known of a sentence: characters, the token of each, the states of all tokens, whether it is complete.

    Attributes:
        audible: whether there is a letter or digit in it.
        fresh: whether it is not looked at yet.
    """

    characters: list[int]
    tokens: list[int]
    states: Sequence[Tensor]
    complete: bool
    audible: bool
    fresh: bool = True


class Utterance:
    """A sentence that is being spoken.

    Attributes:
        walk: its way through its characters.
        upto: the character that cannot be spoken yet.
        characters: states of the characters that are known, ``[1, N, D]``.
        speaker: makes its frames, where they are made one by one.
    """

    def __init__(self, stream: SpeechStream) -> None:
        self.stream, self.talker = stream, stream.model.talker
        self.walk = Walk(self.talker, stream.rng, stream.temperature, voice=stream.voice)
        self.upto, self.codes = 0, list[Tensor]()
        self.speaker: Speaker | None = None
        self.decoder = DecoderStream(stream.model.codec)
        self.vocoder = stream.model.vocoder.stream(stream.chunk)

    def learn(self, known: Known) -> None:
        """More of the text is known."""
        characters, tokens = known.characters, known.tokens
        if not known.complete:  # what looks like the pause at the end may be one between words
            characters, tokens = characters[:-1], tokens[:-1]
        upto = len(characters) if known.complete else len(characters) - self.talker.condition.reach
        if upto <= self.walk.at:
            return
        self.upto, device = upto, known.states[0].device
        self.characters = self.talker.condition(
            torch.tensor([characters], device=device),
            torch.stack([known.states[token] for token in tokens])[None],
            torch.tensor([self.stream.voice], device=device),
        )

    @property
    def here(self) -> Tensor:
        """The state of the character that the next frame is on, of those that can be spoken, ``[1, D]``."""
        return self.characters[:, min(self.walk.at, self.upto - 1)]

    def take(self, codes: Tensor) -> list[Spoken]:
        """A frame was made; the sound that is ready."""
        self.codes.append(codes.cpu())
        wave = self.vocoder.push(self.decoder.push(codes[None].to(self.talker.advance.weight.device))).cpu()
        return [self.piece(wave)] if len(wave) else []

    def finish(self) -> list[Spoken]:
        """The rest of the sound."""
        wave = self.vocoder.push(self.decoder.finish())
        return [self.piece(torch.cat((wave, self.vocoder.finish())).cpu())]

    def piece(self, wave: Tensor) -> Spoken:
        """Sound with the codes that were made meanwhile."""
        none = torch.zeros(0, self.talker.cfg.codebooks, dtype=torch.int64)
        codes, self.codes = torch.stack(self.codes) if self.codes else none, []
        return Spoken(wave, codes)
