"""The old voice and the person saying the same: that frames find each other, and what is made of that."""

import numpy as np
import pytest
import torch
from torch import Tensor

from muomni.evaluate.speech import say
from muomni.omni import Omni
from muomni.tokenizer import Tokenizer
from muomni.voice.converting import ConverterTask, Example
from muomni.voice.learning import shares_of
from muomni.voice.material import converted
from muomni.voice.pairing import Pair, on_characters, pairs_of, warped
from muomni.voice.saying import say_all
from muomni.voice.settings import converter_config

SEED, BANDS = 3, 32


def sentence_of(rng: torch.Generator, frames: int) -> Tensor:
    """A log-mel ``[T, BANDS]`` that changes slowly, no two frames alike."""
    corners = torch.randn(frames // 8 + 2, 6, generator=rng)
    smooth = torch.nn.functional.interpolate(corners.T[None], size=frames, mode="linear", align_corners=True)[0].T
    bands = torch.arange(BANDS) / BANDS
    return smooth @ torch.stack([torch.cos(np.pi * k * bands) for k in range(1, 7)])


def other_voice(mel: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same with louder low bands and softer high ones, at a pace that changes; and the frame that each was."""
    pace = 0.7 + 0.6 * torch.rand(len(mel), generator=rng)
    place = pace.cumsum(0) / pace.sum() * (len(mel) - 1)
    frames = place.round().long()
    return 0.5 * mel[frames] * torch.linspace(1.5, 0.5, BANDS) + 1, frames


def two_voices(count: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Sentences of an old voice, of another, and which frames go together."""
    print("seed", SEED)
    rng = torch.Generator().manual_seed(SEED)
    old = [sentence_of(rng, 80 + 3 * number) for number in range(count)]
    new, frames = zip(*(other_voice(mel, rng) for mel in old), strict=True)
    return old, list(new), list(frames)


def test_the_cheapest_way_goes_where_the_distance_is_least() -> None:
    truth = np.array([0, 0, 1, 2, 4, 5, 5, 6])
    distance = np.abs(np.arange(7)[None] - truth[:, None]).astype(float) * 10
    assert warped(distance).tolist() == truth.tolist()


def test_frames_of_two_voices_find_each_other() -> None:
    old, new, truth = two_voices(12)
    pairs = pairs_of(old, new, 10)
    for pair, mel in zip(pairs, new, strict=True):
        assert len(pair.frames) == len(mel) and bool((pair.frames.diff() >= 0).all())
    off = torch.cat([(pair.frames - frames).abs().float() for pair, frames in zip(pairs, truth, strict=True)])
    assert float(off.median()) <= 1 and float(off.mean()) < 2


@pytest.mark.parametrize("frames", [20, 200])
def test_a_voice_of_a_quite_different_pace_is_matched_to_its_end(frames: int) -> None:
    old, new, _ = two_voices(4)
    pace = torch.linspace(0, len(new[0]) - 1, frames).long()
    pair = pairs_of(old, [new[0][pace], *new[1:]], 4)[0]
    assert len(pair.frames) == frames and int(pair.frames[0]) == 0 and int(pair.frames[-1]) == len(old[0]) - 1


def test_every_character_gets_a_frame_where_the_old_voice_skips_one() -> None:
    pair = Pair(torch.zeros(6, 1), torch.tensor([0, 1, 4, 4, 5]), 0.0)
    way = on_characters(pair, torch.tensor([0, 0, 1, 1, 2, 3]), 4)
    assert way is not None and way.tolist() == [0, 1, 2, 2, 3]
    assert on_characters(pair, torch.arange(6), 6) is None  # five frames, six characters


def test_what_is_said_together_is_said_to_its_end(small: tuple[Omni, Tokenizer]) -> None:
    model, tokenizer = small
    texts = ["Two dogs.", "The cat is to the left of the parrot.", "No."]
    for u in say_all(model, tokenizer, texts, 0, 5):
        assert u.text in texts and len(u.codes) == len(u.position)
        assert int(u.position[0]) == 0 and int(u.position[-1]) == len(u.characters) - 1
    for text in texts:  # a single one is said as by the Talker alone
        one = say_all(model, tokenizer, [text], 0, 0)[0]
        assert torch.equal(one.codes, say(model.talker, model.thinker, tokenizer, text, 0).codes)


def test_the_converter_learns_the_other_voice_and_its_speech_keeps_the_way(small: tuple[Omni, Tokenizer]) -> None:
    model, tokenizer = small
    bands = model.cfg.codec.n_mels
    said = say_all(model, tokenizer, ["Two dogs.", "One cat."], 0, 1)
    old = [model.codec.decode(u.codes[None])[0] for u in said]
    examples = [Example(Pair(mel, torch.arange(len(mel)), 0.0), 0.5 * mel.flip(1) + 2) for mel in old]
    task = ConverterTask(converter_config(80), examples, examples, SEED)
    optimiser = torch.optim.AdamW(task.converter.parameters(), 3e-3)
    before = task.evaluate()["mel_error"]
    for step in range(80):
        loss, _ = task.loss(task.batch(step, 0, torch.Generator().manual_seed(step)), step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    task.converter.eval()
    assert task.evaluate()["mel_error"] < 0.5 * before
    for was, now in zip(said, converted(model.codec, task.converter, model.codec, said, 7), strict=True):
        assert now.voice == 7 and now.codes.shape == was.codes.shape and torch.equal(now.position, was.position)
    assert examples[0].new.shape[1] == bands


def test_shares_say_which_codes_go_together() -> None:
    old = [torch.tensor([[0, 1], [0, 2], [3, 1]])]
    new = [torch.tensor([[1, 0], [1, 0], [0, 0]])]
    shares = shares_of(old, new, 4, 2)
    assert shares.shape == (2, 2, 4) and torch.allclose(shares.sum(-1), torch.ones(2, 2))
    assert float(shares[0, 1, 0]) > 0.99 and float(shares[0, 0, 3]) > 0.99
    assert float(shares[1, 0, 1]) == pytest.approx(2 / 3, abs=0.01) and float(shares[1, 1, 0]) == pytest.approx(0.25)
