"""The run of a whole graph run in MLflow: made once, children in it, local first, ended also when it is killed."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tracking_tools import ROOT, wait_until

from muomni.errors import UserError
from muomni.train.report import MetricsFile
from pipelines import parent_run, run, sender, tracking
from pipelines.parent_run import close_parent, open_parent, run_link
from pipelines.sync import end_interrupted, set_aside, set_aside_all, sync, unsent_root
from pipelines.tracking import track

if TYPE_CHECKING:
    from mlflow.entities import Run


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One real tracker for this file; making its tables takes seconds, so that is done first."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        sender.experiment_id(sender.connect())
    return uri


@pytest.fixture
def dead() -> str:
    """The address of a port at which nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> Iterator[Path]:
    """The folder of a parent, with the environment that a flow gives to its stages."""
    folder = tmp_path / ".muomni" / "runs" / "abc" / "parent"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / ".muomni"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("MUOMNI_PARENT", str(folder))
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    monkeypatch.setattr(tracking, "INTERVAL", 0.05)
    monkeypatch.setattr(parent_run, "OPENING", 60.0)
    yield folder


def runs(key: str) -> "list[Run]":
    client = sender.connect()
    return list(client.search_runs([sender.experiment_id(client)], f"tags.`{sender.KEY_TAG}` = '{key}'"))


def child(name: str) -> str:
    """A stage with one point."""
    folder = run.state_dir(name)
    with track(name, folder, {"seed": 1}) as key:
        metrics = MetricsFile(folder / "metrics.jsonl")
        metrics.write(10, {"loss": 1.0})
        metrics.close()
    set_aside(folder)
    return key


def test_a_parent_with_children_figures_and_files(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = open_parent(parent, "train", {"profile": "smoke"}, {"flow_run": "brave-otter"})
    (opened,) = runs(key)
    assert opened.info.status == "RUNNING" and opened.info.run_name == "train"
    assert opened.data.params == {"profile": "smoke"} and opened.data.tags["flow_run"] == "brave-otter"
    children = [child("a-thinker"), child("d-codec")]
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "a.txt").write_text("a")
    close_parent(parent, "FINISHED", {"cer": 0.05}, [tmp_path / "summary.json", tmp_path / "samples"])
    client, (closed,) = sender.connect(), runs(key)
    assert closed.info.status == "FINISHED" and closed.data.metrics == {"cer": 0.05}
    assert {a.path for a in client.list_artifacts(closed.info.run_id)} == {"summary.json", "samples"}
    for one in children:
        (found,) = runs(one)
        assert found.data.tags[sender.PARENT_TAG] == closed.info.run_id
    assert run_link(key) is None
    monkeypatch.setenv("MUOMNI_MLFLOW_UI", "http://127.0.0.1:5000/")
    assert run_link(key) == f"http://127.0.0.1:5000/#/experiments/{closed.info.experiment_id}/runs/{closed.info.run_id}"
    assert run_link("nothing") is None
    again = open_parent(parent, "train", {}, {})  # a finished one does not go on
    assert again != key
    close_parent(parent, "FINISHED")


def test_a_parent_that_failed_goes_on_and_a_stage_keeps_its_first_parent(parent: Path) -> None:
    first = open_parent(parent, "train", {"seed": 1})
    folder = run.state_dir("e-omni")
    with pytest.raises(UserError), track("e-omni", folder, {}) as stage:
        raise UserError("stopped")
    close_parent(parent, "FAILED", {"cer": 0.5})
    assert runs(first)[0].info.status == "FAILED"
    assert open_parent(parent, "train", {"seed": 1}, {"try": "2"}) == first
    (found,) = runs(first)
    assert found.info.status == "RUNNING" and found.data.tags["try"] == "2"
    with pytest.raises(UserError, match="another process"):
        open_parent(parent, "train", {"seed": 1})
    close_parent(parent, "FINISHED", {"cer": 0.1})
    (found,) = runs(first)
    assert found.info.status == "FINISHED" and found.data.metrics == {"cer": 0.1}
    second = open_parent(parent, "train", {"seed": 1})
    with track("e-omni", folder, {}) as same:
        pass
    close_parent(parent, "FINISHED")
    (found,) = runs(stage)
    assert same == stage and second != first and found.data.tags[sender.PARENT_TAG] == runs(first)[0].info.run_id
    assert found.data.tags[tracking.RESUMED_TAG] == second


def test_nothing_is_lost_while_the_tracker_is_away(
    parent: Path, dead: str, database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    key = open_parent(parent, "train", {"seed": 1})
    one = child("a-thinker")
    (tmp_path / "summary.json").write_text("{}")
    close_parent(parent, "FAILED", {"cer": 0.5}, [tmp_path / "summary.json"])
    set_aside_all(parent.parent)  # as before the folder goes
    assert len(list(unsent_root().iterdir())) == 2 and not (parent / "run.json").exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert sync() == (2, 0)
    (found,), (stage,) = runs(key), runs(one)
    assert found.info.status == "FAILED" and found.data.params == {"seed": "1"} and found.data.metrics == {"cer": 0.5}
    assert [a.path for a in sender.connect().list_artifacts(found.info.run_id)] == ["summary.json"]
    assert stage.data.tags[sender.PARENT_TAG] == found.info.run_id


OWNER = """
import sys, time
from pathlib import Path
from pipelines.parent_run import open_parent
print(open_parent(Path(sys.argv[1]), "train", {}), flush=True)
time.sleep(600)
"""


def test_a_killed_owners_parent_ends_and_goes_on(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with subprocess.Popen([sys.executable, "-c", OWNER, str(parent)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        key = owner.stdout.readline().strip()
        assert end_interrupted(run.state_root()) == 0  # it lives
        owner.send_signal(signal.SIGKILL)
    assert end_interrupted(run.state_root()) == 1
    assert runs(key)[0].info.status == "KILLED"
    assert open_parent(parent, "train", {}) == key and runs(key)[0].info.status == "RUNNING"
    close_parent(parent, "FINISHED")
    assert runs(key)[0].info.status == "FINISHED"


CHILD = """
import os, sys, time
from pathlib import Path
from pipelines import sender
record = {"key": sys.argv[1], "stage": "train", "started": 1000, "tags": {"muomni.run": sys.argv[1]}}
client = sender.connect()
sender.experiment_id(client)
Path(f"ready-{os.getpid()}").touch()
while not Path("go").exists():
    time.sleep(0.001)
print(sender.make_run(client, record))
"""


def test_two_that_need_a_parent_at_once_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    sender.experiment_id(sender.connect())
    command = [sys.executable, "-c", CHILD, "both"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    wait_until(lambda: len(list(Path().glob("ready-*"))) == 2, 60)
    Path("go").touch()
    said = {process.communicate(timeout=60)[0] for process in both}
    assert len(said) == 1 and len(runs("both")) == 1


def test_doubles_that_a_late_request_made_go_and_children_move(parent: Path) -> None:
    key = open_parent(parent, "train", {})
    client, record = sender.connect(), json.loads((parent / "run.json").read_text())
    late = client.create_run(sender.experiment_id(client), record["started"], tags=record["tags"], run_name="train")
    (stage,) = runs(child("a-thinker"))
    client.set_tag(stage.info.run_id, sender.PARENT_TAG, late.info.run_id)
    close_parent(parent, "FINISHED")
    (kept,) = runs(key)
    assert kept.info.run_id != late.info.run_id
    wait_until(lambda: client.get_run(stage.info.run_id).data.tags[sender.PARENT_TAG] == kept.info.run_id, 5)
