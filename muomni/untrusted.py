"""Reading files that anybody may have written: plain files of a bounded size, and JSON without surprises.

A checkpoint may come from elsewhere. Whatever lies in its folder, reading it ends in values or in one line.
"""

import json
import math
from pathlib import Path
from typing import Any

from muomni.errors import UserError

MOST_JSON = 1 << 20  # bytes of a configuration or a card
DEEPEST = 32  # objects and lists inside each other
# Pillow would try far more kinds of picture, and starts Ghostscript for an EPS, whatever the file is called.
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO")


def plain_file(folder: Path, name: str, most: int | None = None) -> Path:
    """A file in a folder, or in a folder of it that a link leads to; never one elsewhere.

    Args:
        folder: may itself be a link, which is the user's own.
        name: of the file.
        most: bytes that it may have.

    Raises:
        UserError: if it is missing, no plain file, too large, or a link that leads out of the folder.
    """
    path = folder / name
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise UserError(f"{folder}: {name[:80]!r} is no name of a file in it; copy the folder again")
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve(strict=True)):
            raise UserError(f"{path}: is a link that leads out of its folder; put the file itself there")
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "no plain file"
            raise UserError(f"{path}: is {kind}; expected a file")
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; copy the folder again") from None
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if most is not None and size > most:
        raise UserError(f"{path}: has {size:,} bytes, at most {most:,} are read; it is not what its name says")
    return path


def read_object(path: Path) -> dict[str, Any]:
    """Read a file of one JSON object, as strictly as the standard has it.

    Args:
        path: from `plain_file`, with `MOST_JSON` bytes at most.

    Raises:
        UserError: if it is no JSON, not an object, has a key twice, a number that is not finite, or more than
            `DEEPEST` levels.
    """
    try:
        values = json.loads(
            path.read_bytes().decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite
        )
    except (ValueError, OSError) as error:  # includes UnicodeDecodeError
        raise UserError(f"{path}: not valid JSON ({error})") from None
    except RecursionError:
        raise UserError(f"{path}: not valid JSON (nested too deeply)") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a JSON object")
    level: list[Any] = [values]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return values
    raise UserError(f"{path}: more than {DEEPEST} objects and lists inside each other")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"key {name[:80]!r} is there twice")
        found[name] = value
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large")
    return value
