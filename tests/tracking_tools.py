"""What the tests of tracking under trouble share: a real MLflow server, a small training in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from muomni.train.report import read_metrics

ROOT = Path(__file__).resolve().parents[1]
STAGE = "a-thinker"

# A real stage: 60 steps of a known length, a report every 10, an evaluation and a saved state every 20.
TRAINING = """
import sys, time
sys.path.insert(0, {tests!r})
import test_tracking
from pipelines import run, tracking
tracking.INTERVAL, tracking.LAST_CHANCE = 0.2, {last_chance}
class Slow(test_tracking.Line):
    def loss(self, batch, step):
        time.sleep({step})
        return super().loss(batch, step)
def work():
    begin = time.monotonic()
    test_tracking.stage(Slow(), steps=60)
    print(time.monotonic() - begin)
run.main({stage!r}, work)
"""


class Server:
    """``mlflow server``, in a folder and at a port that outlive it.

    Args:
        folder: of its log, and of its database and artefacts if nothing else is said.
        store: address of its database.
        artifacts: where it puts artefacts.
    """

    def __init__(self, folder: Path, store: str | None = None, artifacts: str | None = None) -> None:
        self.folder = folder
        self.env = {
            "MLFLOW_BACKEND_STORE_URI": store or f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_ARTIFACTS_DESTINATION": artifacts or str(folder / "artifacts"),
        }
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=os.environ | self.env,
                start_new_session=True,
            )
        wait_until(self.answers, 90)

    def answers(self) -> bool:
        """Whether it does."""
        assert self.process is not None and self.process.poll() is None, (self.folder / "server.log").read_text()
        with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """End it without a warning."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        self.process = None


def work_in(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process work in an empty folder, as no stage of any run, with this server."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MUOMNI_STATE", str(folder / ".muomni"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    for name in ("DVC_EXP_NAME", "DVC_STAGE", "MUOMNI_PARENT", "MUOMNI_CHECKOUT"):
        monkeypatch.delenv(name, raising=False)


def wait_until(what: Callable[[], bool], seconds: float) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


class Trainer:
    """The training in a process of its own."""

    def __init__(self, place: Path, uri: str, step: float = 0.05, last_chance: float = 8.0, **env: str) -> None:
        code = TRAINING.format(tests=str(ROOT / "tests"), stage=STAGE, step=step, last_chance=last_chance)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        own = {"MUOMNI_STATE": str(place / ".muomni"), "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": path}
        self.step, self.last_chance = step, last_chance
        self.folder = Path(env.get("MUOMNI_STATE", own["MUOMNI_STATE"])) / "state" / STAGE
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=place,
            env={**os.environ, **own, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def steps(self) -> int:
        """How far it is."""
        assert self.process.poll() is None, self.process.communicate()
        lines = read_metrics(self.folder / "metrics.jsonl")
        return int(lines[-1]["step"]) if lines else 0

    def reach(self, step: int) -> None:
        """Wait until it is that far."""
        wait_until(lambda: self.steps() >= step, 60)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.communicate()

    def finish(self) -> None:
        """Wait for its end, which is not long after its last step: it gives the tracker a last chance, no more."""
        out, err = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, err
        assert float(out) < 60 * self.step + self.last_chance + 15  # to import PyTorch and MLflow, on a busy machine


def card(place: Path) -> dict[str, Any]:
    """The card of the checkpoint that the training wrote."""
    found: dict[str, Any] = json.loads((place / "checkpoints" / "thinker" / "card.json").read_text())
    return found
