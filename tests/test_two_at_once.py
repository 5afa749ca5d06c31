"""Two processes do the same at once: register the same weights, write the same checkpoint."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from postgres import postgres
from registered_models import CFG, measure, registered, train
from sqlalchemy import event
from sqlalchemy.orm import Session

from muomni.checkpoint import load_checkpoint, save_checkpoint
from muomni.tokenizer import Tokenizer
from pipelines.logged import only_version
from pipelines.promotion import FORMER
from pipelines.versions import CHALLENGER, CHAMPION, TWICE, added, aliases, registry_client, versions

ROOT = Path(__file__).resolve().parents[1]
WITHOUT = CFG.model_copy(update={"components": False})

# Registers what lies in the working folder once a file is there.
REGISTERING = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from registered_models import CFG, registered
from sqlalchemy import event
from sqlalchemy.orm import Session
import pipelines.logged
print("ready", flush=True)
sys.stdin.readline()
found = registered(Path.cwd(), CFG.model_copy(update={{"components": False}}))
print(found["version"], *found["aliases"], flush=True)
"""


@pytest.fixture
def project(tmp_path: Path, small: tuple[object, Tokenizer], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a model that was trained and measured, and a registry of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / ".muomni"))
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    train(tmp_path, small[1], 0)
    measure(tmp_path, 0.7, "a" * 64)
    return tmp_path


@pytest.mark.parametrize("states", [("a", "a"), ("a", "b")], ids=["of one checkout", "that know nothing of each other"])
def test_two_registrations_of_the_same_weights_make_one_version(states: tuple[str, str], project: Path) -> None:
    aliases(registry_client(), "muomni")  # makes the database's tables
    code = REGISTERING.format(tests=str(ROOT / "tests"))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "MUOMNI_STATE": str(project / state), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for state in states
    ]
    for one in started:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    said = [one.communicate(timeout=240) for one in started]
    assert [one.returncode for one in started] == [0, 0], said
    client = registry_client()
    (only,) = versions(client, "muomni")
    number = str(only.version)
    assert aliases(client, "muomni") == {CHAMPION: number, CHALLENGER: number}
    assert [out.splitlines()[-1] for out, _ in said] == [f"{number} challenger champion"] * 2
    told = [out + err for out, err in said]
    waited = [text.count("is registering; waiting for it") for text in told]
    counted = [text.count("was made of the same weights meanwhile and counts") for text in told]
    assert sum(waited) == (states[0] == states[1]) and sum(counted) <= 1, told
    assert json.loads(client.get_registered_model("muomni").tags.get(FORMER, "[]")) == []


def test_of_two_versions_of_the_same_weights_the_oldest_stays(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when another machine registers between the look for a version and the making of one."""
    first, client = registered(project, WITHOUT), registry_client()
    one = client.get_model_version("muomni", first["version"])
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    second = mlflow.register_model(one.source, "muomni", tags=one.tags)
    capsys.readouterr()
    assert str(only_version(client, second).version) == first["version"]
    assert capsys.readouterr().out == "register: muomni version 1 was made of the same weights meanwhile and counts\n"
    assert [str(v.version) for v in versions(client, "muomni")] == [first["version"]]
    assert str(only_version(client, one).version) == first["version"], "the other process finds its own"


def test_a_checkpoint_that_two_write_at_once_is_whole(checkpoint: Path, tmp_path: Path) -> None:
    """The weights, the files and the card of one of both: whose come last."""
    old, target, name = load_checkpoint(checkpoint), tmp_path / "omni", "thinker.stack.blocks.0.norm1.weight"
    files = {"tokenizer.model": checkpoint / "tokenizer.model"}
    failures: list[BaseException] = []

    def write(number: int) -> None:
        state = {**old.state, name: old.state[name] * 0 + number}
        try:
            for _ in range(15):
                save_checkpoint(target, state, old.config, {**old.card, "run": f"run-{number}"}, files)
        except BaseException as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not failures, failures
    found = load_checkpoint(target)
    assert found.card["run"] == f"run-{found.state[name][0]:.0f}"
    assert [path.name for path in tmp_path.iterdir()] == ["omni"]


ROW = "INSERT INTO registered_model_aliases (name, alias, version) VALUES ('muomni', 'champion', 1)"


@contextmanager
def database(kind: str, folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """An empty database: its address, and what adds an alias to it as another process would."""
    if kind == "sqlite":

        def insert() -> None:
            with sqlite3.connect(folder / "mlflow.db") as other:
                other.execute(ROW)

        yield f"sqlite:///{folder}/mlflow.db", insert
        return
    pytest.importorskip("psycopg", reason="psycopg is not installed (group cluster)")
    with postgres() as server:
        server.make("mlflow")
        yield server.url("postgresql", "mlflow"), lambda: server.ask(ROW, "mlflow")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_an_alias_that_another_adds_at_once_is_set(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow looks whether there is a row, then adds it: another process's may come in between."""
    came = []

    def meanwhile(session: Session, *_: object) -> None:
        if any(type(row).__name__ == "SqlRegisteredModelAlias" for row in session.new) and not came:
            came.append(True)
            insert()

    with database(kind, tmp_path) as (address, insert):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        client = registry_client()
        client.create_registered_model("muomni")
        for _ in range(2):
            client.create_model_version("muomni", str(tmp_path))
        event.listen(Session, "before_flush", meanwhile)
        try:
            with pytest.raises(MlflowException, match="|".join(TWICE)):
                client.set_registered_model_alias("muomni", CHAMPION, "2")
            client.delete_registered_model_alias("muomni", CHAMPION)
            came.clear()
            added(client.set_registered_model_alias, "muomni", CHAMPION, "2")
        finally:
            event.remove(Session, "before_flush", meanwhile)
        assert came and aliases(client, "muomni") == {CHAMPION: "2"}
