"""Checkpoints: folders of ``model.safetensors``, ``config.json``, ``card.json``. Nothing is unpickled."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from muomni.data.files import flush, flush_folder
from muomni.errors import UserError

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "card.json"
STAGES = {  # which stage makes which folder
    "thinker": "a-thinker",
    "audio_encoder": "b-audio-encoder",
    "vision_encoder": "c-vision-encoder",
    "codec": "d-codec",
    "talker": "d-talker",
    "vocoder": "d-vocoder",
    "omni": "e-omni",
}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds.

    Attributes:
        state: tensors by name, on the CPU.
        config: the sections that build the modules again.
        card: where it comes from, see `make_card`.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]
    card: dict[str, Any]


def make_card(
    component: str,
    module: nn.Module,
    *,
    data: Mapping[str, str],
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    seconds: float,
    run: str = "",
) -> dict[str, Any]:
    """Facts about a trained component, for ``card.json``.

    Args:
        component: for example ``thinker``.
        module: what was trained; its parameters are counted, a shared one once.
        data: hash of each data set and checkpoint that went in.
        params: the stage's parameters.
        metrics: as measured at the end of the training.
        seconds: time the training took.
        run: key of the tracked run that made it.
    """
    return {
        "component": component,
        "parameters": sum(p.numel() for p in module.parameters()),
        "data": dict(data),
        "revision": revision(),
        "params": dict(params),
        "metrics": dict(metrics),
        "seconds": round(seconds, 1),
        "run": run,
    }


def revision() -> str:
    """The git commit of the working tree, with ``-dirty`` if it has changes; ``unknown`` outside git.

    ``params.yaml`` and ``dvc.lock`` do not count: what they say is on record beside it.
    """
    changed = ["git", "status", "--porcelain", "--untracked-files=no", "--", ":/"]
    changed += [f":(exclude,top){name}" for name in ("params.yaml", "dvc.lock")]
    found = []
    for command in (["git", "rev-parse", "HEAD"], changed):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return "unknown"
        if done.returncode:
            return "unknown"
        found.append(done.stdout.strip())
    return f"{found[0]}-dirty" if found[1] else found[0]


def save_checkpoint(
    folder: str | Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    card: Mapping[str, Any],
    files: Mapping[str, Path] | None = None,
) -> None:
    """Write a checkpoint folder; it appears whole or not at all, and replaces one that is there.

    Args:
        folder: where to.
        state: a module's ``state_dict()``; tensors may be on any device and share memory.
        config: the sections that build the module, JSON values.
        card: from `make_card`; ``weights_sha256`` is added.
        files: further files to copy in, by name.
    """
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = (target.with_name(f".{target.name}.{kind}") for kind in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, temporary / WEIGHTS)
    card = dict(card) | {"weights_sha256": weights_sha256(temporary)}
    for name, values in ((CONFIG, config), (CARD, card)):
        (temporary / name).write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name, source in (files or {}).items():
        shutil.copyfile(source, temporary / name)
    flush_folder(temporary)
    # A folder cannot be renamed over a full one. A crash between the renames leaves the old one, which
    # `load_checkpoint` puts back.
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
    os.replace(temporary, target)
    flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def weights_sha256(folder: str | Path) -> str:
    """The hash of a checkpoint's weights."""
    with (Path(folder) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        UserError: if the folder or a file in it is missing or corrupt.
    """
    folder = Path(folder)
    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and (old / CARD).is_file():
        os.replace(old, folder)
    stage = STAGES.get(folder.name)
    hint = f"run `dvc repro {stage}` to make it" if stage else "give the folder of a trained checkpoint"
    if not folder.is_dir():
        raise UserError(f"{folder}: no checkpoint folder here; {hint}")
    for name in (WEIGHTS, CONFIG, CARD):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: {name} is missing; {hint}")
    again = f"run `dvc repro --force {stage}` to make it again" if stage else "copy or train it again"
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / WEIGHTS}: not readable as safetensors ({reason}); {again}") from None
    documents = []
    for name in (CONFIG, CARD):
        try:
            values = json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError as error:  # includes UnicodeDecodeError
            raise UserError(f"{folder / name}: not valid JSON ({error}); {again}") from None
        if not isinstance(values, dict):
            raise UserError(f"{folder / name}: expected a JSON object; {again}")
        documents.append(values)
    return Checkpoint(state, *documents)


def load_into(module: nn.Module, state: Mapping[str, Tensor], prefix: str = "", where: str = "checkpoint") -> None:
    """Copy tensors into a module, which must fit them exactly.

    Args:
        module: built from the checkpoint's configuration.
        state: as `Checkpoint.state`.
        prefix: take only names that start with it, and cut it off.
        where: what messages call the checkpoint, for example its folder.

    Raises:
        UserError: naming tensors that are missing, that nothing expects, or that have another shape.
    """
    given = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    wanted = module.state_dict()
    shapes = [
        f"{name} {list(tensor.shape)} instead of {list(wanted[name].shape)}"
        for name, tensor in given.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    faults = {
        "missing tensors": [name for name in wanted if name not in given],
        "unexpected tensors": [name for name in given if name not in wanted],
        "other shapes": shapes,
    }
    found = [f"{kind}: {first_few(names)}" for kind, names in faults.items() if names]
    if found:
        what = f"{where}: {prefix}" if prefix else where
        raise UserError(f"{what}: weights do not fit the configuration: {'; '.join(found)}; train it again")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(given[name])


def first_few(names: list[str], most: int = 4) -> str:
    """The first names of a list and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
