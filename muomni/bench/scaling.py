"""How time and memory of a training step grow with context, batch, vocabulary, width and layers."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from muomni.bench.point import Shape, in_process

CENTRE = Shape(batch=4, length=512, vocabulary=8000, width=256, layers=4)
AXES = {
    "length": (256, 512, 1024, 2048),
    "batch": (1, 2, 4, 8, 16),
    "vocabulary": (2000, 8000, 32_000, 64_000),
    "width": (128, 256, 512),
    "layers": (2, 4, 8, 16),
}
NAMES = {"length": "context, tokens", "batch": "batch, sequences"}


def curves(params: Path, seconds: float, tell: Callable[[str], object]) -> dict[str, list[dict[str, Any]]]:
    """Each axis in turn, all else as in `CENTRE`.

    Returns:
        By axis, points of `value`, `seconds` and `peak_mb`.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    known = {CENTRE: in_process(params, CENTRE, seconds=seconds)}
    for axis, values in AXES.items():
        tell(f"scaling: {axis}")
        found[axis] = []
        for value in values:
            shape = replace(CENTRE, **{axis: value})
            if shape not in known:
                known[shape] = in_process(params, shape, seconds=seconds)
            found[axis].append({"value": value, **asdict(known[shape])})
    return found


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A PNG with time above and memory below, an axis a column."""
    canvas = Figure(figsize=(3 * len(found), 5), layout="constrained")
    rows = canvas.subplots(2, len(found), squeeze=False)
    for column, (axis, points) in enumerate(found.items()):
        values = [point["value"] for point in points]
        for row, (name, label) in enumerate((("seconds", "seconds a step"), ("peak_mb", "MB at the peak"))):
            axes = rows[row][column]
            axes.plot(values, [point[name] for point in points], "o-", color="#4477aa")
            axes.set_ylim(bottom=0)
            axes.set_xlim(left=0)
            axes.set_xlabel(NAMES.get(axis, axis))
            if not column:
                axes.set_ylabel(label)
            axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, dpi=90, metadata={"Software": None})
