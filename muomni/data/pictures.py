"""Pictures of the image shards in memory."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from muomni.data.shards import read_shards


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
    """PNG bytes to ``[3, S, S]`` uint8."""
    array = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    # Turned by numpy: torch would share this much among threads, and their start costs more than the work.
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def load_pictures(folder: str | Path, split: str) -> list[Picture]:
    """Read a split of the image shards.

    Raises:
        UserError: if the shards are missing, damaged or empty.
    """
    pictures = []
    for sample in read_shards(Path(folder), split):
        about = sample["json"]
        pixels = decode_picture(sample["png"])
        pictures.append(
            Picture(
                pixels, about["caption"], about["objects"], about["kind"], sample["__key__"], about.get("background")
            )
        )
    return pictures


def box_weights(boxes: Tensor, side: int) -> Tensor:
    """How much each patch belongs to a box: the share of the box's area that it covers.

    Args:
        boxes: ``[N, 4]`` float, x0, y0, x1, y1 from 0 to 1.
        side: patches on a side.

    Returns:
        ``[N, side * side]`` float, row by row, each row summing to 1.
    """
    edges = torch.arange(side + 1) / side

    def overlap(low: Tensor, high: Tensor) -> Tensor:
        return (torch.minimum(high[:, None], edges[1:]) - torch.maximum(low[:, None], edges[:-1])).clamp_min(0)

    columns, rows = overlap(boxes[:, 0], boxes[:, 2]), overlap(boxes[:, 1], boxes[:, 3])
    weights = (rows[:, :, None] * columns[:, None, :]).flatten(1)
    return weights / weights.sum(1, keepdim=True).clamp_min(1e-6)
