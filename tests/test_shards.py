"""Shards: the same bytes for the same samples, read back whole, a clear message for each kind of damage."""

import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest

from muomni.data.badsamples import BadSamples
from muomni.data.files import (
    atomic_write_json,
    read_jsonl,
    sha256_file,
    sha256_folder,
    write_jsonl,
    write_manifest,
)
from muomni.data.shards import (
    ShardWriter,
    count_samples,
    fingerprint,
    read_shards,
    write_index,
)
from muomni.errors import UserError


def make(folder, samples=7, per_shard=3):
    rng = np.random.default_rng(0)
    arrays = {}
    with ShardWriter(folder, "train", per_shard) as writer:
        for number in range(samples):
            key = f"s{number:03d}"
            arrays[key] = rng.normal(size=(number + 1, 4)).astype(np.float16)
            writer.write(key, {"npy": arrays[key], "json": {"n": number, "text": "é"}, "0.png": b"\x89" * number})
    write_index(folder, {"train": writer.shards, "test": []}, bad=[{"item": "x", "reason": "y"}])
    return arrays


def test_round_trip_keeps_order_values_and_member_names(tmp_path):
    folder = tmp_path / "a folder#with? odd%20 name" / "mels"
    arrays = make(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.json",
        "train-000000.tar",
        "train-000001.tar",
        "train-000002.tar",
    ]
    samples = list(read_shards(folder, "train"))
    assert [sample["__key__"] for sample in samples] == list(arrays)
    for number, sample in enumerate(samples):
        assert set(sample) == {"__key__", "npy", "json", "0.png"}
        np.testing.assert_array_equal(sample["npy"], arrays[sample["__key__"]])
        assert sample["npy"].dtype == np.float16
        assert sample["json"] == {"n": number, "text": "é"}
        assert sample["0.png"] == b"\x89" * number
    assert count_samples(folder, "train") == 7 and count_samples(folder, "valid") == 0


def test_bytes_depend_on_the_samples_only(tmp_path):
    make(tmp_path / "one" / "mels")
    make(tmp_path / "two" / "mels")
    assert sha256_folder(tmp_path / "one") == sha256_folder(tmp_path / "two")
    assert fingerprint(tmp_path / "one/mels") == fingerprint(tmp_path / "two/mels")
    make(tmp_path / "two" / "mels", samples=4)
    assert fingerprint(tmp_path / "one/mels") != fingerprint(tmp_path / "two/mels")
    # The third tar of the first run is gone, or a reader of the folder would mix two runs.
    assert not (tmp_path / "two/mels/train-000002.tar").exists()


def test_nothing_half_written_when_the_stage_fails(tmp_path):
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, "train", 2) as writer:
        for number in range(3):
            writer.write(f"k{number}", {"json": {}})
        raise RuntimeError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["train-000000.tar"]


@pytest.mark.parametrize("key", ["", "a.b", "__a__", "a/b", "k0"])
def test_keys_that_no_reader_could_tell_apart_are_refused(tmp_path, key):
    with ShardWriter(tmp_path, "train", 10) as writer:
        writer.write("k0", {"json": {}})
        with pytest.raises(ValueError):
            writer.write(key, {"json": {}})


def damage_index_missing(folder):
    (folder / "index.json").unlink()
    return "index.json.*dvc repro mel-shards"


def damage_index_garbage(folder):
    (folder / "index.json").write_text("{")
    return "index.json.*not valid JSON"


def damage_index_form(folder):
    (folder / "index.json").write_text('{"splits": {"train": 3}}')
    return "not an index of shards"


def damage_tar_missing(folder):
    (folder / "train-000001.tar").unlink()
    return "train-000001.tar: shard is missing"


def damage_tar_truncated(folder):
    path = folder / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:700])
    return "train-000001.tar: shard was changed or cut off"


def damage_tar_changed(folder):
    path = folder / "train-000002.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(bytes(data))
    return "train-000002.tar: shard was changed"


def damage_path_escape(folder):
    index = json.loads((folder / "index.json").read_text())
    index["splits"]["train"]["shards"][0]["file"] = "../other.tar"
    atomic_write_json(folder / "index.json", index)
    return "not an index of shards"


