"""Stage register: the evaluated model into the MLflow registry, and who is champion.

The registered model has its code, its checkpoint, a signature and an example. Its version is tagged with the hash of
the weights, of the held-out data that it was measured on, of parameters and data. A version with the same weights is
never added twice. The newest is ``challenger``; it becomes ``champion`` if there is none, or if it is better on the
same held-out data.
"""

import base64
import hashlib
import importlib.metadata
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

import muomni
from muomni.checkpoint import load_checkpoint, weights_sha256
from muomni.config import section
from muomni.data.files import atomic_write_json, read_json
from muomni.errors import UserError
from muomni.registry_config import RegistryConfig
from pipelines.run import main
from pipelines.sender import connect, experiment_id, shown_uri, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

CHECKPOINTS, METRICS, OUT = Path("checkpoints"), Path("metrics"), Path("metrics/registry.json")
OMNI = "omni"
COMPONENTS = ("thinker", "audio_encoder", "vision_encoder", "codec", "talker")
CHAMPION, CHALLENGER = "champion", "challenger"
# What the registered model needs where it is served; the code comes with it.
REQUIREMENTS = (
    *("torch", "torchaudio", "numpy", "safetensors", "sentencepiece", "pydantic", "pyyaml", "pillow"),
    *("soundfile", "soxr", "av", "pandas"),
)


@dataclass(frozen=True)
class Candidate:
    """A model that was trained and evaluated.

    Attributes:
        folder: its checkpoint.
        weights: their hash.
        held_out: hash of the data and settings behind the figures.
        figures: of ``metrics/summary.json``.
        tags: of the version.
    """

    folder: Path
    weights: str
    held_out: str
    figures: dict[str, float]
    tags: dict[str, str]


def candidate(checkpoints: Path, metrics: Path) -> Candidate:
    """Read what the stages e-omni and evaluate wrote.

    Raises:
        UserError: if something is missing or damaged.
    """
    folder = checkpoints / OMNI
    weights, card = weights_of(folder), load_checkpoint(folder).card
    summary, held_out = (
        read_json(metrics / "summary.json", "evaluate"),
        read_json(metrics / "held_out.json", "evaluate"),
    )
    params = json.dumps(card["params"], sort_keys=True).encode()
    tags = {
        "weights_sha256": weights,
        "held_out_sha256": held_out["sha256"],
        "revision": card["revision"],
        "params_hash": hashlib.sha256(params).hexdigest()[:12],
        "training_run": card["run"],
        "parameters": str(card["parameters"]),
        **{f"data.{path}": digest for path, digest in card["data"].items()},
    }
    if os.environ.get("DVC_EXP_NAME"):
        tags["dvc_exp"] = os.environ["DVC_EXP_NAME"]
    figures = {name: float(figure["value"]) for name, figure in summary.items()}
    return Candidate(folder, weights, held_out["sha256"], figures, tags)


def weights_of(folder: Path) -> str:
    """The hash of a checkpoint's weights.

    Raises:
        UserError: if there is no checkpoint.
    """
    if not folder.is_dir():
        load_checkpoint(folder)  # says which stage makes it
    return weights_sha256(folder)


def example() -> dict[str, list[str]]:
    """A question about a picture and one without, by columns: what a request looks like."""
    picture = io.BytesIO()
    Image.new("RGB", (32, 32), (220, 40, 40)).save(picture, "PNG")
    encoded = base64.b64encode(picture.getvalue()).decode()
    return {"text": ["What color is it?", "Is a dog an animal?"], "image": [encoded, ""]}


def better(new: float, old: float, cfg: RegistryConfig) -> bool:
    """Whether a challenger beats a champion."""
    gain = new - old if cfg.higher_is_better else old - new
    return gain > 0 and gain >= cfg.min_gain


def registry_client() -> "MlflowClient":
    """A client whose registry is where its runs are, whatever MLflow was told before in this process."""
    client = connect()
    return type(client)(tracking_uri(), registry_uri=tracking_uri())


def versions(client: "MlflowClient", name: str) -> "list[ModelVersion]":
    """All versions of a registered model; none if there is no such model."""
    return list(client.search_model_versions(f"name = '{name}'"))


def with_weights(client: "MlflowClient", name: str, weights: str) -> "ModelVersion | None":
    """The version of a registered model that has these weights."""
    return next((v for v in versions(client, name) if v.tags.get("weights_sha256") == weights), None)


