"""Out of memory: a step goes on in parts with the same result and says so. And how much memory a training took."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_models import THINKER
from test_loop import Counting, config, cpu, train
from torch import Tensor

from muomni.device import cpu_has_fast_bf16
from muomni.errors import UserError
from muomni.thinker import Thinker
from muomni.train import state
from muomni.train.feed import Feed
from muomni.train.loop import Training
from muomni.train.memory import free, is_out_of_memory, memory_mb
from muomni.train.report import read_metrics
from muomni.train.split import runs


class Narrow(Counting):
    """A task with room for so many samples, from a step on. More of them fail when the backward pass is nearly done."""

    def __init__(self, room: int, since: int = 0, rows: int = 4, accumulate: int = 1) -> None:
        super().__init__(rows, accumulate, drop=False)
        self.room, self.since, self.failed, self.made = room, since, 0, list[tuple[int, int]]()

    def batch(self, step: int, micro: int, rng: torch.Generator) -> dict[str, Tensor]:
        self.made.append((step, micro))
        return super().batch(step, micro, rng)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        loss, values = super().loss(batch, step)
        if step >= self.since and len(batch["ids"]) > self.room:

            def fail(_: Tensor) -> None:
                hook.remove()
                self.failed += 1
                assert self.model.head.weight.grad is not None, "it has added a part of its gradient"
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

            hook = self.model.embedding.weight.register_hook(fail)
        return loss, values


class Halving(Narrow):
    """Its batches can be cut."""

    def split(self, batch: dict[str, Tensor], parts: int) -> list[tuple[dict[str, Tensor], float]]:
        ids = batch["ids"]
        return [(batch | {"ids": ids[r]}, (r.stop - r.start) / len(ids)) for r in runs(len(ids), parts)]


class Twice(Narrow):
    """Its batches cannot be cut, but checkpointing makes room."""

    checkpointing = False

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        self.room = 99 if self.checkpointing else self.room
        return super().loss(batch, step)


def assert_same_weights(task: Counting, other: Counting) -> None:
    """Equal but for rounding."""
    for (name, a), b in zip(task.model.named_parameters(), other.model.parameters(), strict=True):
        # Muon multiplies in bf16 on CPUs that are fast in it, which rounds to 8 bits.
        rounded = "blocks" in name and a.ndim == 2 and cpu_has_fast_bf16()
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 if rounded else 1e-4, msg=name)


Err = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("rows", "room", "parts", "said"),
    [
        (8, 4, 2, ["micro-batches of 4 from here on (batch 8 = 2 x 4)"]),
        (8, 3, 4, ["micro-batches of 4 from", "micro-batches of 2 from here on (batch 8 = 4 x 2)"]),
        (
            5,
            1,
            8,
            ["of at most 3 from here on (batch 5 in 2 parts)", "at most 2", "of 1 from here on (batch 5 = 5 x 1)"],
        ),
    ],
)
def test_a_training_that_runs_out_of_memory_ends_with_the_same_weights(
    rows: int, room: int, parts: int, said: list[str], tmp_path: Path, capsys: Err
) -> None:
    settings = {"batch_size": rows, "accumulate": 2, "steps": 12}
    plain, narrow = (Halving(room, since, rows, 2) for since in (99, 3))
    wanted = train(plain, tmp_path / "plain", **settings)
    assert "out of memory" not in capsys.readouterr().err
    found = train(narrow, tmp_path / "narrow", **settings)
    assert narrow.failed == len(said) and narrow.made == plain.made, "the same data, each batch made once"
    assert_same_weights(narrow, plain)
    assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-3)
    assert found["noise"] == pytest.approx(wanted["noise"], rel=1e-5) and found["skipped_steps"] == 0
    loaded = state.load_state(tmp_path / "narrow")
    assert loaded is not None and loaded[1]["parts"] == parts
    lines = [line for line in capsys.readouterr().err.splitlines() if "out of memory" in line]
    for line, text in zip(lines, said, strict=True):
        assert line.startswith("train: step 4: out of memory; ") and text in line


class Stop(Exception):
    pass


def dying(task: Narrow) -> Narrow:
    """A task whose training ends with `Stop` after the state of step 14 was saved."""
    own = task.batch

    def batch(step: int, micro: int, rng: torch.Generator) -> dict[str, Tensor]:
        if step == 16:
            raise Stop
        return own(step, micro, rng)

    task.batch = batch  # type: ignore[method-assign]
    return task


def test_a_resumed_training_begins_with_the_parts_that_were_found(tmp_path: Path, capsys: Err) -> None:
    plain, cut, resumed = Halving(99), dying(Halving(2)), Halving(2)
    train(plain, tmp_path / "plain")
    with pytest.raises(Stop):
        train(cut, tmp_path / "cut")
    assert cut.failed == 1 and "micro-batches of 2" in capsys.readouterr().err
    train(resumed, tmp_path / "cut")
    assert resumed.failed == 0 and resumed.made[0] == (14, 0)
    said = capsys.readouterr().err
    assert "going on after step 14" in said and "out of memory" not in said
    assert_same_weights(resumed, plain)


def test_what_cannot_be_cut_is_checkpointed_and_a_resumed_training_knows(tmp_path: Path, capsys: Err) -> None:
    plain, twice, resumed = Twice(99), dying(Twice(2)), Twice(2)
    train(plain, tmp_path / "plain")
    with pytest.raises(Stop):
        train(twice, tmp_path / "twice")
    assert twice.failed == 1 and isinstance(twice, Twice) and twice.checkpointing and not plain.checkpointing
    assert "step 1: out of memory; activations are computed again" in capsys.readouterr().err
    train(resumed, tmp_path / "twice")
    assert resumed.failed == 0
    for (name, a), b in zip(resumed.model.named_parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_without_a_way_out_the_error_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    class Stuck(Twice):
        def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
            return Narrow.loss(self, batch, step)

    for task, tried, pattern in (
        (Halving(0), 3, r"^train: step 1: out of memory even with one sample at a time; shorten .*device.memory_gb"),
        (Narrow(2), 1, r"^train: step 1: out of memory; lower train.batch_size, since the loss needs the whole batch"),
        (Stuck(2), 2, r"^train: step 1: out of memory even with checkpointing; lower train.batch_size"),
    ):
        with pytest.raises(UserError, match=pattern) as caught:
            train(task, tmp_path / str(tried))
        assert "\n" not in str(caught.value) and task.failed == tried


def test_who_wants_to_know_whether_a_batch_fits_gets_the_error(tmp_path: Path) -> None:
    training = Training(Halving(2), config(), 5, cpu(), tmp_path, "f", "trial")
    feed = Feed(training.task.batch, 5, [(0, 0)])
    with pytest.raises(torch.OutOfMemoryError):
        training.gradients(0, feed)
    feed.close()


def test_out_of_memory_in_an_evaluation_is_one_line(tmp_path: Path) -> None:
    class Greedy(Counting):
        def evaluate(self) -> dict[str, float]:
            return {"loss": float(torch.empty(1 << 50)[0])}

    with pytest.raises(UserError, match=r"train: out of memory outside of the micro-batches \(.*can't allocate"):
        train(Greedy(), tmp_path)


def test_real_errors_are_told_apart() -> None:
    for make in (lambda: torch.empty(1 << 50), lambda: bytearray(1 << 60)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            make()
        assert is_out_of_memory(caught.value)
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not is_out_of_memory(other.value)
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(UserError("out of memory")), "said already"


def test_the_graph_of_a_failed_attempt_goes() -> None:
    thinker = Thinker(THINKER.model_copy(update={"n_experts": 2}))
    thinker(thinker.embed(torch.zeros(1, 4, dtype=torch.int64)))
    assert thinker.balance_loss() is not None
    free({"thinker": thinker}, torch.device("cpu"))
    assert thinker.balance_loss() is None


def test_peak_memory_is_recorded(tmp_path: Path) -> None:
    before, _ = memory_mb(torch.device("cpu"))

    class Hungry(Counting):
        def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
            if step == 12:
                torch.ones(300 << 18)  # 300 MiB, given back at once
            return super().loss(batch, step)

    metrics = train(Hungry(), tmp_path)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert all(before / 2 < line["memory_mb"] < metrics["peak_memory_mb"] for line in lines)
    assert metrics["peak_memory_mb"] > before + 290
    assert train(Hungry(), tmp_path)["peak_memory_mb"] == metrics["peak_memory_mb"], "kept with the state"


# Trains twice, the second time with little more memory than before: not enough for all samples at once. The limit is
# one of the address space, which is counted exactly, and every activation is so large that it is given back to Linux.
LIMITED = """
import gc, resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
from test_loop import train
from test_memory import Wide

