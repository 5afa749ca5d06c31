"""Figures of an evaluation as PNG files, which DVC shows without any network.

Drawn without pyplot, so that no window system is looked for; the files hold no date, so that equal figures are equal
files.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from muomni.evaluate.measure import Figure

BLUE, ORANGE, GREEN, RED = "#4477aa", "#ee7733", "#228833", "#cc3311"
# What a stage's validation is shown by: the first of these that it has.
CHECKED = ("valid_loss", "valid_cer", "valid_naming", "valid_mel_error")


def save(canvas: Canvas, path: Path) -> None:
    """Write a figure."""
    canvas.savefig(path, dpi=90, metadata={"Software": None})


def bars(axes: Axes, figures: Mapping[str, Figure], colour: str, most: float | None = None) -> None:
    """A horizontal bar for each figure with its interval, its value and its n."""
    values = [f["value"] for f in figures.values()]
    ends = [f.get("interval", [f["value"]] * 2) for f in figures.values()]
    below = [max(0.0, v - end[0]) for v, end in zip(values, ends, strict=True)]
    above = [max(0.0, end[1] - v) for v, end in zip(values, ends, strict=True)]
    rows = range(len(values))
    axes.barh(rows, values, color=colour, xerr=[below, above], ecolor="black", capsize=2)
    labels = [f"{name}  (n {f['n']})" for name, f in figures.items()]
    axes.set_yticks(list(rows), labels, fontsize=8)
    axes.invert_yaxis()
    right = most or 1.1 * max([*values, *(end[1] for end in ends), 1e-3])
    axes.set_xlim(0, right)
    for row, value in zip(rows, values, strict=True):
        axes.text(right, row, f" {value:.3f}", va="center", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def draw_bars(
    path: Path, title: str, figures: Mapping[str, Figure], blind: Mapping[str, Figure] | None = None, most: float = 0
) -> None:
    """A bar chart.

    Args:
        path: PNG to write.
        title: above it.
        figures: by label.
        blind: baselines of some of them, drawn as a mark.
        most: right end of the axis; 0 to fit.
    """
    canvas = Canvas(figsize=(8, 0.9 + 0.28 * max(1, len(figures))), layout="constrained")
    axes = canvas.subplots()
    bars(axes, figures, BLUE, most or None)
    marks = [(row, blind[name]["value"]) for row, name in enumerate(figures) if blind and name in blind]
    if marks:
        places, values = zip(*marks, strict=True)
        axes.scatter(values, places, marker="|", s=160, color=ORANGE, zorder=3, label="best answer that does not look")
        canvas.legend(fontsize=8, loc="outside lower right", frameon=False)  # beside no bar, whatever its length
    axes.set_title(title, fontsize=10, loc="left")
    save(canvas, path)


def draw_curves(path: Path, curves: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> None:
    """The losses of trainings over their steps.

    Args:
        path: PNG to write.
        curves: for each stage rows of ``train`` and ``valid``, as `pipelines.training.write_curves` writes them.
    """
    columns = 3
    lines = -(-len(curves) // columns)
    canvas = Canvas(figsize=(10, 2.6 * lines), layout="constrained")
    panels = list(canvas.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[len(curves) :]:
        axes.axis("off")
    for axes, (stage, rows) in zip(panels, curves.items(), strict=False):
        plot_points(axes, rows.get("train", []), "loss", BLUE, "")
        checked = rows.get("valid", [])
        key = next((k for k in CHECKED if checked and k in checked[0]), "")
        if key:  # another measure than the loss has an axis of its own
            plot_points(axes if key == "valid_loss" else axes.twinx(), checked, key, ORANGE, "o")
        shown = f"{key.replace('_', ' ')}" if key else "no validation"
        axes.set_title(f"{stage}: loss, {shown}", fontsize=9, loc="left")
        axes.grid(alpha=0.3)
    save(canvas, path)


def plot_points(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, colour: str, marker: str) -> None:
    """A line through the values of a key over the steps.

    Args:
        axes: to draw in.
        rows: with ``step`` and measures; those without the key are left out.
        key: of the measure.
        colour: of the line, as matplotlib names it.
        marker: of each point, empty for none.
    """
    points = [(row["step"], row[key]) for row in rows if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, linewidth=1)
    axes.tick_params(labelsize=7)


def draw_mels(path: Path, text: str, mels: Mapping[str, Tensor]) -> None:
    """Log-mels ``[T, M]`` at 50 Hz of the same sentence, one above the other, in one scale of time and loudness."""
    canvas = Canvas(figsize=(8, 1.9 * len(mels)), layout="constrained")
    panels = canvas.subplots(len(mels), 1, squeeze=False, sharex=True).flat
    low = min(float(mel.min()) for mel in mels.values())
    high = max(float(mel.max()) for mel in mels.values())
    for axes, (name, mel) in zip(panels, mels.items(), strict=True):
        axes.imshow(
            mel.T.numpy(),
            origin="lower",
            aspect="auto",
            vmin=low,
            vmax=high,
            extent=(0, len(mel) / 50, 0, mel.shape[1]),
        )
        axes.set_title(name, fontsize=9, loc="left")
        axes.set_ylabel("mel band", fontsize=7)
        axes.tick_params(labelsize=7)
        axes.set_xlim(0, max(len(other) for other in mels.values()) / 50)
    canvas.supxlabel("seconds", fontsize=8)
    canvas.suptitle(text, fontsize=9)
    save(canvas, path)


def draw_sheet(path: Path, title: str, items: Sequence[tuple[Tensor, str, bool]], columns: int = 4) -> None:
    """Pictures with a text below each, in green if it is right, in red if it is wrong.

    Args:
        path: PNG to write.
        title: above all.
        items: pixels ``[3, H, W]`` uint8, the text, whether it is right.
        columns: pictures in a row.
    """
    lines = max(1, -(-len(items) // columns))
    width, height, picture, head = 2.6, 3.3, 2.2, 0.4  # inches: of a cell, of the picture in it, of the title
    canvas = Canvas(figsize=(width * columns, height * lines + head))
    total = height * lines + head
    for number, (pixels, text, good) in enumerate(items):
        left = (number % columns * width + 0.2) / (width * columns)
        top = 1 - (head + number // columns * height) / total
        axes = canvas.add_axes((left, top - picture / total, picture / (width * columns), picture / total))
        axes.imshow(pixels.permute(1, 2, 0).numpy())
        axes.axis("off")
        wrapped = [line for part in text.split("\n") for line in textwrap.wrap(part, 36)[:2]]
        below = top - (picture + 0.05) / total
        canvas.text(left, below, "\n".join(wrapped), fontsize=7, color=GREEN if good else RED, va="top", ha="left")
    canvas.suptitle(title, fontsize=10, y=1 - 0.1 / total, va="top")
    save(canvas, path)
