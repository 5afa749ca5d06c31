"""The training loop on a small transformer: exact resume, accumulation, faults, frozen parts, two processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from small_models import VOCABULARY, Tiny
from torch import Tensor, nn

from muomni import device as device_module
from muomni.device import Device, DeviceConfig, pick_device
from muomni.errors import UserError
from muomni.train import state
from muomni.train.loop import fit
from muomni.train.optim import make_optimisers
from muomni.train.report import read_metrics
from muomni.train.task import TrainConfig


class Counting:
    """Predict each next number of a row that counts up by a fixed stride."""

    best_by = ""

    def __init__(self, rows: int = 4, accumulate: int = 1, drop: bool = True, slow: float = 0.0) -> None:
        torch.manual_seed(7)
        self.model, self.rows, self.accumulate, self.slow = Tiny(), rows, accumulate, slow
        self.model.dropout.p = 0.1 if drop else 0.0
        self.modules: dict[str, nn.Module] = {"model": self.model}
        self.frozen: dict[str, nn.Module] = {}
        self.bad: set[int] = set()

    def batch(self, step: int, micro: int, rng: torch.Generator) -> dict[str, Tensor]:
        """With fixed data the rows of a step depend on the step alone, cut into micro-batches."""
        whole = torch.Generator().manual_seed(step)
        count = self.rows * self.accumulate
        first = torch.randint(VOCABULARY, (count, 1), generator=whole)[micro * self.rows : (micro + 1) * self.rows]
        noise = torch.rand(1, generator=rng)
        return {"ids": (first + 3 * torch.arange(9)) % VOCABULARY, "noise": noise}

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        time.sleep(self.slow)
        ids = batch["ids"]
        self.model.seen += len(ids)
        loss = F.cross_entropy(self.model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        if step in self.bad:
            loss = loss * torch.nan
        return loss, {"noise": batch["noise"], "padding": 0.25}

    def evaluate(self) -> dict[str, float]:
        assert not self.model.training and not torch.is_grad_enabled()
        ids = ((torch.arange(VOCABULARY)[:, None] + 3 * torch.arange(9)) % VOCABULARY).to(self.model.seen.device)
        logits = self.model(ids[:, :-1])
        return {
            "loss": F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).item(),
            "draw": torch.rand(1).item(),
        }

    def samples(self, step: int, folder: Path) -> None:
        (folder / "next.txt").write_text(f"step {step}\n")


def config(**changes: Any) -> TrainConfig:
    values = {
        "steps": 30,
        "batch_size": 4,
        "accumulate": 1,
        "lr": 3e-3,
        "muon_lr": 0.02,
        "weight_decay": 0.01,
        "warmup": 3,
        "min_lr": 0.1,
        "clip": 1.0,
        "eval_every": 10,
        "save_every": 7,
        "checkpointing": False,
        "max_bad_steps": 2,
    }
    return TrainConfig(**(values | changes))


def cpu() -> Device:
    return pick_device(DeviceConfig(name="cpu", precision="fp32", threads=1, memory_gb=None))


def train(task: Any, folder: Path, fingerprint: str = "f", **changes: Any) -> dict[str, float]:
    return fit(task, config(**changes), seed=5, device=cpu(), state_dir=folder, fingerprint=fingerprint)


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    machine = ("time", "samples_per_second", "waiting_for_data", "memory_mb", "peak_memory_mb")
    return [{key: value for key, value in line.items() if key not in machine} for line in lines]


def test_it_learns_and_reports(tmp_path: Path) -> None:
    task = Counting()
    metrics = train(task, tmp_path, steps=60)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60]
    assert metrics["valid_loss"] < 0.5 * lines[0]["valid_loss"] and metrics["valid_loss"] == lines[-1]["valid_loss"]
    assert lines[0]["padding"] == 0.25 and len({line["valid_draw"] for line in lines}) == 1
    assert metrics["steps"] == 60 and metrics["seconds"] > 0
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names[0] == "step-000010" and len(names) == 6
    assert (tmp_path / "samples" / "step-000060" / "next.txt").read_text() == "step 60\n"
    state.finish(tmp_path)
    assert not tmp_path.exists()


# What the subprocess of the next test runs: this file's own task, slowly, with a state saved every 7 steps.
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_loop
task = test_loop.Counting(slow=0.03)
test_loop.train(task, Path({folder!r}))
"""


