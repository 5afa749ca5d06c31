"""Alignments made finer: the likeliest way against every way, and labels that are off by some frames."""

import itertools
import random

import pytest
import torch
from torch import Tensor

from muomni.alignment import monotone
from muomni.audio_encoder import CHARACTERS, encode_characters
from muomni.realignment import FrameClassifier, best_ways, realign
from muomni.talker import SPACE

CPU = torch.device("cpu")


def every_way(scores: Tensor) -> float:
    """The best sum of scores over all ways, by trying all of them."""
    frames, n = scores.shape
    best = -float("inf")
    for starts in itertools.combinations(range(1, frames), n - 1):
        way = torch.zeros(frames, dtype=torch.int64)
        way[list(starts)] = 1
        way = way.cumsum(0)
        best = max(best, float(scores[torch.arange(frames), way].sum()))
    return best


def test_the_likeliest_way_is_found_in_every_recording_of_a_batch() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = torch.Generator().manual_seed(seed)
    shapes = [(7, 3), (4, 4), (9, 5), (1, 1), (6, 1)]
    scores = [torch.randn(shape, generator=rng) for shape in shapes]
    ways = best_ways(scores)
    for score, way in zip(scores, ways, strict=True):
        assert way[0] == 0 and way[-1] == score.shape[1] - 1 and set(way.diff().tolist()) <= {0, 1}
        assert float(score[torch.arange(len(way)), way].sum()) == pytest.approx(every_way(score), abs=1e-4)
    assert all(torch.equal(one, way) for score, way in zip(scores, ways, strict=True) for one in best_ways([score]))


def test_equally_likely_ways_go_on_early_and_too_short_a_recording_is_an_error() -> None:
    assert best_ways([torch.zeros(6, 3)])[0].tolist() == [0, 1, 2, 2, 2, 2]
    with pytest.raises(ValueError, match="fewer frames than characters"):
        best_ways([torch.zeros(6, 3), torch.zeros(2, 3)])


def spoken(rng: random.Random, sounds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A recording in which every character has a sound of its own for 2 to 6 frames."""
    word = [rng.choice("abcdefgh") for _ in range(rng.randint(4, 9))]
    characters = torch.tensor([SPACE, *encode_characters("".join(word)), SPACE])
    position = torch.cat([torch.full((rng.randint(2, 6),), n) for n in range(len(characters))])
    noise = torch.randn(len(position), 16, generator=torch.Generator().manual_seed(rng.randrange(1 << 30)))
    return (sounds[characters[position]] + noise).half(), characters, position


def test_alignments_that_are_off_are_put_right_and_always_the_same() -> None:
    rng = random.Random(0)
    sounds = 2 * torch.randn(len(CHARACTERS), 16, generator=torch.Generator().manual_seed(0))
    made = [spoken(rng, sounds) for _ in range(460)]
    mels, characters, wanted = (list(part) for part in zip(*made, strict=True))
    given = []  # boundaries up to a frame early or late
    for position in wanted:
        starts = [0, *(int(t) + rng.choice((-1, 0, 1)) for t in position.diff().nonzero()[:, 0] + 1)]
        moved = monotone(starts, len(position))
        assert moved is not None
        given.append(moved)

    def wrong(positions: list[Tensor], first: int = 0) -> float:
        rows = list(zip(characters, positions, wanted, strict=True))[first:]
        return float(torch.cat([(c[p] != c[w]).float() for c, p, w in rows]).mean())

    state = torch.get_rng_state()
    found = realign(mels, characters, given, 400, rounds=3, steps=60, seed=1, device=CPU)
    assert wrong(given) > 0.1 and wrong(found) < 0.05, (wrong(given), wrong(found))
    assert wrong(found, 400) < 0.05  # those it did not learn from
    for own, position in zip(characters, found, strict=True):
        assert position[0] == 0 and position[-1] == len(own) - 1 and set(position.diff().tolist()) <= {0, 1}
    again = realign(mels, characters, given, 400, rounds=3, steps=60, seed=1, device=CPU)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers are touched


def test_padding_changes_no_log_probability() -> None:
    torch.manual_seed(0)
    classifier = FrameClassifier(16)
    mel = torch.randn(2, 12, 16)
    alone = classifier(mel[:1, :7], torch.tensor([7]))
    together = classifier(mel, torch.tensor([7, 12]))
    torch.testing.assert_close(together[:1, :7], alone)
