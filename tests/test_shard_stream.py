"""Streams of shards: every sample exactly once for any number of readers, and on from any place."""

import json
import random
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muomni.data.shard_stream import EpochOrder, Reader, ShardStream, join_states, remaining
from muomni.data.shards import ShardWriter, write_index
from muomni.errors import UserError

RANKS, WORKERS = (1, 2, 4), (1, 2, 3, 7)


def make(folder: Path, samples: int, per_shard: int) -> Path:
    with ShardWriter(folder, "train", per_shard) as writer:
        for number in range(samples):
            writer.write(f"s{number:03d}", {"npy": np.full(number % 5 + 1, number), "json": {"n": number}})
    write_index(folder, {"train": writer.shards}, [])
    return folder


def readers(ranks: int, workers: int) -> list[Reader]:
    return [Reader(rank, ranks, worker, workers) for worker in range(workers) for rank in range(ranks)]


def numbers(samples: Any) -> list[int]:
    return [sample["json"]["n"] for sample in samples]


def in_turn(parts: list[list[int]]) -> list[int]:
    return [n for turn in zip_longest(*parts) for n in turn if n is not None]


@pytest.mark.parametrize(("samples", "per_shard"), [(47, 5), (47, 40), (3, 1), (1, 1)])
def test_every_sample_once_an_epoch_in_one_order_whatever_the_readers(
    tmp_path: Path, samples: int, per_shard: int
) -> None:
    stream = ShardStream(make(tmp_path / "mels", samples, per_shard), "train", seed=3, window=2)
    epochs = [numbers(stream.read(stream.start(epoch))) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(samples)) for epoch in epochs)
    assert samples < 9 or (epochs[0] != epochs[1] != epochs[2] and epochs[0] != list(range(samples)))
    for ranks in RANKS:
        for workers in WORKERS:  # 28 readers are more than there are shards, and than some have samples
            parts = [numbers(stream.read(stream.start(1), reader)) for reader in readers(ranks, workers)]
            assert in_turn(parts) == epochs[1], (ranks, workers)
            # A process's workers in turn give that process's share whatever their number.
            for rank in range(ranks):
                mine = in_turn([parts[rank + ranks * worker] for worker in range(workers)])
                assert mine == epochs[1][rank::ranks]
    again = ShardStream(tmp_path / "mels", "train", seed=3, window=2)
    assert numbers(again.read(again.start(1))) == epochs[1]
    other = ShardStream(tmp_path / "mels", "train", seed=4, window=2)
    assert samples < 9 or numbers(other.read(other.start(1))) != epochs[1]
    for one in (stream, again, other):
        one.close()


def test_samples_come_as_they_were_written_and_sizes_without_reading_them(tmp_path: Path) -> None:
    stream = ShardStream(make(tmp_path / "mels", 23, 4), "train", seed=0, window=3)
    for place, sample in enumerate(stream.read(stream.start())):
        number = sample["json"]["n"]
        assert sample["__key__"] == f"s{number:03d}" and set(sample) == {"__key__", "json", "npy"}
        assert sample["npy"].tolist() == [number] * (number % 5 + 1)
        assert stream.bytes_of(0, place) == 128 + 8 * (number % 5 + 1) + len(json.dumps({"n": number}))
    assert sum(not future.cancelled() for future in stream.files._open.values()) <= 6
    stream.close()


@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (2, 1), (2, 3), (4, 7)])
def test_stopped_anywhere_and_gone_on_equals_uninterrupted(tmp_path: Path, ranks: int, workers: int) -> None:
    stream = ShardStream(make(tmp_path / "mels", 47, 5), "train", seed=8, window=2)
    whole = [numbers(stream.read(stream.start(2), reader)) for reader in readers(ranks, workers)]
    most = max(map(len, whole))
    for stop in range(most + 1):
        running = [stream.read(stream.start(2), reader) for reader in readers(ranks, workers)]
        first = [numbers(s for _, s in zip(range(stop), reader, strict=False)) for reader in running]
        state = json.loads(json.dumps(join_states([reader.state() for reader in running])))
        assert len(json.dumps(state)) < 300
        rest = [numbers(stream.read(state, reader)) for reader in readers(ranks, workers)]
        if stop * ranks * workers <= 47:  # all readers are at the same place: the very same samples, reader by reader
            assert [a + b for a, b in zip(first, rest, strict=True)] == whole
        # Other numbers of readers go on from it too, in the order of the epoch.
        one = numbers(stream.read(state))
        assert sorted(one + sum(first, [])) == list(range(47))
        assert one == [n for n in numbers(stream.read(stream.start(2))) if n in set(one)]
    stream.close()


def test_any_history_of_stops_and_numbers_of_readers_loses_nothing(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    stream = ShardStream(make(tmp_path / "mels", 61, 7), "train", seed=1, window=3)
    for _ in range(15):
        state, seen = stream.start(rng.randrange(5)), list[int]()
        for _ in range(rng.randrange(1, 6)):
            running = [stream.read(state, reader) for reader in readers(rng.choice(RANKS), rng.choice(WORKERS))]
            for reader in running:  # each stops where it happens to be
                seen += numbers(s for _, s in zip(range(rng.randrange(4)), reader, strict=False))
            state = join_states([reader.state() for reader in running])
        seen += numbers(stream.read(state))
        assert sorted(seen) == list(range(61))
    stream.close()


def test_states_of_other_runs_and_seeds_are_refused(tmp_path: Path) -> None:
    stream = ShardStream(make(tmp_path / "mels", 9, 4), "train", seed=1)
    parts = [stream.read(stream.start(), reader).state() for reader in readers(2, 2)]
    for wrong in (parts[:3], [*parts[:3], parts[0]], [*parts[:3], {**parts[3], "epoch": 1}]):
        with pytest.raises(ValueError, match="not those of all readers"):
            join_states(wrong)
    with pytest.raises(UserError, match="seed 2, the stream of 1"):
        stream.read({**join_states(parts), "seed": 2})
    with pytest.raises(ValueError, match="no such reader"):
        Reader(rank=2, ranks=2)
    stream.close()


def test_neighbours_of_a_shard_are_spread_over_a_window() -> None:
    order = EpochOrder([10] * 12, seed=0, epoch=0, window=4)
    first = [order.at(place)[0] for place in range(40)]
    assert len(set(first)) == 4 and first != sorted(first)
    assert sorted(order.at(place) for place in range(120)) == [(s, n) for s in range(12) for n in range(10)]
    # Two readers had places 0, 2 and none; then three readers one each of 1, 3, 4.
    assert remaining(10, [[2, 0], [1, 1, 1]]).tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "count"])
def test_damage_is_one_line_and_never_silently_short(tmp_path: Path, damage: str) -> None:
    folder = make(tmp_path / "mels", 12, 4)
    path = folder / "train-000001.tar"
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:1024])
    elif damage == "changed":
        path.write_bytes(data[:700] + bytes([data[700] ^ 1]) + data[701:])
    elif damage == "missing":
        path.unlink()
    else:
        index = json.loads((folder / "index.json").read_text())
        index["splits"]["train"]["shards"][1]["samples"] = 5
        index["splits"]["train"]["samples"] = 13
        (folder / "index.json").write_text(json.dumps(index))
    stream = ShardStream(folder, "train", seed=0, window=1)
    with pytest.raises(UserError, match=r"train-000001.tar: .*dvc repro --force mel-shards") as caught:
        list(stream.read(stream.start()))
    assert "\n" not in str(caught.value)
    stream.close()
    with pytest.raises(UserError, match="split 'valid' is empty"):
        ShardStream(folder, "valid", seed=0)
