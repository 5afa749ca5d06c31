"""What the entry points of all trainings share: device, tracking, the loop, and writing what came out."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from muomni.checkpoint import CARD, input_sha256, peek_checkpoint, save_checkpoint
from muomni.checkpoint_card import make_card
from muomni.data.files import MANIFEST, check_manifest
from muomni.device import DeviceConfig, pick_device
from muomni.errors import UserError
from muomni.passport.facts import lineage, machine, sources, versions
from muomni.train import parallel, state
from muomni.train.loop import Task, TrainConfig, fit
from muomni.train.report import read_metrics
from pipelines.kept_states import clear, keep
from pipelines.run import new_dir, state_dir
from pipelines.sync import set_aside
from pipelines.tracking import track


@dataclass(frozen=True)
class Output:
    """A checkpoint that a stage writes.

    Attributes:
        folder: where to, for example ``checkpoints/thinker``; its name is the component's.
        module: whose weights.
        config: the sections that build the module again.
        files: further files to put in, by name.
    """

    folder: Path
    module: nn.Module
    config: Mapping[str, BaseModel]
    files: Mapping[str, Path] = field(default_factory=dict)


def values(params: Mapping[str, Any]) -> dict[str, Any]:
    """Sections and scalars as JSON values."""
    return {key: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for key, v in params.items()}


def hashes(data: Sequence[str | Path]) -> dict[str, str]:
    """SHA-256 of each file or folder that a stage reads, by its path, as a card has it.

    Raises:
        UserError: if one is missing, or is not what its manifest says.
    """
    found = {}
    for path in map(Path, data):
        if not path.exists():
            raise UserError(f"{path}: not there yet; run `dvc repro` for the stage that makes it")
        folder = path if path.is_dir() else path.parent
        if (folder / MANIFEST).is_file():  # shards and tokens are compared with their index when they are read
            check_manifest(folder)
        found[path.as_posix()] = input_sha256(path)
    return found


def provenance(data: Sequence[str | Path], corpora: Sequence[Path], device: str) -> dict[str, Any]:
    """What a card tells of how a checkpoint came about, beside what was trained.

    Args:
        data: files and folders that the stage reads; those that are checkpoints have cards.
        corpora: manifests of the corpora behind them.
        device: in words.

    Raises:
        UserError: if a manifest or a card is missing or damaged.
    """
    folders = [path for path in map(Path, data) if (path / CARD).is_file()]
    cards = {path.name: peek_checkpoint(path).card for path in folders}
    return {
        "sources": sources(corpora),
        "lineage": lineage(cards),
        "machine": machine(device),
        "versions": versions(),
    }


def new_curves(name: str) -> AbstractContextManager[Path]:
    """`pipelines.run.new_dir` for what a training tells; not within ``metrics/train``, which stage evaluate reads."""
    return new_dir(Path("metrics/train") / name, within="metrics")


def write_curves(folder: Path, lines: list[dict[str, Any]]) -> None:
    """Write ``train.json`` and ``valid.json``, lists of rows with equal keys, which is what DVC can plot."""
    kinds = {
        "train": [{k: v for k, v in row.items() if k != "time" and not k.startswith("valid_")} for row in lines],
        "valid": [{k: v for k, v in row.items() if k == "step" or k.startswith("valid_")} for row in lines],
    }
    for name, rows in kinds.items():
        rows = [row for row in rows if len(row) > 1]
        keys = [key for key in (rows[0] if rows else {}) if all(key in row for row in rows)]
        text = json.dumps([{key: row[key] for key in keys} for row in rows], indent=1)
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def run_stage(
    name: str,
    build: Callable[[], Task],
    outputs: Callable[[Any], Sequence[Output]],
    *,
    cfg: TrainConfig,
    seed: int,
    device: DeviceConfig,
    params: Mapping[str, Any],
    data: Sequence[str | Path],
    corpora: Sequence[Path] = (),
) -> dict[str, float]:
    """Train a stage from its configuration to its checkpoints.

    An interrupted run goes on where it stopped if parameters, data and code are the same. Metrics and samples
    of the training go to ``metrics/train/<name>/``; the state is removed once all outputs are written, and known to
    DVC if that runs the stage (`pipelines.kept_states`).

    Args:
        name: the stage's name in ``dvc.yaml``.
        build: makes the task; runs after the device is set up and the random state is seeded.
        outputs: says, given the trained task, what to write.
        cfg: the stage's section.
        seed: of everything random.
        device: section ``device``.
        params: all sections and scalars that the stage reads, by name.
        data: files and folders that the stage reads.
        corpora: manifests of the corpora that its data were made of; their licences and hashes go into the card.

    Returns:
        The metrics that `muomni.train.loop.fit` returns.

    Raises:
        UserError: for bad input, from any part.
    """
    chosen = pick_device(device)
    plain = values(params)
    found, about = hashes(data), provenance(data, corpora, chosen.description)
    torch.manual_seed(seed)
    task = build()  # before the fingerprint, so that every module it needs is loaded and counted
    fingerprint = state.fingerprint(plain, found)
    folder = state_dir(name)

    def train() -> dict[str, float]:
        return fit(task, cfg, seed=seed, device=chosen, state_dir=folder, fingerprint=fingerprint, name=name)

    if parallel.world()[0] != 0:  # the first process writes for all
        return train()
    clear()
    if not state.belongs(folder, fingerprint):
        set_aside(folder)
        state.prepare(folder, fingerprint)
    with track(name, folder, plain) as key:
        metrics = train()
        for output in outputs(task):
            card = make_card(
                output.folder.name,
                output.module,
                data=found,
                params=plain,
                metrics=metrics,
                seconds=metrics["seconds"],
                run=key,
                made=about,
            )
            save_checkpoint(output.folder, output.module.state_dict(), values(output.config), card, output.files)
        with new_curves(name) as made:
            write_curves(made, read_metrics(folder / "metrics.jsonl"))
            if (folder / "samples").is_dir():
                shutil.copytree(folder / "samples", made / "samples")
    if "DVC_STAGE" in os.environ:
        keep(folder)
    else:
        set_aside(folder)
        state.finish(folder)
    return metrics
