"""Which server tracks the runs of a workplace, and who is told which address."""

from pathlib import Path

import pytest
from workplace import free_port

from pipelines.access import Access
from pipelines.tracker import Tracker
from pipelines.workplace import Workplace

STORE = "postgresql://somebody:p4ssword@db.example/mlflow"
TOKEN = "a-token-of-some-length"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / ".muomni"))
    for name in ("BACKEND_STORE_URI", "DEFAULT_ARTIFACT_ROOT", "ARTIFACTS_DESTINATION", "TRACKING_URI"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


def test_by_itself_runs_write_to_the_file_and_the_server_reads_it(tmp_path: Path) -> None:
    tracker = Tracker(Access("127.0.0.1"), free_port())
    program = tracker.program(["--port", str(tracker.port)])
    assert program is not None and tracker.clients() == {}
    assert program.own["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert program.own["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == f"file://{tmp_path}/mlruns/artifacts"


def test_a_database_is_told_to_the_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", STORE)
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", "s3://bucket/mlflow")
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", STORE)
    place = Workplace(Access("127.0.0.1", token=TOKEN), free_port(), free_port())
    program = place.tracker.program(place.at(place.mlflow_port))
    assert program is not None and program.own["MLFLOW_BACKEND_STORE_URI"] == STORE
    assert program.own["MLFLOW_ARTIFACTS_DESTINATION"] == "s3://bucket/mlflow"
    assert "p4ssword" not in " ".join(program.command) + repr(program)
    env = place.env()
    assert env["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{place.mlflow_port}"
    assert (env["MLFLOW_TRACKING_USERNAME"], env["MLFLOW_TRACKING_PASSWORD"]) == ("muomni", TOKEN)
    assert not [name for name, text in env.items() if "p4ssword" in text]


def test_a_server_that_is_there_is_used_and_none_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://somebody:p4ssword@mlflow.example")
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", STORE)
    tracker = Tracker(Access("127.0.0.1"), free_port())
    assert tracker.program([]) is None and tracker.clients() == {}
    assert tracker.address == "https://mlflow.example"
