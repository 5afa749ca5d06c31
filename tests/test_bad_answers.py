"""A tracker that answers wrongly holds nothing up, loses no point and gets none twice, and is told of in one line."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from faulty_server import ANSWERS, FaultyServer, mlflow_app, self_signed, slow
from tracking_tools import wait_until

from muomni.cli import main
from muomni.data.files import atomic_write_json
from muomni.train.report import MetricsFile
from pipelines import answers, run, sender, tracking
from pipelines.sync import set_aside, sync, unsent_root
from pipelines.tracking import track

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

USER, PASSWORD = "trainer", "hunter2secret"
Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """MLflow itself."""
    with pytest.MonkeyPatch.context() as patch:
        yield mlflow_app(tmp_path_factory.mktemp("server"), patch)


@pytest.fixture
def faulty(real: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    """What stands before it, whose address is the tracker's; and an empty folder to work in."""
    server = FaultyServer(real)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUOMNI_STATE", str(tmp_path / ".muomni"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{USER}:{PASSWORD}@127.0.0.1:{server.port}")
    for name in ("DVC_EXP_NAME", "DVC_STAGE", "MUOMNI_PARENT", "MUOMNI_CHECKOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tracking, "INTERVAL", 0.05)
    monkeypatch.setattr(answers, "MOST", 1 << 20)
    yield server
    server.close()


@contextmanager
def impatient() -> Iterator[None]:
    """Give up on an answer soon, which one from the real server may need more time for on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        patch.setattr(answers, "TAKES", 0.5)
        yield


def write(folder: Path, steps: range) -> None:
    """What a training leaves: points and samples."""
    metrics = MetricsFile(folder / "metrics.jsonl")
    for step in steps:
        metrics.write(step, {"loss": 1.0 / step, "lr": 0.5})
    metrics.close()
    samples = folder / "samples" / f"step-{steps[-1]:06d}"
    samples.mkdir(parents=True)
    (samples / "answer.txt").write_text("a red apple")


def only_run(client: "MlflowClient", key: str) -> "Run":
    """The run of a key; more than one would show."""
    (found,) = client.search_runs([sender.experiment_id(client)], f"tags.`{sender.KEY_TAG}` = '{key}'")
    return found


def check_whole(key: str, steps: range) -> None:
    """MLflow has all of the run exactly once."""
    client = sender.connect()
    found = only_run(client, key)
    assert found.info.status == "FINISHED" and found.data.params == {"seed": "1"}
    history = client.get_metric_history(found.info.run_id, "loss")
    assert sorted((m.step, m.value) for m in history) == [(step, 1.0 / step) for step in steps]
    samples = {file.path for file in client.list_artifacts(found.info.run_id, "samples")}
    assert samples == {f"samples/step-{step:06d}" for step in range(10, steps[-1] + 1, 10)}


def check_said(said: str, port: int, scheme: str = "http") -> str:
    """One line was said, with the address and without the password; it is returned."""
    assert said.count("\n") == 1 and said.startswith(f"tracking: {scheme}://127.0.0.1:{port}: "), said
    assert said.endswith("; metrics are kept and sent later\n") and len(said) < 350 and said.strip().isprintable()
    assert PASSWORD not in said and USER not in said
    return said


def no_password(folder: Path) -> None:
    """No file holds the password."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert PASSWORD.encode() not in path.read_bytes(), path


def sent(folder: Path) -> int:
    """The last step that is noted as sent."""
    return int(sender.read(folder / sender.SENT).get("metrics", {}).get("loss", 0))


def recorded(folder: Path, status: str | None) -> str:
    """Note a run as `track` does; its key."""
    kept = sender.read(folder / sender.RUN) or tracking.new_run("a-thinker", {"seed": 1})
    ended = None if status is None else int(time.time() * 1000)
    atomic_write_json(folder / sender.RUN, kept | {"status": status, "ended": ended})
    return str(kept["key"])


def fails(folder: Path, name: str, port: int) -> None:
    """Sending fails with a wrong answer, what is noted as sent stays as it is, and the reason can be shown."""
    before = sender.read(folder / sender.SENT)
    with impatient(), pytest.raises(Exception) as caught:  # noqa: PT011  # whatever MLflow's client makes of it
        sender.Sender(folder).send()
    said = answers.reason(caught.value)
    assert said and said.isprintable() and len(said) <= 200, name
    assert PASSWORD not in said and USER not in said, name
    after = sender.read(folder / sender.SENT)
    if name != "404":  # MLflow says that of a run that it does not have
        assert after == before, name


def test_no_wrong_answer_counts_as_a_right_one(faulty: FaultyServer, tmp_path: Path) -> None:
    folder = run.state_dir("a-thinker")
    key = recorded(folder, None)
    write(folder, range(1, 11))
    for name, answer in ANSWERS.items():
        faulty.answer = answer
        fails(folder, name, faulty.port)
    faulty.answer = None
    sender.Sender(folder).send()
    for number, (name, answer) in enumerate(ANSWERS.items(), 2):  # and now it knows the run
        write(folder, range(10 * number - 9, 10 * number + 1))
        faulty.answer = answer
        fails(folder, name, faulty.port)
        faulty.answer = None
        sender.Sender(folder).send()
    last = 10 * len(ANSWERS) + 10
    recorded(folder, "FINISHED")
    for name, answer in ANSWERS.items():
        faulty.answer = answer
        fails(folder, name, faulty.port)
    faulty.answer = None
    sender.Sender(folder).send()
    assert sender.Sender(folder).complete()
    check_whole(key, range(1, last + 1))
    no_password(folder)
    assert {path.name for path in tmp_path.iterdir()} == {".muomni"}, "nothing was written elsewhere"


def test_a_training_goes_on_and_says_it_once(faulty: FaultyServer, capsys: Said) -> None:
    folder, step = run.state_dir("a-thinker"), 0
    with track("a-thinker", folder, {"seed": 1}) as key:
        for name in ("500", "nothing in it", "endless head", "redirects"):
            with impatient():
                faulty.answer, before = ANSWERS[name], faulty.faults
                began = time.monotonic()
                write(folder, range(step + 1, step + 11))
                assert time.monotonic() - began < 5, "nothing waits for a tracker"
                step += 10
                wait_until(lambda before=before: faulty.faults >= before + 2, 30)  # type: ignore[misc]
            faulty.answer = None
            wait_until(lambda step=step: sent(folder) == step, 60)  # type: ignore[misc]
    no_password(folder)
    set_aside(folder)
    assert not list(unsent_root().glob("*"))
    check_whole(key, range(1, step + 1))
    check_said(capsys.readouterr().err, faulty.port)


@pytest.mark.parametrize("name", ["swallowed", "login page"])
def test_what_was_never_taken_waits_and_sync_says_why(
    name: str, faulty: FaultyServer, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "LAST_CHANCE", 1.0)
    faulty.answer = ANSWERS[name]
    folder = run.state_dir("a-thinker")
    with track("a-thinker", folder, {"seed": 1}) as key:
        write(folder, range(1, 11))
        wait_until(lambda: faulty.faults >= 2, 30)
    set_aside(folder)
    assert [path.name for path in unsent_root().iterdir()] == [f"a-thinker-{key}"]
    capsys.readouterr()
    assert main(["track", "sync"]) == 2
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(f"error: http://127.0.0.1:{faulty.port}: ") and PASSWORD not in said
    assert [path.name for path in unsent_root().iterdir()] == [f"a-thinker-{key}"], "nothing is lost"
    no_password(unsent_root())
    faulty.answer = None
    assert main(["track", "sync"]) == 0
    shown = f"http://127.0.0.1:{faulty.port}"
    assert capsys.readouterr().out == f"sent 1 runs that waited and 0 interrupted ones to {shown}\n"
    check_whole(key, range(1, 11))


def test_a_slow_tracker_gets_all(faulty: FaultyServer, capsys: Said) -> None:
    faulty.answer = slow
    folder = run.state_dir("a-thinker")
    with track("a-thinker", folder, {"seed": 1}) as key:
        write(folder, range(1, 11))
    assert capsys.readouterr().err == ""
    check_whole(key, range(1, 11))


@pytest.mark.parametrize("tls", [True, False], ids=["unknown certificate", "TLS where there is none"])
def test_tls_that_fails_is_told(
    tls: bool, faulty: FaultyServer, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "LAST_CHANCE", 1.0)
    right = sender.tracking_uri()
    server = FaultyServer(faulty.upstream, self_signed(tmp_path / "certificate.pem") if tls else None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://{USER}:{PASSWORD}@127.0.0.1:{server.port}")
    folder = run.state_dir("a-thinker")
    with track("a-thinker", folder, {"seed": 1}) as key:
        write(folder, range(1, 11))
    set_aside(folder)
    server.close()
    line = check_said(capsys.readouterr().err, server.port, "https")
    assert "SSL" in line and ("CERTIFICATE_VERIFY_FAILED" in line) == tls
    monkeypatch.setenv("MLFLOW_TRACKING_URI", right)
    assert sync() == (1, 0)
    check_whole(key, range(1, 11))


def test_a_tracker_that_has_forgotten_a_run_gets_all_of_it_again(faulty: FaultyServer, capsys: Said) -> None:
    """Its database was made anew, say."""
    folder = run.state_dir("a-thinker")
    with track("a-thinker", folder, {"seed": 1}) as key:
        write(folder, range(1, 11))
        client = sender.connect()
        wait_until(lambda: sent(folder) == 10, 30)
        first = sender.read(folder / sender.SENT)["run_id"]
    other = sender.Sender(folder)
    other.sent |= {"run_id": "0" * 32, "metrics": {"loss": 5, "lr": 5}, "status": None}
    other.save()
    with pytest.raises(Exception, match="RESOURCE_DOES_NOT_EXIST"):
        other.send()
    sender.Sender(folder).send()
    assert only_run(client, key).info.run_id == first
    check_whole(key, range(1, 11))
