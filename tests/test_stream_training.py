"""Stage B trained from a stream: the same recordings whatever the processes; killed and gone on with the same bits."""

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from remote_folders import s3_server, upload
from small_models import AUDIO
from stage_tasks import CPU, LOOP, TEXTS

from muomni.data.recording_stream import POOL, RecordingStream, first_recordings, too_large
from muomni.data.shards import ShardWriter, write_index
from muomni.data.speech import load_recordings
from muomni.errors import UserError
from muomni.train import parallel, state
from muomni.train.b_audio_encoder import AudioStageConfig, AudioTask
from muomni.train.loop import fit


def make(folder: Path, samples: int = 40) -> Path:
    """Noise of growing length; one of eight is too short for its text."""
    rng, shards = np.random.default_rng(1), {}
    for split in ("train", "valid"):
        with ShardWriter(folder, split, 7) as writer:
            for n in range(samples):
                frames = 3 if n % 8 == 3 else 90 + 3 * n
                about = {"text": TEXTS[n % 4], "speaker": "a" if n % 3 else "b", "seconds": 1.0, "key": f"k{n}"}
                mel = rng.normal(size=(frames, 128)).astype(np.float16)
                writer.write(f"{split}-{n}", {"npy": mel, "json": {**about, "kind": "s"}})
        shards[split] = writer.shards
    write_index(folder, shards, [])
    return folder


def task_of(shards: str | Path, over_mb: float = 0.0) -> AudioTask:
    cfg = AudioStageConfig(**config(), mask_bins=4, mask_frames=4, valid_recordings=4, stream_over_mb=over_mb)
    torch.manual_seed(0)
    return AudioTask(cfg, AUDIO, shards, 0)


def config() -> dict[str, Any]:
    return LOOP | {"steps": 24, "save_every": 3, "eval_every": 12}


def train(shards: str | Path, folder: Path, slow: float = 0.0) -> dict[str, torch.Tensor]:
    """Trained weights."""
    task = task_of(shards)
    make_batch = task.batch

    def slowly(*args: Any) -> dict[str, Any]:
        time.sleep(slow)
        return make_batch(*args)

    task.batch = slowly  # type: ignore[method-assign]
    fit(task, task.cfg, seed=0, device=CPU, state_dir=folder, fingerprint="f", samples=False)
    return state.module_tensors(task.modules)


def start(shards: Path, folder: Path, slow: float = 0.0) -> Any:
    """A training in a process in which nothing ran before, as a stage has it; its weights in ``folder``.pt."""
    child = multiprocessing.get_context("spawn").Process(target=train_and_keep, args=(shards, folder, slow))
    child.start()
    return child


def train_and_keep(shards: Path, folder: Path, slow: float) -> None:
    torch.save(train(shards, folder, slow), folder.with_suffix(".pt"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_killed_in_the_middle_of_an_epoch_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    shards = make(tmp_path / "mels")
    whole = start(shards, tmp_path / "whole")
    killed = start(shards, tmp_path / "killed", 0.15)
    while not (tmp_path / "killed" / state.STATE_FILE).is_file():
        time.sleep(0.02)
        assert killed.is_alive()
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    loaded = state.load_state(tmp_path / "killed")
    assert loaded is not None and 0 < loaded[1]["step"] < 24 and loaded[1]["step"] % 10 != 0  # ten batches an epoch
    resumed = start(shards, tmp_path / "killed")
    for process in (whole, resumed):
        process.join()
        assert process.exitcode == 0
    one, other = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "killed.pt"))
    differing = {
        name: float((one[name] - other[name]).abs().max()) for name in one if not torch.equal(one[name], other[name])
    }
    assert one.keys() == other.keys() and not differing


def test_from_an_object_store_it_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = make(tmp_path / "mels", 20)
    with s3_server(monkeypatch) as client:
        upload(client, shards, "corpora", "mels")
        far = train("s3://corpora/mels", tmp_path / "far")
    assert same(far, train(shards, tmp_path / "near"))


def test_an_epoch_has_every_recording_once_and_a_batch_depends_on_its_number_only(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    shards = make(tmp_path / "mels")
    stream = RecordingStream(shards, 3, seed, lambda recording: True)
    assert stream.per_epoch == 14 and POOL > 14
    epochs = [[[r.key for r in stream.at(14 * e + b)] for b in range(14)] for e in range(3)]
    wanted = sorted(f"k{n}" for n in range(40))
    assert all(sorted(key for batch in epoch for key in batch) == wanted for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    again = RecordingStream(shards, 3, seed, lambda recording: True)
    places = [(e, b) for e in range(3) for b in range(14)]
    random.Random(seed).shuffle(places)
    assert all([r.key for r in again.at(14 * e + b)] == epochs[e][b] for e, b in places)
    lengths = [[len(r.mel) for r in stream.at(b)] for b in range(14)]
    assert sum(max(some) - min(some) for some in lengths) / 14 < 40  # sorted: of lengths from 3 to 207


def test_small_pools_and_recordings_that_cannot_be_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muomni.data.recording_stream.POOL", 2)
    shards = make(tmp_path / "mels")
    stream = RecordingStream(shards, 3, 1, lambda recording: len(recording.mel) > 50)
    keys = [r.key for number in range(14) for r in stream.at(number)]
    assert set(keys) == {f"k{n}" for n in range(40) if n % 8 != 3}
    assert {r.speaker for r in RecordingStream(shards, 3, 1, stream.keep, ["b"]).first(9)} == {"b"}
    none = RecordingStream(shards, 3, 1, lambda recording: False)
    for ask in (lambda: none.at(5), lambda: none.first(40)):
        with pytest.raises(UserError, match="none of .*40 recordings"):
            ask()


def test_two_processes_have_the_batches_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, rng = make(tmp_path / "mels"), torch.Generator()
    task = task_of(shards)
    alone = [task.batch(step, 0, rng.manual_seed(step))["lengths"].tolist() for step in range(12)]
    for rank in range(2):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        assert parallel.world() == (rank, 2)
        mine = task_of(shards)
        assert [mine.batch(s, rank, rng.manual_seed(0))["lengths"].tolist() for s in range(6)] == alone[rank::2]


def test_small_data_stays_in_memory(tmp_path: Path) -> None:
    shards = make(tmp_path / "mels")
    size = sum(path.stat().st_size for path in shards.glob("train-*.tar")) / 1e6
    assert too_large(shards, size * 0.99) and not too_large(shards, size * 1.01) and too_large("s3://a/b", 1e9)
    kept, streamed = task_of(shards, size * 1.01), task_of(shards, 0.0)
    assert len(kept.train) == 35 and kept.impossible == 5 and kept.evaluate()["impossible_targets"] == 5
    assert not streamed.train and streamed.impossible is None and "impossible_targets" not in streamed.evaluate()
    assert [r.key for r in kept.valid] == [r.key for r in streamed.valid]
    assert [r.key for r in first_recordings(shards, "valid", 9)] == [r.key for r in load_recordings(shards, "valid")][
        :9
    ]
    index = json.loads((shards / "index.json").read_text())
    index["splits"]["train"]["shards"][0]["bytes"] = 5_000_000_000
    (shards / "index.json").write_text(json.dumps(index))
    assert too_large(shards, 4000.0)
