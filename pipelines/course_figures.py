"""Draw the course's pictures from a trained model and its data: ``python -m pipelines.course_figures [--root FOLDER]``.

Pictures go to ``docs/pictures/course``, and the numbers that their captions tell to ``docs/figures/course.json``.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from muomni.data.files import atomic_write_json
from muomni.errors import UserError
from pipelines.course import language, pictures, sound
from pipelines.course.curves import SHOWN, curves
from pipelines.course.trained import Trained

PICTURES, NUMBERS = Path("docs/pictures/course"), Path("docs/figures/course.json")
DIGITS = 3
DRAWN: dict[str, Callable[[Trained, Path], dict[str, Any]]] = {
    "next_tokens": language.next_tokens,
    "sequence": language.sequence,
    "patches": pictures.patches,
    "looking": pictures.looking,
    "cells": pictures.cells,
    "slots": sound.slots,
    "alignment": sound.alignment,
    "codebooks": sound.codebooks,
    "reconstruction": sound.reconstruction,
    "phases": sound.phases,
    **{f"curves_{stage[0]}_{stage[2:]}".replace("-", "_"): partial(curves, stage=stage) for stage in SHOWN},
}


def draw(root: Path, out: Path, only: Sequence[str] = (), machine: str = "") -> dict[str, Any]:
    """Draw all pictures, or some.

    Args:
        root: holds ``checkpoints/``, ``data/`` and ``metrics/`` of a run.
        out: folder of the PNG files.
        only: names of `DRAWN`; empty for all.
        machine: what the run was trained on, in words.

    Returns:
        What the run was, and the numbers of each picture by name.

    Raises:
        UserError: for a picture that is not known, or if something of the run is missing.
    """
    unknown = set(only) - set(DRAWN)
    if unknown:
        raise UserError(f"--only: no picture '{min(unknown)}'; there are {', '.join(DRAWN)}")
    torch.manual_seed(0)
    run = Trained(root)
    card = run.card
    about = {
        "command": "python -m pipelines.course_figures",
        "machine": machine,
        "seed": card["params"].get("seed"),
        "revision": str(card["revision"])[:7],
        "run": card["run"],
        "weights": card["weights_sha256"][:12],
    }
    numbers: dict[str, Any] = {"about": about}
    for name in only or DRAWN:
        numbers[name] = {key: shortened(value) for key, value in DRAWN[name](run, out).items()}
    return numbers


def shortened(value: Any) -> Any:
    """A number with as many digits as a caption tells."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def main(words: Sequence[str] | None = None) -> None:
    """The command.

    Raises:
        UserError: as `draw`, or if some pictures would be of another run than the rest.
    """
    parser = argparse.ArgumentParser(description="Draw the course's pictures from a trained model and its data.")
    parser.add_argument("--root", type=Path, default=Path(), help="folder with checkpoints/, data/ and metrics/")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder for the pictures")
    parser.add_argument("--numbers", type=Path, default=NUMBERS, help="file for the captions' numbers")
    parser.add_argument("--only", default="", help="names of pictures, separated by commas")
    parser.add_argument("--machine", default="", metavar="WORDS", help="what the run was trained on")
    args = parser.parse_args(words)
    numbers = draw(args.root, args.out, [name for name in args.only.split(",") if name], args.machine)
    if args.only and args.numbers.is_file():
        kept = json.loads(args.numbers.read_text(encoding="utf-8"))
        if kept.get("about") != numbers["about"]:
            raise UserError(f"{args.numbers}: is of another run; leave out --only, so that all pictures are of one")
        numbers = {**kept, **numbers}
    args.numbers.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_json(args.numbers, numbers)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
