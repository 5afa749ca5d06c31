"""Tracking with a real MLflow on sqlite: every point arrives exactly once, whatever the tracker does meanwhile."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from muomni.checkpoint import load_checkpoint
from muomni.device import DeviceConfig
from muomni.errors import UserError
from muomni.fitting import load_into
from muomni.train.report import MetricsFile
from muomni.train.task import TrainConfig
from pipelines import run, sender, tracking, training
from pipelines.sync import end_interrupted, set_aside, sync, unsent_root, waiting
from pipelines.tracking import track

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One real tracker for this file; making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> Iterator[None]:
    """Work in an empty folder, with its own state and the tracker's address in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("DVC_EXP_NAME", "brave-try")
    monkeypatch.setattr(tracking, "INTERVAL", 0.05)
    yield


@pytest.fixture
def dead() -> str:
    """The address of a port at which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def write(folder: Path, steps: range) -> None:
    """What a training leaves: two values a step and samples at the end."""
    metrics = MetricsFile(folder / "metrics.jsonl")
    for step in steps:
        metrics.write(step, {"loss": 1.0 / step, "valid_loss": 2.0 / step})
    metrics.close()
    samples = folder / "samples" / f"step-{steps[-1]:06d}"
    samples.mkdir(parents=True, exist_ok=True)
    (samples / "answer.txt").write_text("a red apple")


def points(client: "MlflowClient", key: str) -> list[tuple[str, int, float]]:
    """All points of a run as (name, step, value), sorted; doubles would show."""
    run_id = sender.find_run(client, key)
    assert run_id is not None
    names = ("loss", "valid_loss")
    return sorted((m.key, m.step, m.value) for name in names for m in client.get_metric_history(run_id, name))


def expected(steps: range) -> list[tuple[str, int, float]]:
    return sorted([("loss", s, 1.0 / s) for s in steps] + [("valid_loss", s, 2.0 / s) for s in steps])


def runs_with(client: "MlflowClient", key: str) -> int:
    return len(client.search_runs([sender.experiment_id(client)], f"tags.`{sender.KEY_TAG}` = '{key}'"))


def test_a_run_has_its_points_parameters_tags_samples_and_end() -> None:
    folder = run.state_dir("a-thinker")
    with track("a-thinker", folder, {"a_thinker": {"steps": 1200}, "seed": 1}) as key:
        write(folder, range(1, 1201))
    client = sender.connect()
    assert points(client, key) == expected(range(1, 1201))  # more than one batch of 1000
    found = client.get_run(sender.find_run(client, key))
    assert found.info.status == "FINISHED" and found.info.run_name == "a-thinker"
    assert found.data.params == {"a_thinker.steps": "1200", "seed": "1"}
    assert found.data.tags["stage"] == "a-thinker" and found.data.tags["dvc_exp"] == "brave-try"
    assert found.data.tags["revision"] and len(found.data.tags["params_hash"]) == 12
    listed = client.list_artifacts(found.info.run_id, "samples/step-001200")
    assert [entry.path for entry in listed] == ["samples/step-001200/answer.txt"]
    history = client.get_metric_history(found.info.run_id, "loss")
    written = [json.loads(line)["time"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted(m.timestamp for m in history) == sorted(int(t * 1000) for t in written)  # their own times
    set_aside(folder)
    assert not unsent_root().exists()  # there was nothing left to send


def test_points_arrive_while_the_training_runs() -> None:
    folder = run.state_dir("a-thinker")
    with track("a-thinker", folder, {}) as key:
        write(folder, range(1, 6))
        client, deadline = sender.connect(), time.monotonic() + 30
        while sender.find_run(client, key) is None or points(client, key) != expected(range(1, 6)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.get_run(sender.find_run(client, key)).info.status == "RUNNING"


def test_a_dead_tracker_loses_nothing_and_sync_sends_all_once(
    dead: str, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    keys = []
    for stage in ("a-thinker", "d-talker"):
        folder = run.state_dir(stage)
        with track(stage, folder, {"seed": 3}) as key:
            write(folder, range(1, 301))
        keys.append(key)
        set_aside(folder)
        assert not (folder / "metrics.jsonl").exists()
    assert capsys.readouterr().err.count("metrics are kept and sent later") == 2  # said once a stage
    assert sync(quiet=True) == (0, 2)  # still dead
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert sync() == (2, 0) and sync() == (0, 0)
    client = sender.connect()
    for key in keys:
        assert points(client, key) == expected(range(1, 301)) and runs_with(client, key) == 1
        found = client.get_run(sender.find_run(client, key))
        assert found.info.status == "FINISHED" and found.info.end_time - found.info.start_time < 60_000
        assert client.list_artifacts(found.info.run_id, "samples")
    assert list(unsent_root().iterdir()) == []


def test_what_was_sent_before_a_crash_is_not_sent_twice() -> None:
    folder = run.state_dir("d-codec")
    with track("d-codec", folder, {}) as key:
        write(folder, range(1, 51))
    before = json.loads((folder / sender.SENT).read_text())
    # Killed after MLflow had the points and before that was noted; then even before the run was noted.
    for forgotten in ({"metrics": {}, "samples": []}, {"metrics": {}, "run_id": None, "status": None}):
        (folder / sender.SENT).write_text(json.dumps(before | forgotten))
        sender.Sender(folder).send()
    client = sender.connect()
    assert points(client, key) == expected(range(1, 51)) and runs_with(client, key) == 1


def test_a_failed_stage_that_goes_on_continues_its_run() -> None:
    folder = run.state_dir("e-omni")
    with pytest.raises(UserError), track("e-omni", folder, {}) as first:
        write(folder, range(1, 31))
        raise UserError("not finite")
    client = sender.connect()
    assert client.get_run(sender.find_run(client, first)).info.status == "FAILED"
    time.sleep(0.002)
    with track("e-omni", folder, {}) as second:
        write(folder, range(21, 61))  # steps 21 to 30 again, at another time
    assert second == first and runs_with(client, first) == 1
    assert points(client, first) == expected(range(1, 61))
    assert client.get_run(sender.find_run(client, first)).info.status == "FINISHED"


def test_a_silent_tracker_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "LAST_CHANCE", 0.5)
    folder = run.state_dir("b-audio-encoder")
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and never answers
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        began = time.monotonic()
        with track("b-audio-encoder", folder, {}):
            write(folder, range(1, 11))
        set_aside(folder)
        assert time.monotonic() - began < 5
    assert len(list(unsent_root().glob("*/metrics.jsonl"))) == 1


def test_a_discarded_trainings_points_are_still_sent() -> None:
    folder = run.state_dir("c-vision-encoder")
    record = {"key": "0123", "stage": "c-vision-encoder", "started": 1000, "params": {}, "tags": {"muomni.run": "0123"}}
    (folder / sender.RUN).write_text(json.dumps(record | {"status": None, "ended": None}))  # as a kill leaves it
    write(folder, range(1, 6))
    assert end_interrupted(run.state_root()) == 1
    (folder / sender.RUN).write_text(json.dumps(record | {"status": None, "ended": None}))  # went on, killed again
    write(folder, range(6, 11))
    set_aside(folder)
    assert sync() == (1, 0)
    client = sender.connect()
    assert points(client, "0123") == expected(range(1, 11))
    assert client.get_run(sender.find_run(client, "0123")).info.status == "KILLED"


HOLDER = """
import time
from pipelines.run import take_lock
lock = take_lock("a-thinker")
print("held", flush=True)
time.sleep(1.5)
"""


def test_a_run_whose_process_is_just_ending_is_waited_for() -> None:
    folder = run.state_dir("a-thinker")
    record = {"key": "0124", "stage": "a-thinker", "started": 1000, "params": {}, "tags": {"muomni.run": "0124"}}
    (folder / sender.RUN).write_text(json.dumps(record | {"status": None, "ended": None}))
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert not waiting(run.state_root()), "its own process may send it still"
        assert end_interrupted(run.state_root()) == 0
        assert end_interrupted(run.state_root(), patience=20) == 1
    client = sender.connect()
    assert client.get_run(sender.find_run(client, "0124")).info.status == "KILLED"
    assert not waiting(run.state_root()), "all of it was sent"


def test_what_its_own_process_does_not_send_is_waiting() -> None:
    folder = run.state_dir("a-thinker")
    record = {"key": "0125", "stage": "a-thinker", "started": 1000, "params": {}, "tags": {"muomni.run": "0125"}}
    (folder / sender.RUN).write_text(json.dumps(record | {"status": None, "ended": None}))
    assert waiting(run.state_root())
    set_aside(folder)
    assert waiting(run.state_root()), "set aside, and not sent"
    assert sync() == (1, 0) and not waiting(run.state_root())
    run.state_dir("a-thinker").joinpath(sender.RUN).write_text("{half")
    assert not waiting(run.state_root()), "nothing can be sent of a record that cannot be read"


def test_a_clock_that_is_put_back_moves_no_point_and_no_end_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]
    folder = run.state_dir("d-codec")
    monkeypatch.setattr("time.time", lambda: now[0])
    with track("d-codec", folder, {}) as key:
        for steps in (range(1, 11), range(11, 21), range(21, 31)):
            write(folder, steps)
            client, deadline = sender.connect(), time.monotonic() + 30
            while sender.find_run(client, key) is None or points(client, key) != expected(range(1, steps[-1] + 1)):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            now[0] -= 86_400
    found = client.get_run(sender.find_run(client, key))
    assert found.info.status == "FINISHED" and found.info.end_time == found.info.start_time
    assert points(client, key) == expected(range(1, 31)) and found.data.metrics["loss"] == 1 / 30, "the last step's"
    set_aside(folder)
    assert not unsent_root().exists()


def test_where_an_experiments_copy_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sender.tracking_uri() == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "tmpabc" / "sub"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert sender.tracking_uri() == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/db")
    assert sender.shown_uri() == "postgresql://host/db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/a@b/mlflow.db")
    assert sender.shown_uri() == f"sqlite:///{tmp_path}/a@b/mlflow.db"


class Line:
    """Fit y = 2 x."""

    frozen: dict[str, nn.Module] = {}
    best_by = ""

    def __init__(self, stop_at: int = 99) -> None:
        self.model = nn.Linear(1, 1)
        nn.init.ones_(self.model.weight)  # and not as far off as chance has it: 40 steps must be enough
        self.modules = {"line": self.model}
        self.stop_at = stop_at

    def batch(self, step: int, micro: int, rng: torch.Generator) -> Tensor:
        return 3 * torch.randn(4, 1, generator=rng)

    def loss(self, batch: Tensor, step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        if step == self.stop_at:
            raise UserError("stopped")
        return (self.model(batch) - 2 * batch).square().mean(), {}

    def evaluate(self) -> dict[str, float]:
        return {"slope": self.model.weight.item()}

    def samples(self, step: int, folder: Path) -> None:
        (folder / "slope.txt").write_text(str(self.model.weight.item()))


def stage(task: Line, steps: int = 40) -> dict[str, float]:
    cfg = TrainConfig(
        steps=steps,
        batch_size=4,
        accumulate=1,
        lr=0.1,
        muon_lr=0.0,
        weight_decay=0.0,
        warmup=0,
        min_lr=0.1,
        clip=1.0,
        eval_every=20,
        save_every=10,
        checkpointing=False,
        max_bad_steps=0,
    )
    device = DeviceConfig(name="cpu", precision="fp32", threads=1, memory_gb=None)
    Path("numbers.txt").write_text("1 2 3")
    outputs: Any = lambda t: [training.Output(Path("checkpoints/thinker"), t.model, {"a_thinker": cfg})]  # noqa: E731
    return training.run_stage(
        "a-thinker",
        lambda: task,
        outputs,
        cfg=cfg,
        seed=1,
        device=device,
        params={"a_thinker": cfg, "seed": 1},
        data=["numbers.txt"],
    )


def test_a_whole_stage_from_failure_to_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stopped"):
        stage(Line(stop_at=25))
    assert not Path("checkpoints").exists() and not Path("metrics").exists()  # nothing half-written
    metrics = stage(Line())
    assert metrics["valid_slope"] == pytest.approx(2, abs=0.3)
    found = load_checkpoint("checkpoints/thinker")
    model = nn.Linear(1, 1)
    load_into(model, found.state)
    assert model.weight.item() == metrics["valid_slope"]
    assert found.card["params"]["a_thinker"]["steps"] == 40 and found.card["metrics"] == metrics
    assert list(found.card["data"]) == ["numbers.txt"] and found.config["a_thinker"]["batch_size"] == 4
    curves = Path("metrics/train/a-thinker")
    assert [row["step"] for row in json.loads((curves / "train.json").read_text())] == [10, 20, 30, 40]
    assert [row["step"] for row in json.loads((curves / "valid.json").read_text())] == [20, 40]
    assert (curves / "samples" / "step-000040" / "slope.txt").exists()
    assert not (run.state_root() / "state" / "a-thinker").exists()
    client = sender.connect()
    run_id = sender.find_run(client, found.card["run"])
    assert client.get_run(run_id).info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run_id, "loss")] == [10, 20, 30, 40]  # across both attempts


def test_a_changed_parameter_starts_a_new_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="stopped"):
        stage(Line(stop_at=25))
    stage(Line(), steps=30)
    assert "starting again" in capsys.readouterr().err
    key = load_checkpoint("checkpoints/thinker").card["run"]
    client = sender.connect()
    steps = [m.step for m in client.get_metric_history(sender.find_run(client, key), "loss")]
    assert steps == [10, 20, 30]


def test_missing_data_is_one_line() -> None:
    with pytest.raises(UserError, match="nowhere: not there yet"):
        training.hashes(["nowhere"])
