"""The chart of a comparison: a small panel for every figure, a point with its interval for every version."""

import base64
import html
import io
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from muomni.data.files import atomic_write_bytes
from muomni.errors import UserError
from muomni.evaluate.summary import direction

if TYPE_CHECKING:
    from pipelines.registry import Comparison

GREY, BLUE, GREEN, RED = "#777777", "#4477aa", "#228833", "#cc3311"
COLUMNS = 4
ARROWS = {"higher": "higher is better", "lower": "lower is better", "neither": ""}


def colour(mark: str, number: int) -> str:
    """Blue for the first version, green for better, red for worse, grey for what is not marked."""
    if number == 0:
        return BLUE
    return {"+": GREEN, "-": RED}.get(mark[:1], GREY)


def panel(axes: Axes, comparison: "Comparison", name: str) -> None:
    """One figure of every version, the first on top; a filled point where the intervals do not overlap."""
    for number, one in enumerate(comparison.entries):
        figure = one.figures.get(name)
        if figure is None:
            continue
        value, mark = figure["value"], comparison.mark(name, number)
        low, high = figure.get("interval", (value, value))
        # An interval of percentiles may leave the value out by a rounding.
        error = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar(
            value,
            number,
            xerr=error,
            fmt="o",
            color=colour(mark, number),
            mfc=colour(mark, number) if number == 0 or len(mark) == 2 else "white",
            markersize=5,
            capsize=2,
            linewidth=1.2,
        )
        text = f"{value:.4g} {mark}  (n {figure['n']:,})"
        axes.annotate(text, (value, number), (0, 5), textcoords="offset points", fontsize=6, ha="center")
    axes.set_yticks(range(len(comparison.entries)), comparison.labels, fontsize=6)
    axes.set_ylim(len(comparison.entries) - 0.4, -0.8)
    axes.margins(x=0.25)
    axes.tick_params(axis="x", labelsize=6)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(name.replace("_", " "), fontsize=7, loc="left", pad=3)
    axes.set_title(ARROWS[direction(name)], fontsize=5, loc="right", color=GREY, pad=3)
    axes.spines[["top", "right"]].set_visible(False)


def picture(comparison: "Comparison") -> bytes:
    """The chart as PNG."""
    names = comparison.names
    lines = -(-len(names) // COLUMNS)
    height = 0.55 + 0.28 * len(comparison.entries)
    # Without pyplot no window system is looked for.
    canvas = Canvas(figsize=(3.2 * COLUMNS, 0.7 + height * lines), layout="constrained")
    panels = list(canvas.subplots(lines, COLUMNS, squeeze=False).flat)
    for axes in panels[len(names) :]:
        axes.axis("off")
    for axes, name in zip(panels, names, strict=False):
        panel(axes, comparison, name)
    below = "green better, red worse than the first; filled where the intervals do not overlap"
    canvas.suptitle(
        f"{' / '.join(comparison.labels)}: {below if comparison.same else 'different held-out data, nothing compares'}",
        fontsize=9,
    )
    file = io.BytesIO()
    canvas.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def page(comparison: "Comparison") -> bytes:
    """The table and the chart as one HTML file that asks for nothing else."""
    image = base64.b64encode(picture(comparison)).decode()
    title = html.escape(" / ".join(comparison.labels))
    return (
        f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{title}</title>\n<h1>{title}</h1>\n"
        f"<pre>{html.escape(comparison.text())}</pre>\n"
        f'<img alt="every figure with its interval" style="max-width:100%" src="data:image/png;base64,{image}">\n'
        "</html>\n"
    ).encode()


def write_chart(comparison: "Comparison", path: Path) -> None:
    """Write the chart.

    Raises:
        UserError: if the name ends in neither ``.png`` nor ``.html``, or the file cannot be written.
    """
    makers = {".png": picture, ".html": page}
    maker = makers.get(path.suffix.lower())
    if maker is None:
        raise UserError(f"--chart {path}: a chart is a PNG or a page; give a name that ends in .png or .html")
    try:
        atomic_write_bytes(path, maker(comparison))
    except OSError as error:
        raise UserError(f"--chart {path}: cannot be written ({error.strerror}); choose another place") from None