def test_kill_9_and_resume_ends_with_the_same_bits(tmp_path: Path) -> None:
    straight = Counting()
    expected = train(straight, tmp_path / "straight")
    folder = tmp_path / "killed"
    code = CHILD.format(tests=str(Path(__file__).parent), folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 60
        while len(read_metrics(folder / "metrics.jsonl")) < 2:  # past step 20; the last state is of step 14 or later
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    loaded = state.load_state(folder)
    assert loaded is not None and 14 <= loaded[1]["step"] <= 28
    resumed = Counting()
    found = train(resumed, folder)
    for (name, a), b in zip(straight.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert resumed.model.seen.item() == straight.model.seen.item() == 120  # a buffer that checkpoints leave out
    assert timeless([expected | {"seconds": 0}]) == timeless([found | {"seconds": 0}])
    lines = [timeless(read_metrics(path / "metrics.jsonl")) for path in (tmp_path / "straight", folder)]
    assert lines[0] == lines[1]  # nothing twice, nothing missing, the same means


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first = train(Counting(), tmp_path)
    task = Counting()
    task.loss = None  # type: ignore[method-assign, assignment]  # would fail if it were called
    assert train(task, tmp_path) == first


def test_another_fingerprint_starts_again_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(Counting(), tmp_path, "old", steps=8)
    fresh = train(Counting(), tmp_path, "new", steps=9)
    assert "starting again" in capsys.readouterr().err
    assert fresh["steps"] == 9 and [x["step"] for x in read_metrics(tmp_path / "metrics.jsonl")] == [9]
    (tmp_path / state.STATE_FILE).write_bytes(b"cut off")
    train(Counting(), tmp_path, "new", steps=9)
    assert "unreadable" in capsys.readouterr().err


def test_a_folder_that_is_no_state_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="thesis.txt"):
        train(Counting(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_fingerprint_depends_on_parameters_data_and_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    base = state.fingerprint({"a": 1}, {"d": "x"})
    assert base == state.fingerprint({"a": 1}, {"d": "x"})
    assert base != state.fingerprint({"a": 2}, {"d": "x"})
    assert base != state.fingerprint({"a": 1}, {"d": "y"})
    changed = tmp_path / "device.py"
    changed.write_bytes(Path(device_module.__file__).read_bytes() + b"# changed\n")
    monkeypatch.setattr(device_module, "__file__", str(changed))
    assert base != state.fingerprint({"a": 1}, {"d": "x"})


def test_accumulation_gives_the_large_batchs_gradient(tmp_path: Path) -> None:
    results = []
    for rows, accumulate in ((8, 1), (2, 4)):
        task = Counting(rows, accumulate, drop=False)
        train(task, tmp_path / str(rows), steps=1, accumulate=accumulate, clip=1e9, muon_lr=0.0)
        results.append({name: p.grad for name, p in task.model.named_parameters()})
    for name, large in results[0].items():
        torch.testing.assert_close(results[1][name], large, rtol=1e-4, atol=1e-6)


def test_a_bad_step_is_skipped_and_too_many_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = Counting()
    task.bad = {3, 4}
    metrics = train(task, tmp_path / "some", steps=10)
    assert metrics["skipped_steps"] == 2 and metrics["loss"] > 0
    assert all(torch.isfinite(p).all() for p in task.model.parameters())
    assert "step 4: loss nan" in capsys.readouterr().err
    task = Counting()
    task.bad = set(range(12, 99))
    with pytest.raises(UserError, match=r"step 15: .*3 times in a row; the last good state, step 7, is in") as caught:
        train(task, tmp_path / "many")
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "many" / "fingerprint.json").read_text())  # it can go on


def test_clipping_bounds_the_gradient(tmp_path: Path) -> None:
    task = Counting()
    train(task, tmp_path, steps=1, clip=1e-3)
    norm = torch.stack([p.grad.norm() for p in task.model.parameters()]).norm()  # type: ignore[union-attr]
    assert abs(norm.item() - 1e-3) < 1e-6


def test_zero_steps_and_no_data_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        config(steps=0)
    with pytest.raises(UserError, match="zero steps"):
        fit(
            Counting(),
            config().model_copy(update={"steps": 0}),
            seed=1,
            device=cpu(),
            state_dir=tmp_path,
            fingerprint="f",
        )
    task = Counting()
    task.batch = lambda step, micro, rng: None  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(UserError, match="training data is empty"):
        train(task, tmp_path)
    task = Counting()
    task.model.requires_grad_(False)
    with pytest.raises(UserError, match="no parameter is trainable"):
        train(task, tmp_path)


def test_an_error_while_making_a_batch_arrives(tmp_path: Path) -> None:
    class Broken(Counting):
        def batch(self, step: int, micro: int, rng: torch.Generator) -> dict[str, Tensor]:
            if step == 4:
                raise UserError("shard 3: truncated")
            return super().batch(step, micro, rng)

    with pytest.raises(UserError, match="shard 3: truncated"):
        train(Broken(), tmp_path)


class WithEncoder(Counting):
    """Adds a frozen encoder with running statistics, which eval mode must keep still."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16))
        self.frozen = {"encoder": self.encoder}
        self.thaw = False

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        assert not self.encoder.training and self.model.training
        if self.thaw:
            self.encoder.train()
        loss, values = super().loss(batch, step)
        return loss + self.encoder(self.model.embedding.weight).square().mean(), values


def test_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:
    task = WithEncoder()
    before = {name: tensor.clone() for name, tensor in task.encoder.state_dict().items()}
    train(task, tmp_path / "a", steps=12)
    assert all(torch.equal(before[name], tensor) for name, tensor in task.encoder.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in task.encoder.parameters())
    task = WithEncoder()
    task.thaw = True
    with pytest.raises(RuntimeError, match="frozen"):
        train(task, tmp_path / "b", steps=1)


def test_the_best_weights_are_kept_also_over_a_resume(tmp_path: Path) -> None:
    class Worsening(Counting):
        best_by = "score"
        scores = iter([3.0, 1.0, 2.0])

        def evaluate(self) -> dict[str, float]:
            self.at_best = self.model.head.weight.clone() if (score := next(self.scores)) == 1.0 else None
            Worsening.kept = self.at_best if self.at_best is not None else Worsening.kept
            return {"score": score}

        kept: Tensor | None = None

    task = Worsening()
    train(task, tmp_path)
    assert Worsening.kept is not None and torch.equal(task.model.head.weight, Worsening.kept)
    again = Counting()
    again.best_by = "score"
    train(again, tmp_path)  # finished already: everything comes from the saved state
    assert torch.equal(again.model.head.weight, Worsening.kept)


# The second of two processes; the first is the test itself.
SECOND = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_loop
task = test_loop.Counting(2, 2, drop=False)
test_loop.train(task, Path({folder!r}), steps=5, batch_size=2)
torch.save(task.model.state_dict(), {folder!r} + ".pt")
"""


def test_two_processes_do_what_one_with_twice_the_accumulation_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Counting(2, 2, drop=False)
    train(one, tmp_path / "one", steps=5, accumulate=2, batch_size=2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for key, value in (env | {"RANK": "0"}).items():
        monkeypatch.setenv(key, value)
    code = SECOND.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "two"))
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **env, "RANK": "1"}) as child:
        first = Counting(2, 2, drop=False)
        train(first, tmp_path / "two", steps=5, batch_size=2)
        assert child.wait(60) == 0
    second = torch.load(tmp_path / "two.pt", weights_only=True)
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(first.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)
        assert torch.equal(first.model.state_dict()[name], second[name])


def test_moments_of_weights_with_channels_last_go_on_as_they_were(tmp_path: Path) -> None:
    """Found by killing stage B: restored row by row, they met the wrong weights in the fused kernel of AdamW."""

    def made() -> tuple[nn.Conv2d, list[torch.optim.Optimizer]]:
        torch.manual_seed(0)
        module = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
        return module, make_optimisers({"conv": module}, lr=0.01, muon_lr=0.0, weight_decay=0.01)

    def step(module: nn.Conv2d, optimisers: list[torch.optim.Optimizer], number: int) -> None:
        inputs = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(number))
        module(inputs.contiguous(memory_format=torch.channels_last)).square().sum().backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()

    straight, its = made()
    for number in range(3):
        step(straight, its, number)
    state.save_state(tmp_path, {"conv": straight}, its, {}, {"step": 3})
    resumed, other = made()
    tensors, _ = state.load_state(tmp_path) or ({}, {})
    state.restore_modules({"conv": resumed}, tensors)
    state.restore_optimisers(other, tensors)
    for number in range(3, 6):
        step(straight, its, number)
        step(resumed, other, number)
    assert straight.weight.equal(resumed.weight) and straight.bias is not None and straight.bias.equal(resumed.bias)
