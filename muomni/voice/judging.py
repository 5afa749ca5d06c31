"""Before and after: how well a voice's sentences are understood, and how much it sounds like the person."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from muomni.codec import Codec
from muomni.evaluate.judge import Judge
from muomni.evaluate.measure import Figure, mean, shown
from muomni.evaluate.similarity import SpeakerEncoder
from muomni.evaluate.speech import judged, say
from muomni.evaluate.speech_check import Checked, listen_to
from muomni.omni import Omni
from muomni.tokenizer import Tokenizer
from muomni.voice.recordings import Spoken

RECORDED, CODED, BEFORE, AFTER, OLD = "recording", "codec", "before", "after", "old voice after"


class Unheard:
    """Stands for the judge where there is none: nothing is heard."""

    name = "nobody"

    def hear(self, wave: Tensor) -> str:
        """No word."""
        return ""


@dataclass(frozen=True)
class Compared:
    """Two models, and the voices that are compared.

    Attributes:
        before, after: in eval mode.
        own: the codec of the new voice, in eval mode.
        tokenizer: of both.
        like: number of the old voice that is nearest to the person.
        new: number of the new voice.
    """

    before: Omni
    after: Omni
    own: Codec
    tokenizer: Tokenizer
    like: int
    new: int

    @torch.no_grad()
    def said(self, model: Omni, text: str, voice: int, seed: int) -> Tensor:
        """A text as a model says it, float32 ``[samples]``."""
        codes = say(model.talker, model.thinker, self.tokenizer, text, seed, voice).codes
        return model.vocoder(model.codec.decode(codes[None])[0]).cpu()

    @torch.no_grad()
    def sounds(self, text: str, recording: Spoken | None, seed: int) -> Iterator[tuple[str, Tensor]]:
        """What is compared for one sentence."""
        if recording is not None:
            yield RECORDED, recording.wave
            mel = recording.mel[::2].to(self.own.encoder.weight.device)
            yield CODED, self.after.vocoder(self.own.decode(self.own.encode(mel)[None])[0]).cpu()
        yield BEFORE, self.said(self.before, text, self.like, seed)
        yield AFTER, self.said(self.after, text, self.new, seed)
        yield OLD, self.said(self.after, text, self.like, seed)


def compare(
    both: Compared,
    held: Sequence[Spoken],
    more: Sequence[str],
    person: Sequence[Tensor],
    judge: Judge | None,
    encoder: SpeakerEncoder | None,
    seed: int,
    progress: Callable[[], object],
) -> Checked:
    """Have sentences said before and after, and judged.

    Args:
        both: the models.
        held: recordings that nothing was learned from.
        more: further sentences that the person did not say.
        person: recordings of the person, to compare voices with.
        judge: the recogniser; None: no error rates.
        encoder: of speakers; None: no similarities.
        seed: of the codes that are drawn, and of the intervals.
        progress: called after each sentence.
    """
    recordings = {one.text: one for one in held}
    texts = [*recordings, *more]
    likeness = dict[str, list[float]]()
    voice = encoder.voice(person) if encoder else None

    def sounds(text: str) -> Iterator[tuple[str, Tensor]]:
        for name, wave in both.sounds(text, recordings.get(text), seed):
            if encoder is not None and voice is not None:
                likeness.setdefault(name, []).append(float(encoder(wave) @ voice))
            yield name, wave

    found = listen_to(texts, sounds, judge or Unheard(), progress)  # type: ignore[arg-type]
    found.scores = {
        "judge": judge.name if judge else None,
        "encoder": encoder.name if encoder else None,
        "signals": {
            name: figures_of(texts[: len(heard)], heard if judge else None, likeness.get(name), seed)
            for name, heard in found.heard.items()
        },
    }
    if judge is None:
        found.heard = {}
    return found


def figures_of(
    texts: Sequence[str], heard: Sequence[str] | None, likeness: Sequence[float] | None, seed: int
) -> dict[str, Figure]:
    """CER and similarity of one signal, of those that there are."""
    made = {}
    if heard is not None:
        made["cer"] = judged(texts, heard, seed)
    if likeness is not None:
        made["similarity"] = mean(likeness, seed)
    return made


def table(scores: dict[str, Any], names: dict[str, str]) -> list[tuple[str, str]]:
    """Names and values, as they are printed and stand on the page.

    Args:
        scores: of `compare`.
        names: what to call each signal.
    """
    words = {"cer": "characters misheard", "similarity": "similarity"}
    return [
        (f"{words[kind]}: {names[signal]}", shown(figure))
        for kind in words
        for signal, figures in scores["signals"].items()
        if (figure := figures.get(kind)) is not None
    ]
