"""Stage register against a registry that answers wrongly."""

import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_server import ANSWERS, FaultyServer, mlflow_app
from registered_models import CFG, measure, registered, train

from muomni.errors import UserError
from muomni.tokenizer import Tokenizer
from pipelines import answers
from pipelines.versions import CHALLENGER, aliases, registry_client, versions

WITHOUT = CFG.model_copy(update={"components": False})
PASSWORD = "hunter2secret"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """MLflow itself."""
    with pytest.MonkeyPatch.context() as patch:
        yield mlflow_app(tmp_path_factory.mktemp("server"), patch)


@pytest.fixture
def faulty(
    real: Any, small: tuple[object, Tokenizer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyServer]:
    """What stands before it; and a folder to work in with a model that was trained and measured."""
    server = FaultyServer(real)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / ".muomni"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://trainer:{PASSWORD}@127.0.0.1:{server.port}")
    monkeypatch.setattr(answers, "MOST", 1 << 20)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    train(tmp_path, small[1], time.time_ns() % 2**32)
    measure(tmp_path, 0.7, "a" * 64)
    yield server
    server.close()


def test_no_wrong_answer_makes_a_registration(
    faulty: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(answers, "TAKES", 0.5)
    for name, answer in ANSWERS.items():
        faulty.answer = answer
        with pytest.raises(UserError) as caught:
            registered(tmp_path, WITHOUT)
        said = str(caught.value)
        assert said.startswith(f"http://127.0.0.1:{faulty.port}: MLflow failed ("), (name, said)
        assert said.endswith("see that it runs, then `dvc repro register`") and "\n" not in said, (name, said)
        assert PASSWORD not in said, name
    assert sorted(p for p in tmp_path.rglob("*") if ".muomni" not in p.parts) == before, "nothing was written"


@pytest.mark.parametrize("kind", ["nothing in it", "swallowed"])
def test_a_registry_that_turns_wrong_in_the_middle(kind: str, faulty: FaultyServer, tmp_path: Path) -> None:
    seed = time.time_ns() % 10**6
    good = random.Random(seed).randrange(3, 166)  # it takes some 166 requests
    print(f"seed {seed}: wrong after {good} requests")
    first = faulty.asked

    def answer(server: FaultyServer, wire: socket.socket, request: bytes) -> None:
        if server.asked - first > good:
            ANSWERS[kind](server, wire, request)
        else:
            wire.sendall(server.forward(request))

    faulty.answer = answer
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="MLflow failed"):
        registered(tmp_path, WITHOUT)
    assert sorted(p for p in tmp_path.rglob("*") if ".muomni" not in p.parts) == before, "nothing was written here"
    faulty.answer = None
    said, client = registered(tmp_path, WITHOUT), registry_client()
    own = [v for v in versions(client, "muomni") if v.tags["weights_sha256"] == said["weights_sha256"]]
    assert [str(version.version) for version in own] == [said["version"]], "one version, however often it was tried"
    assert aliases(client, "muomni")[CHALLENGER] == said["version"]
