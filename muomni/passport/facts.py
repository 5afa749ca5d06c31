"""What a checkpoint's card notes of how it was made: sources and licences, machine, versions.

All of it is known when a training ends. Figures of the evaluation come later and stand beside it.
"""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from muomni.data.files import MANIFEST, read_json, sha256_file

PACKAGES = ("torch", "torchaudio", "numpy", "safetensors", "sentencepiece", "webdataset")


def cpu_name() -> str:
    """The processor and how many of its threads this machine has, as Linux tells it: ``AMD EPYC 9B14 x 2``."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} x {len(names)}" if names else platform.machine() or "unknown"


def machine(device: str) -> dict[str, str]:
    """Where a training ran. Neither the machine's name nor a path: a card is for everybody to read.

    Args:
        device: in words, as `muomni.device.Device.description`.
    """
    return {
        "device": device,
        "cpu": cpu_name(),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Python's version and those of the packages that compute."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def sources(corpora: Sequence[Path]) -> list[dict[str, Any]]:
    """What the manifests of corpora say: source, hash, how much, and the licences.

    Args:
        corpora: ``manifest.json`` of corpora; also ``index.json`` of conversations, which count if they are one's own.

    Raises:
        UserError: if one is missing or damaged.
    """
    found = []
    for path in corpora:
        of_corpus = path.name == MANIFEST
        about = read_json(path, f"corpus-{path.parent.name}" if of_corpus else "conversation-shards")
        if not of_corpus and not about.get("origins"):
            continue
        own = [
            {"package": o["address"] or o["name"], "version": "", "licence": o["licence"], "what": "conversations"}
            for o in about.get("origins", [])
        ]
        found.append(
            {
                "corpus": path.parent.as_posix(),
                "source": about["source"] if of_corpus else "own conversations",
                "sha256": about["sha256"] if of_corpus else sha256_file(path),
                "bad": len(about["bad"]),
                "counts": about["counts"] if of_corpus else {},
                "licences": about["licences"] if of_corpus else own,
            }
        )
    return found


def lineage(cards: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """How the parts were made that a training began with, from their cards.

    Args:
        cards: by component.
    """
    return {
        name: {key: card[key] for key in ("weights_sha256", "revision", "seconds", "run")}
        | {key: card["metrics"][key] for key in ("steps", "skipped_steps") if key in card["metrics"]}
        | {"machine": card.get("machine", {})}
        for name, card in cards.items()
    }
