"""NaN and infinity in a training: a skipped step changes nothing, what is spoilt is not saved, one line says why."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import CODEC, GRIFFIN_LIM, MEL
from stage_tasks import CPU, LOOP, make_data
from test_loop import Counting, timeless, train
from test_memory import Halving
from torch import Tensor, nn

from muomni.checkpoint import make_card
from muomni.data.shards import ShardWriter, write_index
from muomni.data.speech import load_recordings
from muomni.errors import UserError
from muomni.train import state
from muomni.train.bad_steps import Undo
from muomni.train.d_codec import CodecStageConfig, CodecTask
from muomni.train.feed import Feed
from muomni.train.loop import Training, fit
from muomni.train.report import Progress, read_metrics

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def everything(training: Training) -> str:
    """A hash of all that a training has learned."""
    tensors = {key: value.clone() for key, value in state.flatten_optimisers(training.optimisers).items()}
    optimisers = {key: (str(value.dtype), value.double().flatten().tolist()) for key, value in sorted(tensors.items())}
    return state.digest(training.task.modules) + json.dumps(optimisers)


class Spoilt(CodecTask):
    """The codec, whose codebooks learn in the forward pass, with NaN in one frame of some micro-batches."""

    spoilt: set[tuple[int, int]] = set()

    def batch(self, step: int, micro: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        mels, mask = super().batch(step, micro, rng)
        if (step, micro) in self.spoilt:
            mels[1, 2, 3] = torch.nan
        return mels, mask


def codec(data: Path, **changes: Any) -> tuple[Spoilt, CodecStageConfig]:
    """Stage d-codec on the small data."""
    values = LOOP | {"steps": 10, "lr": 0.01, "max_bad_steps": 2, "save_every": 3, "eval_every": 5} | changes
    cfg = CodecStageConfig(**values, speaker="", segment=20, commitment=0.25, valid_recordings=2)
    torch.manual_seed(0)
    return Spoilt(cfg, CODEC, MEL, GRIFFIN_LIM, data / "mels", 0), cfg


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_skipped_step_leaves_every_bit_as_it_was(accumulate: int, data: Path, tmp_path: Path) -> None:
    task, cfg = codec(data, accumulate=accumulate)
    task.spoilt = {(2, accumulate - 1)}  # the codebooks have learned from the micro-batches before it
    training = Training(task, cfg, 5, CPU, tmp_path, "f", "d-codec")
    feed = Feed(task.batch, 5, ((step, micro) for step in range(5) for micro in training.micros()))
    before, quiet = "", Progress("d-codec", 0, 5, quiet=True)
    for step in range(5):
        was, before = before, everything(training)
        assert before != was or step == 3, step
        loss, norm = training.gradients(step, feed)
        assert np.isfinite(loss) == (step != 2), step
        training.update(step + 1, loss, norm, quiet)
        assert (everything(training) == before) == (step == 2), step
    feed.close()
    assert training.facts["skipped"] == 1 and training.facts["bad"] == 0


def test_the_codec_goes_on_after_a_bad_batch(data: Path, tmp_path: Path) -> None:
    task, cfg = codec(data)
    task.spoilt = {(1, 0), (4, 0)}
    metrics = fit(task, cfg, seed=5, device=CPU, state_dir=tmp_path, fingerprint="f")
    assert metrics["skipped_steps"] == 2 and np.isfinite(metrics["valid_mel_error"])
    assert all(bool(t.isfinite().all()) for t in state.module_tensors(task.modules).values())


def test_batch_statistics_and_replaced_buffers_are_put_back() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    undo, before = Undo({"model": model}), state.digest({"model": model})
    model(torch.full((5, 3), torch.nan))
    model[1].running_mean = torch.ones(4)
    assert state.digest({"model": model}) != before
    undo.put_back()
    assert state.digest({"model": model}) == before
    model(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    undo.keep()
    kept = state.digest({"model": model})
    model(torch.full((5, 3), torch.inf))
    undo.put_back()
    assert state.digest({"model": model}) == kept != before


class Overflowing(Halving):
    """Runs out of memory after it has changed a buffer."""

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        found = Counting.loss(self, batch, step)
        if len(batch["ids"]) > self.room:
            self.failed += 1
            raise torch.OutOfMemoryError("out of memory")
        return found


def test_a_step_that_begins_again_for_want_of_memory_counts_once(tmp_path: Path) -> None:
    task = Overflowing(2, rows=4)
    train(task, tmp_path, steps=6)
    assert task.failed == 1 and task.model.seen.item() == 24


def test_a_resumed_training_keeps_the_count(tmp_path: Path) -> None:
    straight, broken, resumed = Counting(), Counting(), Counting()
    for task in (straight, broken, resumed):
        task.bad = {2, 8, 11}
    expected = train(straight, tmp_path / "straight", steps=20)
    broken.bad = {2, 8, *range(11, 20)}
    with pytest.raises(UserError, match="the last good state, step 7"):
        train(broken, tmp_path / "broken", steps=20)
    found = train(resumed, tmp_path / "broken", steps=20)
    assert found["skipped_steps"] == expected["skipped_steps"] == 3
    assert timeless([expected | {"seconds": 0}]) == timeless([found | {"seconds": 0}])
    assert state.digest(straight.modules) == state.digest(resumed.modules)


def test_what_a_finite_step_has_spoilt_is_not_saved(tmp_path: Path) -> None:
    class Growing(Counting):
        def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
            loss, values = super().loss(batch, step)
            if step >= 4:
                self.model.seen *= 1e30
            return loss, values

    with pytest.raises(
        UserError, match=r"step 6: NaN or infinity in model/model/seen, though .*good state, step 3"
    ) as caught:
        train(Growing(), tmp_path / "buffer", steps=9, save_every=3)
    assert "\n" not in str(caught.value)

    class Flipped(Counting):
        def __init__(self) -> None:
            super().__init__()
            self.model.spare = nn.Parameter(torch.zeros(3))  # no loss looks at it

        def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
            if step == 4:
                self.model.spare.data[1] = torch.inf
            return super().loss(batch, step)

    with pytest.raises(UserError, match=r"step 6: NaN or infinity in model/model/spare, though .*good state, step 3"):
        train(Flipped(), tmp_path / "weight", steps=9, save_every=3)
    for name in ("buffer", "weight"):
        tensors, facts = state.load_state(tmp_path / name) or ({}, {"step": 0})
        assert facts["step"] == 3 and all(bool(t.isfinite().all()) for t in tensors.values())
        assert not list((tmp_path / name).glob("checkpoints/*")), "nor given to the tracker"


def test_a_training_that_never_learned_does_not_end_well(tmp_path: Path) -> None:
    task = Counting()
    task.bad = {0, 1, 2}
    with pytest.raises(UserError, match="NaN or infinite at all 3 steps; check the data"):
        train(task, tmp_path, steps=3, max_bad_steps=10)


def test_an_evaluation_that_is_not_finite_is_left_out(tmp_path: Path, capsys: Said) -> None:
    class Blind(Counting):
        def evaluate(self) -> dict[str, float]:
            return super().evaluate() | {"loss": torch.nan, "error": torch.inf}

    metrics = train(Blind(), tmp_path / "last")
    assert "valid_loss nan, valid_draw 0.4963, valid_error inf" in capsys.readouterr().err
    lines = read_metrics(tmp_path / "last" / "metrics.jsonl")
    assert all(line.keys() & {"valid_loss", "valid_draw", "valid_error"} == {"valid_draw"} for line in lines)
    card = make_card("a", nn.Linear(1, 1), data={}, params={}, metrics=metrics, seconds=1.0)
    json.dumps(card, allow_nan=False)
    assert train(Blind(), tmp_path / "last")["steps"] == 30, "its state can be read"

    best = Blind()
    best.best_by = "loss"
    with pytest.raises(UserError, match="loss was NaN or infinite at each evaluation; check the validation data"):
        train(best, tmp_path / "best")


def test_nan_in_a_shard_is_told_with_its_sample(tmp_path: Path) -> None:
    mel = np.zeros((20, 128), dtype=np.float16)
    mel[7, 9] = np.nan
    about = {"text": "a dog", "speaker": "hibari", "seconds": 0.2, "kind": "statement", "key": "k"}
    with ShardWriter(tmp_path / "mels", "train", 100) as writer:
        writer.write("train-0", {"npy": np.zeros((20, 128), dtype=np.float16), "json": about})
        writer.write("train-1", {"npy": mel, "json": about})
    write_index(tmp_path / "mels", {"train": writer.shards}, [])
    with pytest.raises(
        UserError, match=r"sample train-1 is not .*\(ValueError: the log-mel holds NaN or infinity\); run"
    ):
        load_recordings(tmp_path / "mels", "train")


class Averaging(Counting):
    """Has a buffer that learns in the forward pass, from what the process sees."""

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        loss, values = super().loss(batch, step)
        self.model.seen.lerp_(loss.detach(), 0.5)
        return loss, values


# The second of two processes, which alone meets NaN.
SECOND = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_loop import train
from test_not_finite import Averaging
from muomni.train import state
task = Averaging(2, 2, drop=False)
task.bad = {{1, 4}}
found = train(task, Path({folder!r}), steps=5, batch_size=2)
print(found["skipped_steps"], state.digest(task.modules))
"""


def test_nan_on_one_of_two_processes_is_skipped_on_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for key, value in (env | {"RANK": "0"}).items():
        monkeypatch.setenv(key, value)
    code = SECOND.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "two"))
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **env, "RANK": "1"}, stdout=subprocess.PIPE, text=True
    ) as child:
        first = Averaging(2, 2, drop=False)
        found = train(first, tmp_path / "two", steps=5, batch_size=2)
        out, _ = child.communicate(timeout=60)
    assert child.returncode == 0 and re.fullmatch(r"2 [0-9a-f]{32}\n", out), out
    assert found["skipped_steps"] == 2 and bool(first.model.seen.isfinite())
    assert out.split()[1] == state.digest(first.modules), "both have the same weights and the same averages"
