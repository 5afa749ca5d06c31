"""What a voice is learned from: the recordings, and the old voice's speech made to sound like them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from muomni.codec import Codec
from muomni.errors import UserError
from muomni.omni import Omni
from muomni.tokenizer import Tokenizer
from muomni.train.speaking import Utterance
from muomni.voice.converting import Converter, Example
from muomni.voice.pairing import on_characters, pairs_of
from muomni.voice.recordings import Spoken
from muomni.voice.saying import say_all
from muomni.voice.settings import LEAST_HELD
from muomni.voice.variants import variants

DRAWS = 3  # times that the old voice says each recording's text, a little differently each time


@dataclass(frozen=True)
class Recorded:
    """A recording that the old voice has said too.

    Attributes:
        spoken: the recording.
        utterance: its text, still without codes, with the character of each frame at 50 Hz.
        examples: it and the old voice's ways to say it.
    """

    spoken: Spoken
    utterance: Utterance
    examples: list[Example]


@torch.no_grad()
def decoded(codec: Codec, codes: Tensor) -> Tensor:
    """Codes ``[T, Q]`` to log-mel ``[T, M]`` at 50 Hz, on the CPU."""
    return codec.decode(codes[None].to(codec.encoder.weight.device))[0].cpu()


def in_both_voices(model: Omni, tokenizer: Tokenizer, like: int, seed: int, spoken: Sequence[Spoken]) -> list[Recorded]:
    """Have an old voice say what was recorded, and match the two.

    Args:
        model: in eval mode.
        tokenizer: its.
        like: number of the old voice.
        seed: of what it says.
        spoken: recordings of the splits ``train`` and ``valid``; those for validation teach the matching nothing.

    Returns:
        The recordings; the new voice is the one after the model's last.

    Raises:
        UserError: if most of the recordings are too short for their texts.
    """
    spoken = sorted(spoken, key=lambda one: one.split != "train")
    texts = [one.text for one in spoken for _ in range(DRAWS)]
    said = say_all(model, tokenizer, texts, like, seed)
    new = [one.mel[::2] for one in spoken for _ in range(DRAWS)]
    learn = DRAWS * sum(one.split == "train" for one in spoken)
    pairs = pairs_of([decoded(model.codec, u.codes) for u in said], new, learn)
    found, voice = [], len(model.cfg.talker.voices)
    for number, one in enumerate(spoken):
        mine = range(number * DRAWS, (number + 1) * DRAWS)
        best = min(mine, key=lambda i: pairs[i].distance)
        way = on_characters(pairs[best], said[best].position, len(said[best].characters))
        if way is not None:
            utterance = replace(said[best], codes=said[best].codes[:0], position=way, voice=voice, number=number)
            found.append(Recorded(one, utterance, [Example(pairs[i], new[i]) for i in mine]))
    splits = [one.spoken.split for one in found]
    if splits.count("valid") < LEAST_HELD // 2 or splits.count("train") < LEAST_HELD:
        raise UserError("most recordings are too short for their texts; are these the texts of these recordings?")
    return found


def written(recorded: Sequence[Recorded], split: str) -> Iterator[tuple[Tensor, Utterance]]:
    """Log-mels at 50 Hz with their utterances: for ``train`` each recording in several variants."""
    for one in recorded:
        if one.spoken.split != split:
            continue
        if split == "train":
            for mel, way in variants(one.spoken.mel, one.utterance.position):
                yield mel, replace(one.utterance, position=way)
        else:
            yield one.spoken.mel[::2], one.utterance


def examples_of(recorded: Sequence[Recorded]) -> tuple[list[Example], list[Example]]:
    """What the converter learns from, and what it is validated with."""
    train, valid = ([one for one in recorded if one.spoken.split == split] for split in ("train", "valid"))
    return [e for one in train for e in one.examples], [e for one in valid for e in one.examples]


@torch.no_grad()
def in_codes(own: Codec, some: Sequence[tuple[Tensor, Utterance]]) -> Iterator[Utterance]:
    """Utterances with the voice's codes."""
    device = own.encoder.weight.device
    for mel, utterance in some:
        yield replace(utterance, codes=own.encode(mel.to(device)).cpu())


def converted(
    old: Codec, converter: Converter, own: Codec, said: Sequence[Utterance], voice: int
) -> Iterator[Utterance]:
    """What an old voice said, as the new one would.

    Args:
        old: the model's codec.
        converter: in eval mode.
        own: the new voice's codec, in eval mode.
        said: utterances in the old voice's codes.
        voice: number of the new voice.
    """
    device = converter.linear.weight.device
    mels = (converter.convert(decoded(old, u.codes).to(device)).cpu() for u in said)
    yield from in_codes(own, [(mel, replace(u, voice=voice)) for mel, u in zip(mels, said, strict=True)])
