"""Shards by several workers: the same bytes for every number of them, every order of arrival, and after a kill."""

import json
import random
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_work import killed_at, work

from muomni.data.files import sha256_folder
from muomni.data.shard_format import encode_sample, end_of_tar
from muomni.data.shard_parallel import Written, runs_of, segment, write_in_parallel
from muomni.data.shards import ShardWriter, read_shards, write_index
from muomni.errors import UserError

TASKS = {"train": runs_of(97, 10), "valid": runs_of(8, 3), "test": []}


def backwards(call: Any, tasks: list[Any], workers: int, *args: Any, needs: Any) -> Iterator[Any]:
    """Another executor: works on the tasks in any order, in threads."""
    order = list(range(len(tasks)))
    random.Random(workers).shuffle(order)
    found: dict[int, Any] = {}

    def some(mine: list[int]) -> None:
        for number in mine:
            found[number] = call(tasks[number], *args)

    threads = [threading.Thread(target=some, args=(order[at::workers],)) for at in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield from (found[number] for number in range(len(tasks)))


def write(folder: Path, **settings: Any) -> dict[str, Written]:
    settings = {"per_shard": 7, "workers": 1, **settings}
    found = write_in_parallel(folder, TASKS, work, **settings)
    bad = [item for written in found.values() for item in written.bad]
    write_index(folder, {split: written.shards for split, written in found.items()}, bad)
    return found


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_the_same_bytes_for_every_number_of_workers(tmp_path: Path, workers: int) -> None:
    found = write(tmp_path / "one", max_bytes=30_000)
    assert write(tmp_path / "many", workers=workers, max_bytes=30_000) == found
    assert sha256_folder(tmp_path / "one") == sha256_folder(tmp_path / "many")
    write(tmp_path / "any", workers=workers, max_bytes=30_000, executor=backwards)
    assert sha256_folder(tmp_path / "one") == sha256_folder(tmp_path / "any")
    assert not [path for path in (tmp_path / "many").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("cut", [False, True])
def test_a_segment_that_is_not_here_is_one_line(tmp_path: Path, cut: bool) -> None:
    """As with a worker on another machine that has the path, but on a disk of its own."""

    def elsewhere(call: Any, tasks: list[Any], workers: int, *args: Any, needs: Any) -> Iterator[Any]:
        assert needs == [tmp_path / "mels/.segments"]
        for number, result in enumerate(backwards(call, tasks, workers, *args, needs=needs)):
            path = Path(args[0]) / f"{number:06d}"
            path.write_bytes(path.read_bytes()[:-1]) if cut else path.unlink()
            yield result

    with pytest.raises(UserError, match="a worker says that it wrote it") as caught:
        write(tmp_path / "mels", executor=elsewhere)
    assert "\n" not in str(caught.value)


def test_bad_samples_are_set_aside_and_the_others_fill_the_shards(tmp_path: Path) -> None:
    found = write(tmp_path / "mels")
    good = [number for number in range(97) if number % 13 != 5]
    assert [shard["samples"] for shard in found["train"].shards] == [7] * 12 + [len(good) - 84]
    assert found["train"].notes == good and len(found["train"].bad) == 97 - len(good)
    assert found["valid"].bad == [{"item": "item 5", "reason": "broken"}]
    assert [sample["json"]["n"] for sample in read_shards(tmp_path / "mels", "train")] == good
    # What one process writes sample by sample, and what Python's tarfile writes, are the same files.
    with ShardWriter(tmp_path / "alone", "train", 7) as writer:
        for number in good:
            writer.write(f"s{number:03d}", {"npy": np.arange(number * 7), "json": {"n": number}})
    assert writer.shards == found["train"].shards
    shard = tmp_path / "mels/train-000003.tar"
    with (
        tarfile.open(tmp_path / "train.tar", "w", format=tarfile.USTAR_FORMAT) as tar,
        tarfile.open(shard) as made,
    ):
        for part in made:
            tar.addfile(part, made.extractfile(part))
    assert (tmp_path / "train.tar").read_bytes() == shard.read_bytes()


def test_a_shard_has_a_limit_of_bytes_too(tmp_path: Path) -> None:
    found = write(tmp_path / "mels", per_shard=1000, max_bytes=20_000)["train"].shards
    sizes = [(tmp_path / "mels" / shard["file"]).stat().st_size for shard in found]
    assert [shard["bytes"] for shard in found] == sizes and len(found) > 10
    assert all(size <= 20_000 + 1024 + tarfile.RECORDSIZE for size in sizes)
    large = write(tmp_path / "large", per_shard=1000, max_bytes=1)["train"].shards
    assert {shard["samples"] for shard in large} == {1}
    blocks = encode_sample("k", {"bin": b"x" * 3000})
    assert len(blocks) == 512 + 3072 and (len(blocks) + len(end_of_tar(len(blocks)))) % tarfile.RECORDSIZE == 0


def test_a_killed_worker_is_one_error_and_the_next_run_goes_on_with_the_same_bytes(tmp_path: Path) -> None:
    told = tmp_path / "told"
    settings: dict[str, Any] = {"per_shard": 7, "inputs": "corpus 1"}
    write(tmp_path / "whole")
    folder = tmp_path / "mels"
    with pytest.raises(UserError, match="killed its worker"):
        write_in_parallel(folder, TASKS, killed_at, str(told), 66, workers=2, **settings)
    assert not (folder / "index.json").exists()
    first = told.read_text().split()
    told.unlink()
    found = write_in_parallel(folder, TASKS, killed_at, str(told), -1, workers=2, per_shard=7, inputs="corpus 2")
    assert len(told.read_text().split()) == 13  # of other inputs: nothing is taken over
    told.unlink()
    with pytest.raises(UserError, match="killed its worker"):
        write_in_parallel(folder, TASKS, killed_at, str(told), 66, workers=2, **settings)
    told.unlink()
    # The same inputs by their name; the arguments differ only in where the process is killed.
    damaged = sorted(path for path in (folder / ".segments").glob("*.json"))[0].with_suffix("")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    found = write_in_parallel(folder, TASKS, killed_at, str(told), -1, workers=3, **settings)
    again = told.read_text().split()
    assert 2 <= len(again) < 13 and len(first) >= 5 and "0" in again
    write_index(folder, {split: some.shards for split, some in found.items()}, sum((f.bad for f in found.values()), []))
    assert sha256_folder(folder) == sha256_folder(tmp_path / "whole")
    assert not (folder / ".segments").exists()


def test_repeated_keys_and_errors_of_the_work_stop_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="repeated key: 's001'"):
        write_in_parallel(tmp_path, {"train": [(0, 3), (1, 2)]}, work, per_shard=5, workers=1)
    assert not list(tmp_path.iterdir())
    found = segment((0, (0, 3)), str(tmp_path), None, work, ())
    assert [key for key, _ in found["samples"]] == ["s000", "s001", "s002"] and json.dumps(found)
