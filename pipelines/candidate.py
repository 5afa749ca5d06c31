"""What can be registered: the checkpoints of a training with the figures of their evaluation."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from muomni.checkpoint import STAGES, load_checkpoint, weights_sha256
from muomni.data.files import read_json
from muomni.errors import UserError
from muomni.evaluate.measure import Figure
from muomni.registry_config import RegistryConfig
from pipelines.promotion import check_rule

OMNI = "omni"
# Each part, and how the names of its figures in the summary begin.
COMPONENTS = {
    "thinker": "thinker_",
    "audio_encoder": "hearing_",
    "vision_encoder": "seeing_",
    "codec": "codec_",
    "talker": "talker_",
}


@dataclass(frozen=True)
class Candidate:
    """A model that was trained and evaluated.

    Attributes:
        component: ``omni`` or a part; the name of its checkpoint.
        name: to register it under.
        checkpoints: the folder of all checkpoints.
        held_out: hash of the data and settings behind the figures.
        figures: of ``metrics/summary.json``, those of the component.
        data: hash of each data set and checkpoint that went into its training.
        tags: of the version.
    """

    component: str
    name: str
    checkpoints: Path
    held_out: str
    figures: dict[str, Figure]
    data: dict[str, str]
    tags: dict[str, str]


def candidate(component: str, name: str, checkpoints: Path, summary: Mapping[str, Figure], held_out: str) -> Candidate:
    """Read what a training wrote.

    Args:
        component: ``omni``, or one of `COMPONENTS`.
        name: in the registry.
        checkpoints: the folder of all checkpoints.
        summary: of ``metrics/summary.json``; those of the component are taken.
        held_out: hash of the data and settings behind the figures.

    Raises:
        UserError: if the checkpoint is missing or damaged.
    """
    folder = checkpoints / component
    card = load_checkpoint(folder).card
    params = json.dumps(card["params"], sort_keys=True).encode()
    tags = {
        "stage": STAGES[component],
        "weights_sha256": weights_sha256(folder),
        "held_out_sha256": held_out,
        "revision": card["revision"],
        "params_hash": hashlib.sha256(params).hexdigest()[:12],
        "training_run": card["run"],
        "parameters": str(card["parameters"]),
        **{f"data.{path}": digest for path, digest in card["data"].items()},
    }
    if os.environ.get("DVC_EXP_NAME"):
        tags["dvc_exp"] = os.environ["DVC_EXP_NAME"]
    own = COMPONENTS.get(component, "")
    figures = {key: figure for key, figure in summary.items() if key.startswith(own)}
    return Candidate(component, name, checkpoints, held_out, figures, dict(card["data"]), tags)


def candidates(cfg: RegistryConfig, checkpoints: Path, metrics: Path) -> tuple[Candidate, list[Candidate]]:
    """The whole model, and its parts if they are to be registered.

    Raises:
        UserError: if something is missing or damaged, or the rule asks for a figure that was not measured.
    """
    load_checkpoint(checkpoints / OMNI)  # the first to be missed, and the message says which stage makes it
    summary = read_json(metrics / "summary.json", "evaluate")
    held_out = read_json(metrics / "held_out.json", "evaluate")["sha256"]
    check_rule(cfg)
    if cfg.promote_by not in summary:
        raise UserError(
            f"registry.promote_by: no figure '{cfg.promote_by}' in {metrics / 'summary.json'}; one of "
            + ", ".join(sorted(summary))
        )
    parts = [
        candidate(part, f"{cfg.name}-{part.replace('_', '-')}", checkpoints, summary, held_out)
        for part in (COMPONENTS if cfg.components else ())
    ]
    return candidate(OMNI, cfg.name, checkpoints, summary, held_out), parts
