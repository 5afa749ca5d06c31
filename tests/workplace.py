"""A workplace that is up, and what tests ask it: real server, worker, dvc and MLflow; a small project stands in."""

import fcntl
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from fake_project import environment

from pipelines import locks

STEPS = 60
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Place:
    """A workplace that is up, and its project."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder, self.env, self.options = folder, environment(folder), options
        self.port, self.mlflow_port = free_port(), free_port()
        self.asked_again = 0  # requests that the server wanted to have once more
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.http = httpx.Client(base_url=self.api, timeout=60)

    def muomni(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        command = [sys.executable, "-m", "muomni.cli", *words]
        return subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=240, check=False
        )

    def up(self) -> str:
        """Start it in the background, and return what that said."""
        ports = ("--port", str(self.port), "--mlflow-port", str(self.mlflow_port))
        done = self.muomni("up", "--detach", *ports, *self.options)
        logs = {p.name: p.read_text()[-1500:] for p in (self.folder / ".muomni/workplace").glob("*.log")}
        assert done.returncode == 0, (done.stdout, done.stderr, logs)
        assert f"http://127.0.0.1:{self.port}" in done.stdout and f"http://127.0.0.1:{self.mlflow_port}" in done.stdout
        return done.stdout

    def get(self, path: str) -> Any:
        """What the API has there."""
        answer = self.http.get(path)
        answer.raise_for_status()
        return answer.json()

    def trigger(self, flow: str = "train", **parameters: Any) -> httpx.Response:
        """What the page does when a person presses Submit."""
        deployment = self.get(f"deployments/name/{flow}/{flow}")
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        while True:
            answer = self.http.post(f"deployments/{deployment['id']}/create_flow_run", json=body)
            if answer.status_code != 503:
                return answer
            # The server asks to be asked again: two of its own writers met. Prefect's clients do the same.
            self.asked_again += 1
            assert self.asked_again < 50, answer.text
            time.sleep(0.5)

    def start(self, flow: str = "train", **parameters: Any) -> str:
        """Start a run and return its id."""
        answer = self.trigger(flow, **parameters)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def state(self, flow_run: str) -> str:
        """The type of a run's state."""
        return str(self.get(f"flow_runs/{flow_run}")["state"]["type"])

    def ended(self, flow_run: str, seconds: float = 120) -> str:
        """Wait for a run's end and return the type of its state."""
        wait(lambda: self.state(flow_run) in ENDED, seconds, lambda: self.logs(flow_run))
        return self.state(flow_run)

    def logs(self, flow_run: str) -> str:
        """What a run said."""
        wanted = {"logs": {"flow_run_id": {"any_": [flow_run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(line["message"] for line in self.http.post("logs/filter", json=wanted).json())

    def tasks(self, flow_run: str) -> list[Any]:
        """The tasks of a run, one a stage, in their order."""
        wanted = {"flow_runs": {"id": {"any_": [flow_run]}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[Any] = self.http.post("task_runs/filter", json=wanted).json()
        return found

    def reason(self, flow_run: str) -> str:
        """Why a run is in its state."""
        return str(self.get(f"flow_runs/{flow_run}")["state"]["message"])

    def artifacts(self, flow_run: str) -> dict[str, Any]:
        """The data of a run's artifacts by key."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [flow_run]}}}
        return {a["key"]: a["data"] for a in self.http.post("artifacts/filter", json=wanted).json()}

    def processes(self) -> list[psutil.Process]:
        """What works for a run: the flow, dvc, the stages."""
        return [p for p in psutil.process_iter(["status"]) if self.working(p)]

    def working(self, process: psutil.Process) -> bool:
        """Whether a process belongs to a run of this project."""
        try:
            words = " ".join(process.cmdline())
            mine = process.environ().get("MUOMNI_STATE", "").startswith(str(self.folder))
        except psutil.Error:
            return False
        at_work = "prefect.engine" in words or "dvc repro" in words or "fake." in words or "workspace" in words
        return mine and at_work and process.info["status"] != psutil.STATUS_ZOMBIE

    def named(self, words: str) -> psutil.Process:
        """The process of this project whose command line has some words."""
        found = [
            p
            for p in psutil.process_iter()
            if words in " ".join(quietly(p.cmdline) or []) and self.mine(p) and "attached" not in p.cmdline()
        ]
        # A program that is just being started shows the command line of the one that starts it.
        (first,) = [p for p in found if quietly(p.ppid) not in [other.pid for other in found]]
        return first

    def mine(self, process: psutil.Process) -> bool:
        """Whether a process has this project's environment."""
        environ = quietly(process.environ) or {}
        return str(environ.get("MUOMNI_STATE", "")).startswith(str(self.folder))

    def leftovers(self) -> list[str]:
        """Copies that are still there, and locks that are held."""
        root = self.folder / ".muomni"
        found = [path for name in ("copy", "site") for path in root.glob(f"runs/*/{name}")]
        found += [path for path in root.glob("runs/*/lock") if locks.holder(path) is not None]
        for path in root.glob("runs/*/state/state/*.lock"):
            with path.open("a") as file:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    found.append(path)
        return [str(path) for path in found]

    def training(self, seed: int, seconds: float = 60) -> str:
        """Start a long run and wait until it trains and has saved its state."""
        begin = time.time()
        flow_run = self.start(changes={"seed": seed, "a_thinker": {"steps": 4000}})

        def saved() -> bool:
            files = (self.folder / ".muomni/runs").glob("*/state/state/a-slow/metrics.jsonl")
            return any(path.stat().st_mtime > begin and path.stat().st_size > 600 for path in files)

        wait(saved, seconds, lambda: self.logs(flow_run))
        return flow_run

    def mlflow(self) -> list[tuple[str, str]]:
        """Name and status of all MLflow runs."""
        with sqlite3.connect(self.folder / "mlruns/mlflow.db") as base:
            return list(base.execute("select name, status from runs order by start_time"))


@contextmanager
def opened(folder: Path, *options: str) -> Iterator[Place]:
    """The workplace of a project, up for the time of a block."""
    place = Place(folder, *options)
    place.up()
    try:
        yield place
    finally:
        place.muomni("down")


def quietly(ask: Callable[[], Any]) -> Any:
    """What a process tells, or None if it is gone."""
    try:
        return ask()
    except psutil.Error:
        return None


def wait(done: Callable[[], bool], seconds: float, explain: Callable[[], object] = lambda: "") -> float:
    """Wait until something is so; returns how long that took."""
    begin = time.monotonic()
    while not done():
        assert time.monotonic() - begin < seconds, explain()
        time.sleep(0.1)
    return time.monotonic() - begin
