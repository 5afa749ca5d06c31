"""Checkpoints: folders of ``model.safetensors``, ``config.json``, ``card.json``. Nothing is unpickled.

A checkpoint may come from anywhere, and its card has the hash of every other file. `muomni.fitting` puts the weights
into modules.
"""

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from muomni.checkpoint_card import CARD, CONFIG, Card
from muomni.checkpoint_card import make_card as make_card
from muomni.checkpoint_card import revision as revision
from muomni.config import parse
from muomni.data.files import flush, flush_folder, sha256_file, sha256_folder
from muomni.errors import UserError
from muomni.tensor_files import write_tensors
from muomni.untrusted import MOST_JSON, plain_file, read_object

C = TypeVar("C")
WEIGHTS = "model.safetensors"
STAGES = {  # which stage makes which folder
    "thinker": "a-thinker",
    "audio_encoder": "b-audio-encoder",
    "vision_encoder": "c-vision-encoder",
    "codec": "d-codec",
    "talker": "d-talker",
    "vocoder": "d-vocoder",
    "omni": "e-omni",
}
SETTLES = 0.2  # seconds that replacing a folder takes at most, between its two renames
REPLACED = 5  # times that a folder may be replaced while it is being read
MOST_BYTES = 16 << 30  # of the weights; the largest profile has 0.1 GB
MOST_HEADER = 8 << 20  # bytes of the names and shapes in front of the weights
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
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


def input_sha256(path: Path) -> str:
    """The hash that a card has of a file or folder which a stage read.

    A checkpoint's card does not count: it tells when the weights were made, not what they are.
    """
    return sha256_folder(path, (CARD,)) if path.is_dir() else sha256_file(path)


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
        card: from `make_card`; ``weights_sha256`` and ``files_sha256`` are added.
        files: further files to copy in, by name.
    """
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with one_writer(target.parent):
        temporary, old = (target.with_name(f".{target.name}.{kind}") for kind in ("tmp", "old"))
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
        write_tensors(temporary / WEIGHTS, tensors)
        write_json(temporary / CONFIG, config)
        for name, source in (files or {}).items():
            shutil.copyfile(source, temporary / name)
        others = {name: sha256_file(temporary / name) for name in (CONFIG, *(files or {}))}
        write_json(temporary / CARD, dict(card) | {"weights_sha256": weights_sha256(temporary), "files_sha256": others})
        flush_folder(temporary)
        # A folder cannot be renamed over a full one. A crash between the renames leaves the old one, which
        # `load_checkpoint` puts back.
        for last in (False, False, True):
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(target, old)
            try:
                os.replace(temporary, target)
                break
            except OSError as error:  # a reader put the old one back meanwhile
                if last or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        flush(target.parent)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Have others who write checkpoints into a folder wait: two at once would mix what they write.

    The lock is on the folder itself, so that no file of it is left.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON that `read_object` reads again."""
    path.write_text(json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def weights_sha256(folder: str | Path) -> str:
    """The hash of a checkpoint's weights."""
    return sha256_file(Path(folder) / WEIGHTS)


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder, whose files must be those that its card was written for.

    Raises:
        UserError: if the folder or a file in it is missing, corrupt or changed.
    """
    return load_checked(folder, lambda found: None)[0]


def load_checked(folder: str | Path, check: Callable[[Checkpoint], C]) -> tuple[Checkpoint, C]:
    """Read a checkpoint folder after a check of everything but the weights.

    Args:
        folder: where it is.
        check: is given what `peek_checkpoint` gives before any weight is read, and raises if something does not fit.

    Returns:
        The checkpoint, and what the check returned.

    Raises:
        UserError: as `load_checkpoint`.
    """
    for _ in range(REPLACED):
        before = identity(folder)
        try:
            found = load_once(folder, check)
        except UserError:
            if identity(folder) == before:
                raise
        else:
            if identity(folder) == before:
                return found
    return load_once(folder, check)


def identity(folder: str | Path) -> tuple[int, int] | None:
    """What changes when another folder gets this name; None if there is none."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def load_once(folder: str | Path, check: Callable[[Checkpoint], C]) -> tuple[Checkpoint, C]:
    """`load_checked`, which may meet files of two checkpoints if the folder is replaced meanwhile.

    Raises:
        UserError: if a file is not the one that the card was written for.
    """
    found = peek_checkpoint(folder)
    checked = check(found)
    folder, again = Path(folder), remedy(folder)
    for name, digest in digests(found.card).items():
        if sha256_file(plain_file(folder, name, MOST_BYTES)) != digest:
            raise UserError(f"{folder / name}: is not the file that {CARD} was written for (other SHA-256); {again}")
    return replace(found, state=read_tensors(folder, again, "cpu")), checked


def digests(card: Mapping[str, Any]) -> dict[str, str]:
    """The hash of every file that a card was written for, by name."""
    return {WEIGHTS: card["weights_sha256"], **card["files_sha256"]}


def peek_checkpoint(folder: str | Path) -> Checkpoint:
    """Read everything of a checkpoint but its weights: they are on the meta device, and not compared with the card.

    Raises:
        UserError: if the folder or a file in it is missing or corrupt.
    """
    folder, again = Path(folder), remedy(folder)
    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and (old / CARD).is_file():
        time.sleep(SETTLES)  # whoever is about to replace it does so at once; a crash leaves it as it is
        if not folder.exists():
            with suppress(OSError):
                os.replace(old, folder)
    stage = STAGES.get(folder.name)
    hint = f"run `dvc repro {stage}` to make it" if stage else "give the folder of a trained checkpoint"
    if not folder.is_dir():
        raise UserError(f"{folder}: no checkpoint folder here; {hint}")
    for name in (WEIGHTS, CONFIG, CARD):
        if not (folder / name).exists():
            raise UserError(f"{folder}: {name} is missing; {hint}")
    try:
        config, card = (read_object(plain_file(folder, name, MOST_JSON)) for name in (CONFIG, CARD))
        parse(Card, card, str(folder / CARD))
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    return Checkpoint(read_tensors(folder, again, "meta"), config, card)


def remedy(folder: str | Path) -> str:
    """What to do about a damaged checkpoint."""
    stage = STAGES.get(Path(folder).name)
    return f"run `dvc repro --force {stage}` to make it again" if stage else "copy or train it again"


def read_tensors(folder: Path, again: str, device: str) -> dict[str, Tensor]:
    """The weights on the CPU, or on the meta device their shapes and types.

    Raises:
        UserError: if the file is damaged.
    """
    path = plain_file(folder, WEIGHTS, MOST_BYTES)
    try:
        with path.open("rb") as start:
            header = int.from_bytes(start.read(8), "little")
        if header > MOST_HEADER:
            raise ValueError(f"names and shapes of {header:,} bytes, at most {MOST_HEADER:,} are read")
        with safe_open(path, framework="pt") as file:
            if device == "cpu":
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
            parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: torch.empty(part.get_shape(), dtype=TYPES[part.get_dtype()], device="meta")
                for name, part in parts.items()
            }
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not readable as safetensors ({reason}); {again}") from None
