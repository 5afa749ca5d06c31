"""Which samples make which batch."""

import random

import pytest
import torch

from muomni.data.batches import Buckets, pad, padding_share
from muomni.data.dialogues import Mixture


@pytest.mark.parametrize("number", [1, 15, 16, 17, 100])
def test_an_epoch_has_every_sample_once_and_batches_depend_on_nothing_but_their_number(number: int) -> None:
    lengths = [50 + i % 37 for i in range(number)]
    buckets = Buckets(lengths, 16, seed=3)
    epochs = [[i for b in range(buckets.per_epoch) for i in buckets.at(e * buckets.per_epoch + b)] for e in range(2)]
    assert all(sorted(epoch) == list(range(number)) for epoch in epochs)
    assert number < 17 or epochs[0] != epochs[1]
    # A resumed training asks for a batch in the middle first.
    assert Buckets(lengths, 16, seed=3).at(buckets.per_epoch + 1) == buckets.at(buckets.per_epoch + 1)


def test_little_of_a_batch_is_padding() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    lengths = [round(rng.lognormvariate(5, 0.5)) + 20 for _ in range(2000)]
    buckets = Buckets(lengths, 16, seed)
    shares = [padding_share(torch.tensor([lengths[i] for i in buckets.at(n)])) for n in range(buckets.per_epoch)]
    assert sum(shares) / len(shares) < 0.2
    mixture = Mixture(["a", "b"] * 1000, lengths, {"a": 1.0, "b": 3.0}, 32, seed)
    shares = [padding_share(torch.tensor([lengths[i] for i in mixture.at(n)])) for n in range(64)]
    assert sum(shares) / len(shares) < 0.2


def test_a_mixture_has_the_wanted_shares_and_repeats_nothing_before_all_was_seen() -> None:
    tasks = ["name"] * 100 + ["scene"] * 500 + ["unused"] * 10
    mixture = Mixture(tasks, [10] * len(tasks), {"name": 0.25, "scene": 0.75}, batch_size=8, seed=0, pool=5)
    seen = [i for n in range(50) for i in mixture.at(n)]
    assert len(seen) == 400 and sum(tasks[i] == "name" for i in seen) == 100
    assert len({i for i in seen if tasks[i] == "name"}) == 100
    assert len({i for i in seen if tasks[i] == "scene"}) == 300
    assert not any(tasks[i] == "unused" for i in seen)
    assert Mixture(tasks, [10] * len(tasks), {"name": 0.25, "scene": 0.75}, 8, 0, 5).at(33) == mixture.at(33)


def test_padding_goes_to_the_right() -> None:
    assert pad([torch.tensor([1, 2, 3]), torch.tensor([4])], -1).tolist() == [[1, 2, 3], [4, -1, -1]]