@pytest.mark.parametrize(
    "damage",
    [
        damage_index_missing,
        damage_index_garbage,
        damage_index_form,
        damage_tar_missing,
        damage_tar_truncated,
        damage_tar_changed,
        damage_path_escape,
    ],
)
def test_damage_is_one_line_that_names_the_file(tmp_path, damage):
    folder = tmp_path / "mels"
    make(folder)
    message = damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        read_shards(folder, "train")
    assert "\n" not in str(caught.value)


def test_empty_split_and_wrong_count(tmp_path):
    folder = tmp_path / "mels"
    make(folder)
    for split in ("test", "valid"):
        with pytest.raises(UserError, match=f"split '{split}' is empty"):
            read_shards(folder, split)
    index = json.loads((folder / "index.json").read_text())
    index["splits"]["train"]["samples"] = 8
    index["splits"]["train"]["shards"][2]["samples"] = 2
    atomic_write_json(folder / "index.json", index)
    with pytest.raises(UserError, match=r"train-000002.tar: holds 1 samples, index.json says 2"):
        list(read_shards(folder, "train"))


def test_a_pickled_array_is_not_loaded(tmp_path):
    folder = tmp_path / "mels"
    np.save(tmp_path / "evil.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(tmp_path / "evil.npy", "k.npy")
    with ShardWriter(folder, "train", 1) as writer:
        writer.write("k", {"bin": b""})
    (folder / "train-000000.tar").write_bytes((tmp_path / "evil.tar").read_bytes())
    writer.shards[0]["sha256"] = sha256_file(folder / "train-000000.tar")
    write_index(folder, {"train": writer.shards}, bad=[])
    with pytest.raises(UserError, match="sample 0 cannot be read"):
        list(read_shards(folder, "train"))


def test_bad_samples_over_the_limit_stop_the_stage():
    seed = random.randrange(1000)
    print("seed", seed)
    total = random.Random(seed).randrange(50, 200)
    bad = BadSamples(0.1, "data/corpus/x")
    for number in range(total // 10):
        bad.add(f"item{number}", "broken\nfile")
    bad.check(total)
    bad.add("one too many", "broken")
    bad.add("two too many", "broken")
    with pytest.raises(UserError, match=r"data/corpus/x: .* over the limit of 10.0%.*item0: broken file"):
        bad.check(total)
    with pytest.raises(UserError, match="nothing to read"):
        BadSamples(0.5, "x").check(0)
    all_bad = BadSamples(1.0, "x")
    all_bad.add("a", "b")
    with pytest.raises(UserError, match="all 1 samples are bad"):
        all_bad.check(1)
    endless = BadSamples(1.0, "x")
    endless.add("first" + "\x9b" * 100_000 + "last", "reason" * 50_000)
    with pytest.raises(UserError, match=r"the first is first.*\.\.\..*last: reason") as caught:
        endless.check(1)
    assert len(str(caught.value)) < 1000  # whatever names there are in a file
    assert len(json.dumps(endless.items)) < 1000


def test_manifest_hash_follows_the_files(tmp_path):
    def manifest():
        return write_manifest(tmp_path, source="s", licences=[], counts={}, splits={}, bad=[])["sha256"]

    write_jsonl(tmp_path / "a.jsonl", [{"b": 1, "a": "ü"}])
    first = manifest()
    assert manifest() == first  # the manifest itself does not count
    assert list(read_jsonl(tmp_path / "a.jsonl", "x")) == [{"b": 1, "a": "ü"}]
    (tmp_path / "a.jsonl").write_text('{"a": 1}\nnot json\n')
    assert manifest() != first
    with pytest.raises(UserError, match=r"a.jsonl:2: not a JSON object"):
        list(read_jsonl(tmp_path / "a.jsonl", "x"))


def test_a_repeated_key_is_found_whatever_the_order_and_the_shard(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    draw = random.Random(seed)
    for number in range(20):
        keys = [f"k{n:02d}" for n in range(12)]
        for _ in range(number % 4):  # from all in order to much out of order
            a, b = draw.sample(range(12), 2)
            keys[a], keys[b] = keys[b], keys[a]
        with ShardWriter(tmp_path / str(number), "train", 3) as writer:
            for key in keys:
                writer.write(key, {"json": {"n": key}})
            for again in draw.sample(keys, 3):
                with pytest.raises(ValueError, match=f"repeated key: '{again}'"):
                    writer.write(again, {"json": {"n": again}})
            writer.write("k99", {"json": {"n": 99}})
        assert [entry["samples"] for entry in writer.shards] == [3, 3, 3, 3, 1]
