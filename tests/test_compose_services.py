"""What the compose file starts, started without containers: its commands, environments, order and health checks.

PostgreSQL and the S3 server are those of other tests; names of services become addresses of this machine.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgres import Postgres, postgres
from remote_folders import s3_server
from test_compose import GIVEN, ROOT, config
from workplace import free_port

pytest.importorskip("psycopg", reason="psycopg is not installed (group cluster)")
PORTS = {"prefect": 4200, "mlflow": 5000, "worker": 8080}


class Services:
    """The services of the file that are our own, as processes."""

    def __init__(self, folder: Path, base: Postgres) -> None:
        done = config("compose.yaml", **GIVEN | {"POSTGRES_PASSWORD": base.password})
        assert done.returncode == 0, done.stderr
        self.found: dict[str, Any] = json.loads(done.stdout)["services"]
        self.folder, self.running = folder, dict[str, subprocess.Popen[bytes]]()
        self.ports = {str(port): str(free_port()) for port in PORTS.values()}
        self.places = {"postgres:5432": f"127.0.0.1:{base.port}", "http://store:9000": os.environ["AWS_ENDPOINT_URL"]}
        for name, port in PORTS.items():
            for host in (name, "127.0.0.1", "localhost"):
                self.places[f"{host}:{port}"] = f"127.0.0.1:{self.ports[str(port)]}"

    def address(self, name: str) -> str:
        """Where a service answers."""
        return f"http://{self.places[f'{name}:{PORTS[name]}']}"

    def word(self, text: str) -> str:
        """A word of a command, or a value of an environment, with what stands for the containers' names and paths."""
        for place, here in self.places.items():
            text = text.replace(place, here)
        if text == "python":
            return sys.executable
        if text == "0.0.0.0":
            return "127.0.0.1"
        return str(ROOT) + text.removeprefix("/muomni") if text.startswith("/muomni") else self.ports.get(text, text)

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a service."""
        service = self.found[name]
        own = {key: self.word(text) for key, text in service["environment"].items()}
        # What lies in a container's /tmp lies in the test's folder.
        own = {key: text.replace("/tmp", str(self.folder), 1) for key, text in own.items()}
        own |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "MUOMNI_STATE": str(self.folder / "state")}
        own["PREFECT_WORKER_WEBSERVER_PORT"] = self.ports[str(PORTS["worker"])]
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                [self.word(text) for text in service["command"]],
                cwd=ROOT,
                env=own,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self.running[name]

    def healthy(self, name: str) -> None:
        """Wait until a service's own check says so."""
        command = [self.word(text) for text in self.found[name]["healthcheck"]["test"][1:]]
        end = time.monotonic() + 150
        while subprocess.run(command, capture_output=True, check=False).returncode:
            gone = self.running[name].poll() is not None
            assert not gone and time.monotonic() < end, (self.folder / f"{name}.log").read_text()[-2000:]
            time.sleep(0.5)

    def stop(self) -> None:
        """End all."""
        for process in reversed(self.running.values()):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(20)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with pytest.MonkeyPatch.context() as patch, postgres() as base, s3_server(patch):
        for name in ("mlflow", "prefect"):
            base.make(name)
        made = Services(tmp_path, base)
        try:
            yield made
        finally:
            made.stop()


def test_the_services_start_in_their_order_and_are_healthy(services: Services) -> None:
    assert services.start("buckets").wait(60) == 0
    for name in ("mlflow", "prefect"):
        services.start(name)
    for name in ("mlflow", "prefect"):
        services.healthy(name)
    log = services.folder / "deploy.log"
    assert services.start("deploy").wait(120) == 0, log.read_text()
    services.start("worker")
    services.healthy("worker")
    who, deployment = (
        ("muomni", GIVEN["MUOMNI_TOKEN"]),
        f"{services.address('prefect')}/api/deployments/name/train/train",
    )
    assert httpx.get(deployment).status_code == 401
    made = httpx.get(deployment, auth=who).json()
    assert made["work_pool_name"] == "gpu" and made["job_variables"]["working_dir"] == str(ROOT)
    asked = {"name": "muomni"}
    mlflow = f"{services.address('mlflow')}/api/2.0/mlflow/experiments/create"
    number = httpx.post(mlflow, json=asked).json()["experiment_id"]
    found = httpx.get(f"{mlflow.removesuffix('create')}get", params={"experiment_id": number}).json()["experiment"]
    assert found["artifact_location"].startswith("mlflow-artifacts:/")