plain, tight = Wide(), Wide()
train(plain, Path({folder!r}) / "plain", steps=2, batch_size=4)
gc.collect()
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + Wide.whole * 4 // 5
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
train(tight, Path({folder!r}) / "tight", steps=2, batch_size=4)
for a, b in zip(plain.model.parameters(), tight.model.parameters(), strict=True):
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
"""


class Wide(Counting):
    """Four samples whose activations take 864 MiB."""

    layers, width = 9, 24 << 18  # 24 MiB a sample and layer
    whole = 4 * layers * 4 * width

    def __init__(self) -> None:
        super().__init__(drop=False)

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        loss, values = super().loss(batch, step)
        x = self.model.head.bias[:1].expand(len(batch["ids"]), self.width)
        for _ in range(self.layers):
            x = torch.sin(x)  # keeps its input for the backward pass
        return loss + x.mean(), values

    def split(self, batch: dict[str, Tensor], parts: int) -> list[tuple[dict[str, Tensor], float]]:
        return Halving.split(self, batch, parts)  # type: ignore[arg-type]


def test_a_process_that_may_have_no_more_memory_goes_on_in_parts(tmp_path: Path) -> None:
    code = LIMITED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.findall("train: step 1: out of memory; (.*)", done.stderr) == [
        "micro-batches of 2 from here on (batch 4 = 2 x 2)"
    ]


# The second of two processes, which alone runs out of memory.
SECOND = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_loop import train
from test_memory import Halving
task = Halving(1, rows=2, accumulate=2)
train(task, Path({folder!r}), steps=5, batch_size=2)
assert task.failed == 1
"""


def test_one_of_two_processes_may_run_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Halving(99, rows=2, accumulate=2)
    train(one, tmp_path / "one", steps=5, accumulate=2, batch_size=2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    env = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for key, value in (env | {"RANK": "0"}).items():
        monkeypatch.setenv(key, value)
    code = SECOND.format(tests=str(Path(__file__).parent), folder=str(tmp_path / "two"))
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **env, "RANK": "1"}) as child:
        first = Halving(99, rows=2, accumulate=2)
        train(first, tmp_path / "two", steps=5, batch_size=2)
        assert child.wait(60) == 0
    assert_same_weights(first, one)
