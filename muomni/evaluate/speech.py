"""What becomes of speech: through the vocoder, through the codec, and as the Talker says it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muomni.audio_encoder import normalise
from muomni.codec import Codec
from muomni.evaluate.measure import Figure, character_errors, figure, mean, ratio, share
from muomni.talker import Talker, spell
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.walk import LONGEST_STAY

RUNS = (0.5, 2.0)  # speech that lasts less or more than this, times the recording, ran short or long


@dataclass(frozen=True)
class Said:
    """A text as the Talker says it.

    Attributes:
        codes: ``[T, Q]`` int64, 50 frames a second.
        ended: whether it went through the whole text by its own decisions, never held up for a second.
    """

    codes: Tensor
    ended: bool


def ended(positions: Tensor, characters: int, frames: int) -> bool:
    """Whether speech came to its end by itself.

    Args:
        positions: ``[T]`` the character of each frame.
        characters: of the text.
        frames: that the Talker makes at most.
    """
    longest = int(torch.bincount(positions).max())
    return int(positions[-1]) == characters - 1 and len(positions) < frames and longest < LONGEST_STAY


@torch.no_grad()
def say(talker: Talker, thinker: Thinker, tokenizer: Tokenizer, text: str, seed: int, voice: int = 0) -> Said:
    """Have the Talker say a text from the states of a Thinker that reads it as an answer.

    Args:
        talker: in eval mode.
        thinker: in eval mode.
        tokenizer: in eval mode.
        text: with a letter or digit.
        seed: of the codes.
        voice: index into the Talker's voices.
    """
    device = talker.advance.weight.device
    ids = tokenizer.encode(text)
    spelled, tokens = spell(tokenizer.decode(ids), tokenizer.char_spans(ids))
    states = thinker(thinker.embed(torch.tensor([[tokenizer.assistant, *ids]], device=device)))[0, 1:]
    rng = torch.Generator().manual_seed(seed)
    characters = torch.tensor(spelled, device=device)
    codes, positions = talker.generate(characters, states[tokens], rng, voice=voice)
    return Said(codes, ended(positions, len(spelled), talker.cfg.frames))


@torch.no_grad()
def score_codec(codec: Codec, mels: Sequence[Tensor], seed: int) -> dict[str, Figure]:
    """Error of decoded frames, how much of each codebook is used, and what exchanged codebooks would cost.

    Args:
        codec: in eval mode.
        mels: log-mels ``[T, M]`` at 50 Hz.
        seed: of the intervals.

    Returns:
        ``mel_error`` in nats; ``used_0`` and on: share of a codebook's codes that occur, ``bits_0`` and on: their
        entropy; ``exchanged_error``: with base and residual codes exchanged; ``exchange_matters``: share of the
        recordings whose error that raises by half or more.
    """
    device = codec.encoder.weight.device
    errors, exchanged, codes = [], [], []
    for mel in mels:
        mel = mel.to(device).float()
        code = codec.encode(mel)  # [T, Q]
        errors.append(float((codec.decode(code[None])[0] - mel).abs().mean()))
        exchanged.append(float((codec.decode(code.flip(-1)[None])[0] - mel).abs().mean()))
        codes.append(code.cpu())
    frames = torch.cat(codes)
    found = {"mel_error": mean(errors, seed), "exchanged_error": mean(exchanged, seed)}
    found["exchange_matters"] = share([e > 1.5 * own for own, e in zip(errors, exchanged, strict=True)])
    for q in range(frames.shape[1]):
        counts = torch.bincount(frames[:, q], minlength=codec.cfg.codes)
        p = counts[counts > 0] / len(frames)
        found[f"used_{q}"] = share([bool(count) for count in counts])
        bits = -float((p * p.log()).sum()) / math.log(2)
        found[f"bits_{q}"] = figure(bits, len(frames), bits, bits)
    return found


def score_talker(said: Sequence[Said], recorded: Sequence[int], seed: int) -> dict[str, Figure]:
    """Whether the Talker takes about as long as the recordings, and comes to an end.

    Args:
        said: the Talker's.
        recorded: frames of each recording at 50 Hz.
        seed: of the intervals.
    """
    lengths = [len(s.codes) for s in said]
    ratios = [length / own for length, own in zip(lengths, recorded, strict=True)]
    return {
        "duration_ratio": ratio(lengths, list(recorded), seed),
        "ended": share([s.ended for s in said]),
        "ran_short": share([r < RUNS[0] for r in ratios]),
        "ran_long": share([r > RUNS[1] for r in ratios]),
    }


def judged(texts: Sequence[str], heard: Sequence[str], seed: int) -> Figure:
    """Character error rate of transcripts against what should have been said."""
    return character_errors([normalise(text) for text in texts], list(heard), seed)
