"""Which character is spoken at each frame."""

import random

import torch

from muomni.alignment import align, monotone
from muomni.audio_encoder import BLANK, CHARACTERS, encode_characters
from muomni.talker import SPACE


def emissions(slots: list[int]) -> torch.Tensor:
    """Sure log-probabilities of a symbol in each slot."""
    scores = torch.full((len(slots), len(CHARACTERS) + 1), -20.0)
    scores[torch.arange(len(slots)), torch.tensor(slots)] = 0.0
    return scores.log_softmax(-1)


def test_a_character_lasts_from_its_emission_to_the_next() -> None:
    text = encode_characters("cat")
    slots = [BLANK] * 20
    for slot, character in zip((4, 9, 14), text, strict=True):
        slots[slot] = character
    position = align(emissions(slots), [SPACE, *text, SPACE], frames=20)
    assert position is not None
    assert position.tolist() == [0] * 4 + [1] * 5 + [2] * 5 + [3] * 3 + [4] * 3


def test_doubled_letters_and_other_frame_rates() -> None:
    text = encode_characters("egg")
    slots = [text[0], BLANK, text[1], BLANK, text[2], BLANK, BLANK, BLANK]
    position = align(emissions(slots), [SPACE, *text, SPACE], frames=16)
    assert position is not None and position.tolist() == [0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4]


def test_what_does_not_fit_is_said_and_not_invented() -> None:
    text = encode_characters("banana")
    assert align(emissions([BLANK] * 4), [SPACE, *text, SPACE], frames=40) is None
    assert align(emissions([BLANK] * 20), [SPACE, SPACE], frames=20) is None
    assert align(emissions([*text, *[BLANK] * 10]), [SPACE, *text, SPACE], frames=5) is None


def test_every_symbol_gets_a_frame_in_order() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(200):
        symbols = rng.randrange(2, 12)
        frames = rng.randrange(symbols, 40)
        starts = sorted(rng.randrange(frames) for _ in range(symbols))
        position = monotone(starts, frames)
        assert position is not None and len(position) == frames
        assert position[0] == 0 and position[-1] == symbols - 1
        assert set((position[1:] - position[:-1]).tolist()) <= {0, 1}
    assert monotone([0, 1, 2], 2) is None
