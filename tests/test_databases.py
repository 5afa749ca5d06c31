"""MLflow and Prefect on a real PostgreSQL, artefacts in an object store: registered, killed half-way, and by `up`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_project import make_project
from postgres import Postgres, postgres
from registered_models import CFG, measure, registered, train
from remote_folders import s3_server
from test_tracking_trouble import check_whole
from tracking_tools import Server, Trainer, work_in
from workplace import Place

from muomni.checkpoint import weights_sha256
from muomni.omni import Omni
from muomni.tokenizer import Tokenizer
from pipelines import sender
from pipelines.model_source import fetch
from pipelines.sync import sync_all
from pipelines.versions import CHALLENGER, CHAMPION

pytest.importorskip("psycopg", reason="psycopg is not installed (group cluster)")
ROOT = Path(__file__).parents[1]
BUCKET = "models"


@pytest.fixture(scope="module")
def base() -> Iterator[Postgres]:
    with postgres() as server:
        for name in ("mlflow", "tracker", "prefect"):
            server.make(name)
        yield server


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as client:
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture(scope="module")
def shared(base: Postgres, store: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow"), base.url("postgresql", "mlflow"), f"s3://{BUCKET}/mlflow")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(shared: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, and this process working in an empty folder without the object store's credentials."""
    work_in(tmp_path, shared, monkeypatch)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    return shared


def keys(store: Any, below: str) -> list[str]:
    return [entry["Key"] for entry in store.list_objects_v2(Bucket=BUCKET, Prefix=below).get("Contents", [])]


def test_a_model_is_registered_and_another_becomes_champion(
    server: Server, base: Postgres, store: Any, tmp_path: Path, small: tuple[Omni, Tokenizer]
) -> None:
    hashes = []
    for seed, accuracy in ((0, 0.5), (1, 0.7)):
        train(tmp_path, small[1], seed)
        measure(tmp_path, accuracy, "held out")
        registered(tmp_path, CFG.model_copy(update={"components": False}))
        hashes.append(weights_sha256(tmp_path / "checkpoints/omni"))
        assert weights_sha256(fetch("models:/muomni@champion")) == hashes[-1]
    assert hashes[0] != hashes[1] and weights_sha256(fetch("models:/muomni/1")) == hashes[0]
    client = sender.connect()
    assert {str(client.get_model_version_by_alias("muomni", name).version) for name in (CHAMPION, CHALLENGER)} == {"2"}
    assert base.ask("SELECT count(*) FROM model_versions WHERE name = 'muomni'", "mlflow") == [(2,)]
    assert sum(key.endswith("model.safetensors") for key in keys(store, "mlflow/")) >= 2
    assert not (tmp_path / "mlruns").exists() and not list(tmp_path.glob("*.db"))


def test_the_database_dies_half_way_and_the_training_goes_on(server: Server, base: Postgres, tmp_path: Path) -> None:
    training = Trainer(tmp_path, server.uri, step=0.2)
    training.reach(20)
    base.kill()
    try:
        training.reach(40)
    finally:
        base.start()
    training.finish()
    sync_all()
    check_whole(tmp_path)


def work_as_slurm_does(place: Place) -> subprocess.CompletedProcess[str]:
    """Run the script of a Slurm job as Slurm would: with an environment of its own, and until nothing waits."""
    python = place.folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    names = ("PYTHONPATH", "PATH", "AWS_ENDPOINT_URL", "DVC_NO_ANALYTICS")
    settings = {name: place.env[name] for name in names} | {
        "PREFECT_API_URL": place.api,
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{place.mlflow_port}",
        "MUOMNI_ONCE": "1",
    }
    file = place.folder / ".muomni/worker.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    file.chmod(0o600)
    command = ["bash", str(ROOT / "deploy/slurm-worker.sbatch"), str(place.folder), str(file)]
    env = {"PATH": os.environ["PATH"], "HOME": str(place.folder), "SLURM_JOB_ID": "7"}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=240)


def test_up_on_postgresql_and_the_object_store_with_a_worker_elsewhere(
    base: Postgres, store: Any, tmp_path: Path
) -> None:
    make_project(tmp_path)
    place = Place(tmp_path, "--pool", "slurm-jobs")
    place.env |= {
        "MLFLOW_BACKEND_STORE_URI": base.url("postgresql", "tracker"),
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/workplace",
        "PREFECT_API_DATABASE_CONNECTION_URL": base.url("postgresql+asyncpg", "prefect"),
    }
    place.up()
    try:
        run = place.start()
        worker = work_as_slurm_does(place)
        assert place.ended(run) == "COMPLETED", (worker.stdout, worker.stderr, place.logs(run))
        assert base.ask("SELECT state_type FROM flow_run", "prefect") == [("COMPLETED",)]
        assert ("a-slow",) in base.ask("SELECT name FROM runs", "tracker")
        assert keys(store, "workplace/")
        assert not list((tmp_path / ".muomni/workplace").rglob("*.db")) and not (tmp_path / "mlruns/mlflow.db").exists()
        for path in [p for p in (tmp_path / ".muomni").rglob("*") if p.is_file()]:
            assert base.password.encode() not in path.read_bytes(), path
        for process in place.processes():
            assert base.password not in " ".join(process.environ().values())
    finally:
        assert place.muomni("down").returncode == 0
