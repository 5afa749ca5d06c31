"""Work pools elsewhere: templates that Prefect, its workers and Kubernetes take, and the Slurm worker's script."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.server.schemas.actions import validate_base_job_template
from prefect.utilities.schema_tools.validation import is_valid_schema, validate
from prefect.utilities.templating import apply_values

from muomni.errors import UserError
from pipelines import pools
from pipelines.commands import WHERE
from pipelines.pools import POOLS

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "deploy/slurm-worker.sbatch"
VALUES = {
    "kubernetes": {"image": "registry.example/muomni@sha256:0", "working_dir": "/muomni/checkout", "gpus": 2},
    "slurm": {"working_dir": "/shared/muomni", "source_files": ["/shared/muomni/.venv/bin/activate"], "memory": 64},
}


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def given(kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A template, and values of all its variables."""
    template = POOLS[kind].base_job_template()
    known = template["variables"]["properties"]
    return template, {name: entry["default"] for name, entry in known.items() if "default" in entry} | VALUES[kind]


@pytest.mark.parametrize("kind", ["kubernetes", "slurm"])
def test_a_template_is_what_prefect_takes(kind: str) -> None:
    template, values = given(kind)
    assert validate_base_job_template(template) is template
    is_valid_schema(template["variables"])
    used = set(re.findall(r"{{\s*(\w+)\s*}}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"]), "a variable that nothing uses, or one that nobody knows"
    validate(values, template["variables"], raise_on_error=True)
    for name in template["variables"]["required"]:
        with pytest.raises(Exception, match=name):
            missing = {key: value for key, value in values.items() if key != name}
            validate(missing, template["variables"], raise_on_error=True)


def test_names_and_files_of_pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(POOLS) == WHERE
    assert [pool.name for pool in POOLS.values() if pool.worker is None] == ["gpu"]
    monkeypatch.setattr(pools, "FOLDER", tmp_path)
    for text in (None, "{", "[]", '{"job_configuration": {"a": "{{ b }}"}, "variables": {"properties": {}}}'):
        if text is not None:
            (tmp_path / "kubernetes-pool.json").write_text(text)
        with pytest.raises(UserError, match="kubernetes-pool.json: no template"):
            POOLS["kubernetes"].base_job_template()


def manifest_of(values: dict[str, Any], template: dict[str, Any]) -> dict[str, Any]:
    """The job that Prefect's own worker makes of a run."""
    worker = pytest.importorskip("prefect_kubernetes.worker", reason="prefect-kubernetes is not installed")
    made = worker.KubernetesWorkerJobConfiguration(**apply_values(template["job_configuration"], values))
    made.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="brave-fox"))
    return dict(made.job_manifest)


def test_the_kubernetes_job_has_a_gpu_the_volume_and_the_secret() -> None:
    template, values = given("kubernetes")
    values |= {"name": "brave-fox", "env": {"MUOMNI_LOG": "1"}, "labels": {"team": "a"}}
    manifest = manifest_of(values, copy.deepcopy(template))
    pod = manifest["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "muomni"
    assert container["volumeMounts"][0]["mountPath"] == "/muomni" and container["workingDir"] == "/muomni/checkout"
    assert container["envFrom"] == [{"secretRef": {"name": "muomni"}}]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env["MUOMNI_STATE"] == "/muomni/state" and env["MUOMNI_LOG"] == "1" and "PREFECT__FLOW_RUN_ID" in env
    assert manifest["metadata"]["generateName"] == "brave-fox-" and manifest["metadata"]["labels"]["team"] == "a"
    schemas = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for name in ("parallelism", "completions"):  # Prefect wants them here, too, where Kubernetes drops them
        assert pod.pop(name) == manifest["spec"][name] == 1
    for version in ("1.29", schemas.latest_version()):
        schemas.validate(manifest, version, strict=True)
    container["resources"]["limits"]["nvidia.com/gpu"] = {"many": 1}
    container["volumeMount"] = []
    with pytest.raises(schemas.ValidationError):
        schemas.validate(manifest, schemas.latest_version(), strict=True)


def test_the_slurm_job_reads_the_environment_first(tmp_path: Path) -> None:
    config = pytest.importorskip("prefect_slurm.config", reason="prefect-slurm is not installed")
    template, values = given("slurm")
    values |= {"name": "brave-fox", "command": "true", "env": {"A": "b"}, "labels": {}}
    made = config.SlurmWorkerConfiguration(**apply_values(template["job_configuration"], values))
    run = FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="brave-fox")
    made.prepare_for_flow_run(run)
    job = made.get_slurm_job_spec(run)["job"]
    assert job["partition"] == "gpu" and job["memory_per_node"]["number"] == 64 * 1024
    assert job["current_working_directory"] == "/shared/muomni" and "A=b" in job["environment"]
    path = tmp_path / "job.sh"
    path.write_text(job["script"])
    assert job["script"].splitlines()[:2] == ["#!/bin/bash", "source /shared/muomni/.venv/bin/activate"]
    subprocess.run(["bash", "-n", str(path)], check=True)


def started(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    own = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7"} | env
    command = ["bash", str(SCRIPT), *words]
    return subprocess.run(command, env=own, capture_output=True, text=True, check=False, timeout=60)


def test_the_slurm_workers_script_says_what_is_missing(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert "usage:" in started().stderr
    settings = tmp_path / "worker.env"
    done = started(str(tmp_path), str(settings))
    assert done.returncode == 2 and ".venv/bin/python: not there" in done.stderr
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    assert "readable by you alone" in started(str(tmp_path), str(settings)).stderr
    settings.write_text("A=b\n")
    settings.chmod(0o644)
    assert "chmod 600" in started(str(tmp_path), str(settings)).stderr
    settings.chmod(0o600)
    assert "sets no PREFECT_API_URL" in started(str(tmp_path), str(settings)).stderr


def test_slurm_takes_the_script() -> None:
    if shutil.which("sbatch") is None:
        pytest.skip("no Slurm here (Debian: apt install slurm-wlm, and a controller that runs)")
    done = subprocess.run(
        ["sbatch", "--test-only", str(SCRIPT), "/a", "/b"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
