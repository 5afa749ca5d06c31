"""A flow whose tracker answers wrongly: the graph runs to its end, and what was not sent waits."""

import subprocess
import sys
from pathlib import Path

import pytest
from fake_project import environment, make_project
from faulty_server import ANSWERS, FaultyServer

from muomni.errors import UserError
from pipelines import results, sender
from pipelines.sync import sync_all, unsent_root

PASSWORD = "hunter2secret"
REGISTER = """\
  register:
    cmd: python -m fake.register
    deps: [fake/register.py, metrics/summary.json]
    outs: [registered.json]
"""
# The beginning of the stage's own work: what it asks of the registry first.
REGISTERING = """\
from pathlib import Path
from pipelines.run import main
from pipelines.versions import mlflow_errors, registry_client
from pipelines.sender import experiment_id

def run():
    with mlflow_errors("`dvc repro register`"):
        experiment_id(registry_client())
    Path("registered.json").write_text("{}")

if __name__ == "__main__":
    main("register", run)
"""


def test_the_graph_goes_on_and_says_what_was_not_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    (project / "fake").mkdir(parents=True)
    (project / "fake" / "register.py").write_text(REGISTERING)
    monkeypatch.setattr("fake_project.GRAPH", sys.modules["fake_project"].GRAPH + REGISTER)
    make_project(project, steps=20)
    server = FaultyServer(None)
    server.answer = ANSWERS["nothing in it"]
    shown = f"http://127.0.0.1:{server.port}"
    env = environment(project) | {"MLFLOW_TRACKING_URI": f"http://trainer:{PASSWORD}@127.0.0.1:{server.port}"}
    command = [sys.executable, "-m", "pipelines.flows", "train"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=300, check=False)
    server.close()
    said = done.stdout + done.stderr
    assert done.returncode != 0 and PASSWORD not in said
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and told[0].startswith(
        f"error: stage register: error: {shown}: MLflow failed (it answers, but"
    )
    assert told[0].endswith("see that it runs, then `dvc repro register`")
    assert f"tracking: {shown}: it answers, but not as MLflow does" in said, "the training said it, too"
    for path in project.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
    monkeypatch.chdir(project)
    monkeypatch.setenv("MUOMNI_STATE", str(project / ".muomni"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    sync_all()
    assert not list(unsent_root().glob("*"))
    client = sender.connect()
    names = [r.info.run_name for r in client.search_runs([sender.experiment_id(client)])]
    assert {"a-slow", "words", "evaluate"} <= set(names), names


def test_a_champion_that_cannot_be_asked_for_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    server = FaultyServer(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    for name in ("500", "login page", "nothing in it", "odd JSON", "closed"):
        server.answer = ANSWERS[name]
        assert results.of_champion("muomni") is None, name
    server.close()
    assert results.of_champion("muomni") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://127.0.0.1")
    assert results.of_champion("muomni") is None
    with pytest.raises(UserError, match="gopher://127.0.0.1: MLflow failed"):
        results.reading_client().search_registered_models()
