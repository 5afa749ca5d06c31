"""The state of an unfinished training: one safetensors file from which it goes on exactly where it stopped.

Random states need no saving: the loop seeds every micro-step from (seed, step, micro-step).
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from muomni.data.files import atomic_write_json, put_in_place
from muomni.errors import UserError
from muomni.tensor_files import write_tensors

STATE_FILE = "state.safetensors"
FINGERPRINT_FILE = "fingerprint.json"


def fingerprint(params: Mapping[str, Any], data: Mapping[str, str]) -> str:
    """A hash of everything that a training depends on.

    Args:
        params: the stage's parameters, JSON values.
        data: hash of each data set or checkpoint that the stage reads, by name.

    Returns:
        A hexadecimal digest over both, the PyTorch version, and the source of every loaded module of muomni.
    """
    files = {name: getattr(module, "__file__", None) for name, module in sorted(sys.modules.items())}
    sources = {
        name: hashlib.sha256(Path(file).read_bytes()).hexdigest()
        for name, file in files.items()
        if file and name.split(".")[0] == "muomni"
    }
    parts = {"params": dict(params), "data": dict(data), "torch": torch.__version__, "sources": sources}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def belongs(folder: Path, wanted: str) -> bool:
    """Whether what a state folder holds is of a training with this fingerprint."""
    try:
        found = json.loads((folder / FINGERPRINT_FILE).read_text(encoding="utf-8"))
        return bool(found["fingerprint"] == wanted)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def prepare(folder: Path, wanted: str) -> None:
    """Make a state folder ready for a training with this fingerprint; discard what another one left.

    Raises:
        UserError: if the folder holds something else than a training's state.
    """
    if belongs(folder, wanted):
        return
    others = [path.name for path in folder.iterdir() if path.suffix != ".tmp"] if folder.is_dir() else []
    if others and FINGERPRINT_FILE not in others:
        raise UserError(f"{folder}: holds {others[0]}, which is no training's state; name another folder")
    if (folder / STATE_FILE).is_file():
        print(f"{folder}: parameters, data or code changed: starting again", file=sys.stderr)
    finish(folder)
    folder.mkdir(parents=True)
    atomic_write_json(folder / FINGERPRINT_FILE, {"fingerprint": wanted})


def finish(folder: Path) -> None:
    """Remove a training's state that nobody needs any more: after the stage's outputs are safe, or another training's.

    Renamed first: a crash never leaves half a state, which nothing could tell from a folder of something else.
    """
    gone = folder.with_name(f".{folder.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    if folder.exists():
        os.replace(folder, gone)
        shutil.rmtree(gone)


def flatten_optimisers(optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimisers' tensors as ``optimiser/<number>/<parameter>/<name>``; rates follow from the step."""
    tensors: dict[str, Tensor] = {}
    for number, optimiser in enumerate(optimisers):
        for index, entries in optimiser.state_dict()["state"].items():
            for name, value in entries.items():
                tensors[f"optimiser/{number}/{index}/{name}"] = torch.as_tensor(value)
    return tensors


def restore_optimisers(optimisers: list[torch.optim.Optimizer], tensors: Mapping[str, Tensor]) -> None:
    """Give the optimisers back what `flatten_optimisers` took.

    A file of tensors does not keep how they lie in memory, which matters: AdamW in one kernel goes through a weight
    and its moments side by side, and convolutions here have their channels last.
    """
    for number, optimiser in enumerate(optimisers):
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, *rest = key.split("/")
            if kind == "optimiser" and rest[0] == str(number):
                own = parameters[int(rest[1])]
                if value.shape == own.shape:
                    value = torch.empty_like(own, dtype=value.dtype, device=value.device).copy_(value)
                state.setdefault(int(rest[1]), {})[rest[2]] = value
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def module_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All parameters and buffers, saved or not in a checkpoint, as ``model/<module>/<name>``."""
    return {
        f"model/{prefix}/{name}": tensor.detach()
        for prefix, module in modules.items()
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


def restore_modules(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors named as by `module_tensors` into the modules."""
    with torch.no_grad():
        for key, target in module_tensors(modules).items():
            target.copy_(tensors[key])


def digest(modules: Mapping[str, nn.Module]) -> str:
    """A hash of all parameters and buffers."""
    total = hashlib.blake2b(digest_size=16)
    for key, tensor in module_tensors(modules).items():
        total.update(key.encode())
        total.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def save_state(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimisers: list[torch.optim.Optimizer],
    best: Mapping[str, Tensor],
    facts: Mapping[str, Any],
) -> None:
    """Write everything that a resumed training needs, atomically.

    Args:
        folder: the state folder.
        modules: those being trained.
        optimisers: theirs.
        best: the best weights so far, as `module_tensors` names them, or nothing.
        facts: JSON values: the step, partial means, the best score.
    """
    tensors = module_tensors(modules) | flatten_optimisers(optimisers)
    tensors |= {"best" + key.removeprefix("model"): value for key, value in best.items()}
    separate = {key: value.detach().cpu().clone().contiguous() for key, value in tensors.items()}
    temporary = folder / (STATE_FILE + ".tmp")
    write_tensors(temporary, separate, {"facts": json.dumps(facts)})
    put_in_place(temporary, folder / STATE_FILE)


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read what `save_state` wrote.

    Returns:
        Tensors on the CPU and facts, or None if there is no readable state.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return {key: file.get_tensor(key) for key in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        print(f"{path}: unreadable ({error}): starting again", file=sys.stderr)
        return None
