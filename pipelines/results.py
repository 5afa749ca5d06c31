"""The report of a run: what its stages did, its figures beside others, its curves, and a sound.

A page of Markdown with the picture and the sound inside, so that it shows without any other server.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

CURVE = "loss"


def curves(train: Path) -> bytes | None:
    """A picture (PNG) of each training stage's loss over its steps; None if there is none.

    Args:
        train: the folder ``metrics/train``.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for path in sorted(train.glob("*/train.json")):
        rows = [row for row in json.loads(path.read_text(encoding="utf-8")) if CURVE in row]
        if rows:
            found[path.parent.name] = rows
    if not found:
        return None
    columns = min(3, len(found))
    lines = -(-len(found) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.4 * columns, 2.4 * lines), squeeze=False)
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    for axis, (stage, rows) in zip(axes.flat, found.items(), strict=False):
        axis.plot([row["step"] for row in rows], [row[CURVE] for row in rows], linewidth=1)
        axis.set_title(stage, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    figure.supxlabel("step", fontsize=8)
    figure.supylabel(CURVE, fontsize=8)
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=90)
    plt.close(figure)
    return out.getvalue()


def sound(metrics: Path) -> Path | None:
    """A sound to listen to: read aloud by the whole model, else the newest that a training stage left."""
    spoken = sorted((metrics / "samples").glob("spoken-read_aloud-*.wav"))
    latest = sorted(metrics.glob("train/*/samples/step-*/*.wav"), key=lambda path: (path.parent.parent.parent, path))
    return next(iter(spoken), latest[-1] if latest else None)


def embedded(kind: str, data: bytes) -> str:
    """A file as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def shown(figure: Mapping[str, Any] | None) -> str:
    """A figure's value, with its interval if it has one."""
    if figure is None:
        return ""
    low_high = figure.get("interval")
    return f"{figure['value']:.4g}" + (f" ({low_high[0]:.3g} to {low_high[1]:.3g})" if low_high else "")


def figures(new: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]], higher: Mapping[str, bool | None]) -> str:
    """The run's figures beside others', a column each; ▲ marks where the run is better, ▼ where it is worse.

    Args:
        new: the run's, by name, each ``{"value", "n"}``.
        others: the same of others, by what the column is called.
        higher: whether more of a figure is better; None or not there: neither way.
    """
    rows = []
    for name, figure in new.items():
        row = [name.replace("_", " "), f"**{shown(figure)}**", f"{figure['n']:,}"]
        for column in others.values():
            other = column.get(name)
            mark, better = "", higher.get(name)
            if other is not None and better is not None and other["value"] != figure["value"]:
                mark = " ▲" if (figure["value"] > other["value"]) == better else " ▼"
            row.append(shown(other) + mark)
        rows.append(row)
    return table(["figure", "this run", "n", *others], rows)
