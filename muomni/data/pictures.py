"""Pictures of the image shards in memory."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from muomni.data.shards import read_shards, understood

LARGEST = 1024  # pixels on a side, as section `images` allows


@dataclass
class Picture:
    """A square picture ``[3, S, S]`` uint8 and what its description says.

    Attributes:
        background: a colour's name, or None if it has none or is not told.
    """

    pixels: Tensor
    caption: str
    objects: list[dict[str, Any]]
    kind: str
    key: str
    background: str | None = None


def decode_picture(data: bytes) -> Tensor:
    """PNG bytes to ``[3, S, S]`` uint8. Raises ValueError or OSError if they are something else, or too large."""
    image = Image.open(io.BytesIO(data), formats=("PNG",))
    if max(image.size) > LARGEST:
        raise ValueError(f"{image.width} x {image.height} pixels, more than {LARGEST} on a side")
    array = np.asarray(image.convert("RGB"))
    # Turned by numpy: torch would share this much among threads, and their start costs more than the work.
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def load_pictures(folder: str | Path, split: str) -> list[Picture]:
    """Read a split of the image shards.

    Raises:
        UserError: if the shards are missing, damaged or empty.
    """
    return [as_picture(folder, sample) for sample in read_shards(Path(folder), split)]


def as_picture(folder: str | Path, sample: dict[str, Any]) -> Picture:
    """A sample of the image shards as a picture.

    Raises:
        UserError: if it is no such sample.
    """
    with understood(folder, sample):
        about, pixels = sample["json"], decode_picture(sample["png"])
        said, what, kind = about["caption"], about["objects"], about["kind"]
        return Picture(pixels, said, what, kind, sample["__key__"], about.get("background"))


def box_weights(boxes: Tensor, side: int) -> Tensor:
    """How much each patch belongs to a box: the share of the box's area that it covers.

    Args:
        boxes: ``[N, 4]`` float, x0, y0, x1, y1 from 0 to 1.
        side: patches on a side.

    Returns:
        ``[N, side * side]`` float, row by row, each row summing to 1.
    """
    edges = torch.arange(side + 1, device=boxes.device) / side

    def overlap(low: Tensor, high: Tensor) -> Tensor:
        return (torch.minimum(high[:, None], edges[1:]) - torch.maximum(low[:, None], edges[:-1])).clamp_min(0)

    columns, rows = overlap(boxes[:, 0], boxes[:, 2]), overlap(boxes[:, 1], boxes[:, 3])
    weights = (rows[:, :, None] * columns[:, None, :]).flatten(1)
    return weights / weights.sum(1, keepdim=True).clamp_min(1e-6)


def rest_weights(boxes: Tensor, owner: Tensor, pictures: int, side: int) -> Tensor:
    """How much each patch belongs to a picture's background: the share of it that no box covers.

    Args:
        boxes: ``[N, 4]`` of all pictures' objects, x0, y0, x1, y1 from 0 to 1.
        owner: ``[N]``, the picture of each.
        pictures: B.
        side: patches on a side.

    Returns:
        ``[B, side * side]``, 0 to 1. Every patch counts a little: a drawing seldom fills its box.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * side**2  # in patches
    covered = torch.zeros(pictures, side**2, device=boxes.device)
    covered.index_add_(0, owner, box_weights(boxes, side) * area[:, None])
    return (1 - covered).clamp_min(0.02)


def moved(images: Tensor, moves: Tensor) -> Tensor:
    """Move pictures; what comes in at an edge repeats it.

    Args:
        images: ``[B, C, S, S]``.
        moves: ``[B, 2]`` int64, pixels down and to the right that the window moves over each picture.

    Returns:
        ``[B, C, S, S]``.
    """
    places = torch.arange(images.shape[-1], device=images.device)
    rows, columns = ((moves[:, axis, None] + places).clamp(0, len(places) - 1) for axis in (0, 1))  # [B, S]
    picture = torch.arange(len(images), device=images.device)[:, None, None]
    return images.transpose(1, 3)[picture, columns[:, :, None], rows[:, None]].transpose(1, 3)
