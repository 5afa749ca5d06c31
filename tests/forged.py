"""Checkpoints as someone might forge them: files changed, and the card made to agree with them."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from muomni.checkpoint import CARD, CONFIG, WEIGHTS
from muomni.cli import main
from muomni.data.files import sha256_file
from muomni.tokenizer import MODEL_FILE


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    """Change what a JSON file holds."""
    values = json.loads(path.read_text())
    how(values)
    path.write_text(json.dumps(values))


def agree(folder: Path) -> None:
    """Put the hashes of the files that lie there into the card."""

    def hashes(card: dict[str, Any]) -> None:
        names = [name for name in (CONFIG, MODEL_FILE) if (folder / name).is_file()]
        card["weights_sha256"] = sha256_file(folder / WEIGHTS)
        card["files_sha256"] = {name: sha256_file(folder / name) for name in names}

    change(folder / CARD, hashes)


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    """The line with which a checkpoint is refused."""
    code = main(["chat", "--text", "Hi", "--checkpoint", str(folder), "--device", "cpu", *more])
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1 and len(err) < 1000, err
    return err


Change = Callable[[Path], object]


def header(folder: Path, how: Callable[[dict[str, Any]], object]) -> None:
    """Change the names and shapes in front of the weights."""
    raw = (folder / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    values = json.loads(raw[8 : 8 + size])
    how(values)
    content = json.dumps(values).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(content)) + content + raw[8 + size :])


def state(folder: Path, how: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change weights."""
    found = load_file(folder / "model.safetensors")
    how(found)
    save_file(found, folder / "model.safetensors")


def tensor(how: Callable[[torch.Tensor], torch.Tensor], name: str = "places.weight") -> Change:
    """Put another tensor in the place of one."""
    return lambda folder: state(folder, lambda found: found.update({name: how(found[name].clone())}))


def shape(**values: Any) -> Change:
    """Lie about a tensor in front of the weights."""
    return lambda folder: header(folder, lambda found: found["places.weight"].update(values))


def config(how: Callable[[dict[str, Any]], object]) -> Change:
    return lambda folder: change(folder / "config.json", how)


def card(how: Callable[[dict[str, Any]], object]) -> Change:
    return lambda folder: change(folder / "card.json", how)


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8", errors="surrogatepass")


def linked(name: str, target: str) -> Change:
    def replaced(folder: Path) -> None:
        shutil.copyfile(folder / name, folder.parent / "outside")
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return replaced


def sparse(name: str, size: int) -> Change:
    return lambda folder: os.truncate(folder / name, size)


def folder_instead(name: str) -> Change:
    def replaced(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return replaced


def pipe_instead(name: str) -> Change:
    def replaced(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return replaced