def add_version(client: "MlflowClient", name: str, new: Candidate) -> "ModelVersion":
    """Log the model in a run of its own and register it."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # Here, since both take seconds to import, and after `connect` has switched MLflow's telemetry off.
    import mlflow
    import pandas as pd  # type: ignore[import-untyped]

    from pipelines import pyfunc_model

    mlflow.set_tracking_uri(tracking_uri())
    mlflow.set_registry_uri(tracking_uri())
    source = Path(muomni.__file__).parent
    with mlflow.start_run(
        experiment_id=experiment_id(client), run_name="register", tags=new.tags | {"stage": "register"}
    ):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=pyfunc_model.__file__,
            code_paths=[str(source)],
            artifacts={pyfunc_model.CHECKPOINT: str(new.folder)},
            signature=pyfunc_model.SIGNATURE,
            input_example=pd.DataFrame(example()),
            pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in REQUIREMENTS],
        )
        mlflow.log_metrics(new.figures, model_id=info.model_id)
        return mlflow.register_model(info.model_uri, name, tags=new.tags)


def measure_again(client: "MlflowClient", name: str, version: "ModelVersion", new: Candidate) -> None:
    """Give a version today's figures: the weights are the same, what they were measured on may not be."""
    for figure, value in new.figures.items():
        client.log_metric(str(version.run_id), figure, value)
    for key, text in new.tags.items():
        client.set_model_version_tag(name, version.version, key, text)


def add_component(client: "MlflowClient", name: str, folder: Path, run_id: str) -> str:
    """Register a part's checkpoint, unless a version has its weights, and return the version."""
    weights = weights_of(folder)
    found = with_weights(client, name, weights)
    if found is None:
        client.log_artifacts(run_id, str(folder), f"components/{folder.name}")
        source = f"{client.get_run(run_id).info.artifact_uri}/components/{folder.name}"
        card = load_checkpoint(folder).card
        tags = {"weights_sha256": weights, "revision": card["revision"], "training_run": card["run"]}
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        found = client.create_model_version(name, source, run_id, tags=tags)
    client.set_registered_model_alias(name, CHALLENGER, found.version)
    return str(found.version)


def promoted(client: "MlflowClient", cfg: RegistryConfig, new: Candidate, version: "ModelVersion") -> bool:
    """Make a version champion if it deserves it, and say why or why not.

    Returns:
        Whether it is champion now.
    """
    aliases: Mapping[str, str] = client.get_registered_model(cfg.name).aliases
    value = new.figures[cfg.promote_by]
    holder = aliases.get(CHAMPION)
    if holder is not None and str(holder) != str(version.version):
        champion = client.get_model_version(cfg.name, holder)
        who = f"{cfg.name} version {holder}"
        if champion.tags.get("held_out_sha256") != new.held_out:
            print(f"register: {who} stays champion: it was measured on other held-out data, so nothing compares")
            return False
        old = client.get_run(str(champion.run_id)).data.metrics.get(cfg.promote_by)
        if old is None:
            print(f"register: {who} stays champion: it has no {cfg.promote_by} to compare with")
            return False
        if not better(value, old, cfg):
            print(f"register: {who} stays champion: {cfg.promote_by} {old:.4g}, the challenger has {value:.4g}")
            return False
        print(f"register: {cfg.promote_by} {value:.4g} beats {who} with {old:.4g}")
    client.set_registered_model_alias(cfg.name, CHAMPION, version.version)
    return True


def register(cfg: RegistryConfig, checkpoints: Path, metrics: Path) -> dict[str, Any]:
    """Register the model that lies in a folder, with the figures that lie in another.

    Args:
        cfg: the section.
        checkpoints: holds ``omni`` and the parts.
        metrics: holds ``summary.json`` and ``held_out.json``.

    Returns:
        Name, version, aliases, run and hashes, and the parts' versions.

    Raises:
        UserError: if something is missing, or MLflow cannot be reached.
    """
    new = candidate(checkpoints, metrics)
    if cfg.promote_by not in new.figures:
        known = ", ".join(sorted(new.figures))
        raise UserError(
            f"registry.promote_by: no figure '{cfg.promote_by}' in {metrics / 'summary.json'}; one of {known}"
        )
    try:
        client = registry_client()
        version = with_weights(client, cfg.name, new.weights)
        if version is None:
            version = add_version(client, cfg.name, new)
        else:
            measure_again(client, cfg.name, version, new)
        client.set_registered_model_alias(cfg.name, CHALLENGER, version.version)
        champion = promoted(client, cfg, new, version)
        parts = {}
        for part in COMPONENTS if cfg.components else ():
            name = f"{cfg.name}-{part.replace('_', '-')}"
            parts[name] = add_component(client, name, checkpoints / part, str(version.run_id))
            if champion:
                client.set_registered_model_alias(name, CHAMPION, parts[name])
    except Exception as error:
        if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in ("mlflow", "sqlalchemy"):
            raise  # no fault of MLflow's, nor of its address
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{shown_uri()}: MLflow failed ({reason}); see that it runs, then `dvc repro register`"
        ) from None
    return {
        "name": cfg.name,
        "version": str(version.version),
        "aliases": [CHALLENGER, *([CHAMPION] if champion else [])],
        "run_id": version.run_id,
        "weights_sha256": new.weights,
        "held_out_sha256": new.held_out,
        "promoted_by": {cfg.promote_by: new.figures[cfg.promote_by]},
        "components": parts,
    }


def run() -> None:
    """Register and note what came of it."""
    found = register(section(RegistryConfig, "registry"), CHECKPOINTS, METRICS)
    atomic_write_json(OUT, found)
    print(f"models:/{found['name']}/{found['version']} is {' and '.join(found['aliases'])}")


if __name__ == "__main__":
    main("register", run)
