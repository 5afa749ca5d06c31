"""An answer's text as speech: sentence by sentence through Talker, codec and vocoder."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muomni.audio_encoder import normalise
from muomni.omni import Omni
from muomni.talker import Talker, spell
from muomni.tokenizer import Tokenizer
from muomni.vocoder import griffin_lim

# Frames that a character takes on average at most; 3.5 is usual. What is longer than the Talker's frames is divided.
FRAMES_A_CHARACTER = 5
LONGEST = 160  # characters, about 12 s: no recording that the Talker learned from is longer
ABBREVIATIONS = ("mr.", "mrs.", "ms.", "dr.", "st.", "no.", "vs.", "e.g.", "i.e.")
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*$")


@dataclass(frozen=True)
class Spoken:
    """One sentence as sound.

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
    return [*found, (begin, end)] if size else found


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
) -> Iterator[Spoken]:
    """Say a text in the Talker's voice.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        ids: the text's tokens.
        states: the Thinker's state after reading each, ``[n, D]``.
        rng: source of the codes, on the CPU.
        temperature: of the codes, by default the configured one; 0 takes the likeliest.

    Yields:
        Each sentence; those without a letter or digit are passed over.
    """
    text, spans = tokenizer.decode(ids), tokenizer.char_spans(ids)
    for start, end in sentences(text, longest_sentence(model.talker)):
        if not speakable(text[start:end]):
            continue
        characters, tokens = spell_part(text, spans, start, end)
        codes, _ = model.talker.generate(
            torch.tensor(characters, device=states.device), states[tokens], rng, temperature
        )
        mel = model.codec.decode(codes[None])[0].float()  # [T, M] at 50 Hz
        yield Spoken(griffin_lim(mel, model.cfg.mel, model.cfg.vocoder), codes.cpu())
