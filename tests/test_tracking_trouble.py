"""A training against a real MLflow server that is away, killed or stopped: each point arrives exactly once."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tracking_tools import STAGE, Server, Trainer, card, wait_until, work_in

from muomni.cli import main
from muomni.errors import UserError
from muomni.train.report import read_metrics
from pipelines import sender
from pipelines.sync import end_interrupted, sync_all, unsent_root

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

STEPS = [10, 20, 30, 40, 50, 60]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for this file: its first start makes tables, which takes seconds."""
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(shared: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, running, and this process working in an empty folder."""
    work_in(tmp_path, shared, monkeypatch)
    if shared.process is None:
        shared.start()
    return shared


def only_run(client: "MlflowClient", key: str) -> "Run":
    """The run of a key; more than one would show."""
    (found,) = client.search_runs([sender.experiment_id(client)], f"tags.`{sender.KEY_TAG}` = '{key}'")
    return found


def check_whole(place: Path, step: float | None = None) -> None:
    """MLflow has the whole training exactly once.

    Args:
        place: where the training worked.
        step: seconds of a step, if the training was not interrupted: then it was not held up either.
    """
    client, key = sender.connect(), card(place)["run"]
    run = only_run(client, key)
    run_id = run.info.run_id
    assert run.info.status == "FINISHED"
    for name in ("loss", "samples_per_second", "lr"):
        assert sorted(m.step for m in client.get_metric_history(run_id, name)) == STEPS, name
    times = sorted(m.timestamp for m in client.get_metric_history(run_id, "loss"))
    assert step is None or times[-1] - times[0] < 1000 * (50 * step + 5)
    slopes = client.get_metric_history(run_id, "valid_slope")
    assert sorted(m.step for m in slopes) == [20, 40, 60]
    assert {a.path for a in client.list_artifacts(run_id, "samples")} == {f"samples/step-0000{s}" for s in (20, 40, 60)}
    models = client.search_logged_models(
        [run.info.experiment_id],
        f"source_run_id = '{run_id}'",
        order_by=[{"field_name": "metrics.valid_slope", "ascending": False}],
    )
    assert [m.tags["step"] for m in models] == [str(m.step) for m in sorted(slopes, key=lambda m: -m.value)]
    assert {str(m.status) for m in models} == {"READY"}
    assert not list((place / ".muomni" / "unsent").glob("*"))


def waits(place: Path) -> list[str]:
    """The names of runs that wait to be sent."""
    return [path.name for path in (place / ".muomni" / "unsent").glob("*")]


def test_the_server_is_not_there_at_first(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.kill()
    training = Trainer(tmp_path, server.uri)
    training.finish()
    assert len(waits(tmp_path)) == 1
    assert main(["track", "sync"]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.err.startswith("error: http://127.0.0.1") and not said.out
    assert len(waits(tmp_path)) == 1  # nothing lost
    server.start()
    assert main(["track", "sync"]) == 0
    assert capsys.readouterr().out == f"sent 1 runs that waited and 0 interrupted ones to {server.uri}\n"
    check_whole(tmp_path, 0.05)


def test_the_server_is_killed_in_the_middle_and_comes_back(server: Server, tmp_path: Path) -> None:
    training = Trainer(tmp_path, server.uri, step=0.2)
    training.reach(20)
    server.kill()
    training.reach(30)
    server.start()
    training.finish()
    sync_all()
    check_whole(tmp_path, 0.2)


def test_the_server_is_stopped_for_some_seconds(server: Server, tmp_path: Path) -> None:
    # With a time-out below the pause, requests are given up whose work the server does all the same, later.
    training = Trainer(tmp_path, server.uri, step=0.2, MLFLOW_HTTP_REQUEST_TIMEOUT="2")
    training.reach(20)
    server.signal(signal.SIGSTOP)
    training.reach(40)
    time.sleep(3)
    server.signal(signal.SIGCONT)
    training.finish()
    sync_all()
    check_whole(tmp_path, 0.2)


def test_the_server_is_stopped_before_the_run_is_known(server: Server, tmp_path: Path) -> None:
    server.signal(signal.SIGSTOP)
    try:
        training = Trainer(tmp_path, server.uri, last_chance=2.0, MLFLOW_HTTP_REQUEST_TIMEOUT="2")
        training.finish()
        assert len(waits(tmp_path)) == 1
    finally:
        server.signal(signal.SIGCONT)

    def synced() -> bool:
        # What was stopped for more than 5 s its own supervisor may replace, so that nobody answers for a moment.
        with suppress(UserError):
            sync_all()
            return True
        return False

    wait_until(synced, 60)
    check_whole(tmp_path, 0.05)


def test_kill_9_of_the_trainer_ends_the_run_and_it_goes_on(server: Server, tmp_path: Path) -> None:
    training = Trainer(tmp_path, server.uri)
    training.reach(30)
    state = training.folder
    key = json.loads((state / "run.json").read_text())["key"]
    assert end_interrupted(tmp_path / ".muomni") == 0  # it lives
    training.kill()
    assert end_interrupted(tmp_path / ".muomni") == 1 and end_interrupted(tmp_path / ".muomni") == 0
    client = sender.connect()
    run = only_run(client, key)
    last = read_metrics(state / "metrics.jsonl")[-1]
    assert run.info.status == "KILLED" and run.info.end_time == int(last["time"] * 1000)
    sent = client.get_metric_history(run.info.run_id, "loss")
    assert [m.step for m in sent] == list(range(10, last["step"] + 1, 10))
    again = Trainer(tmp_path, server.uri)
    again.reach(last["step"] + 10)
    again.finish()
    assert card(tmp_path)["run"] == key
    check_whole(tmp_path)
    after = client.get_metric_history(run.info.run_id, "loss")
    assert {(m.step, m.value, m.timestamp) for m in sent} < {(m.step, m.value, m.timestamp) for m in after}


def test_a_killed_trainer_without_a_server_is_sent_by_sync(server: Server, tmp_path: Path) -> None:
    server.kill()
    root = tmp_path / ".muomni" / "runs" / "abc" / "state"  # as of a run in a copy
    training = Trainer(tmp_path, server.uri, MUOMNI_STATE=str(root))
    training.reach(30)
    training.kill()
    key = json.loads((training.folder / "run.json").read_text())["key"]
    with pytest.raises(UserError, match="nothing is lost"):
        sync_all()
    assert json.loads((training.folder / "run.json").read_text())["status"] == "KILLED"
    server.start()
    sync_all()
    assert only_run(sender.connect(), key).info.status == "KILLED"
    Trainer(tmp_path, server.uri, MUOMNI_STATE=str(root)).finish()
    assert card(tmp_path)["run"] == key and not (root / "state" / STAGE).exists()
    check_whole(tmp_path)
    assert unsent_root() == tmp_path / ".muomni" / "unsent"
