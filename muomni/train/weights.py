"""The weights at each evaluation with the metrics found there, for whoever collects and ranks them.

In ``checkpoints/`` of the state folder, each folder whole from the moment it is seen::

    step-000250/model.safetensors   tensors as <module>/<name>, parameters and buffers
    step-000250/metrics.json        {"step": 250, "valid_loss": ...}

The collector (`pipelines.sender`) takes a folder by renaming it. Only the newest few that nobody took are kept, so
that a tracker that is away does not fill the disk. None of it is needed to resume.
"""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from muomni.data.files import flush_folder
from muomni.tensor_files import write_tensors
from muomni.train.state import module_tensors

KEPT = 3  # folders that wait to be taken


def keep_weights(root: Path, step: int, modules: Mapping[str, nn.Module], metrics: Mapping[str, float]) -> None:
    """Write a folder of weights and metrics, and remove the oldest beyond the newest few.

    Args:
        root: the folder ``checkpoints``.
        step: how many steps were trained.
        modules: whose weights.
        metrics: of the evaluation.
    """
    final = root / f"step-{step:06d}"
    partial = root / f".{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = {key.removeprefix("model/"): value for key, value in module_tensors(modules).items()}
    # Copies, since safetensors refuses tensors that share memory.
    write_tensors(partial / "model.safetensors", {key: t.cpu().clone().contiguous() for key, t in tensors.items()})
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    (partial / "metrics.json").write_text(json.dumps({"step": step, **finite}) + "\n", encoding="utf-8")
    flush_folder(partial)
    remove(final)
    os.replace(partial, final)
    for old in sorted(root.glob("step-*"))[:-KEPT]:
        remove(old)


def remove(folder: Path) -> None:
    """Remove a folder that the collector may be about to take: it gets all of it or nothing."""
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):  # not there, or just taken
        os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)
