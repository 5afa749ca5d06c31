"""How the course's pictures look, and how they are written: PNG files of a few colours, small and without a date."""

import io
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from PIL import Image
from torch import Tensor

from muomni.data.files import atomic_write_bytes

BLUE, ORANGE, GREEN, RED, GREY = "#4477aa", "#ee7733", "#228833", "#cc3311", "#777777"
WIDTH = 8.0  # inches, at DPI dots each
DPI = 110
COLOURS, FEW = 255, 100  # of a palette: what a page loads should be small; spectrograms have one scale of colours
HOP_MS = 10.0  # between frames of the log-mel


def canvas(height: float) -> Canvas:
    """An empty figure of the course's width, its height in inches."""
    return Canvas(figsize=(WIDTH, height), layout="constrained")


def save(figure: Canvas, path: Path, colours: int = COLOURS) -> None:
    """Write a figure as a PNG with a palette; equal figures are equal files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    picture = Image.open(buffer).convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    small = io.BytesIO()
    picture.save(small, "PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, small.getvalue())


def bare(axes: Axes) -> None:
    """No ticks."""
    axes.set_xticks([])
    axes.set_yticks([])


def show_mel(axes: Axes, mel: Tensor, title: str, rate: float = 1000 / HOP_MS) -> None:
    """A log-mel ``[T, M]``, low bands at the bottom, time in seconds; `rate` is frames a second."""
    floor = float(mel.max()) - 9  # nats below the loudest; softer is black
    axes.imshow(
        mel.T.float().numpy(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=floor,
        extent=(0, len(mel) / rate, 0, mel.shape[1]),
    )
    axes.set_title(title, fontsize=8, loc="left", pad=3)
    axes.set_ylabel("mel band", fontsize=7)
    axes.tick_params(labelsize=7)


def show_picture(axes: Axes, pixels: Tensor, title: str = "") -> None:
    """A picture ``[3, S, S]`` uint8."""
    axes.imshow(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
    axes.set_title(title, fontsize=8, loc="left", pad=3)
    bare(axes)


def plain_axes(axes: Axes) -> None:
    """Without the upper and right edge, small numbers."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
