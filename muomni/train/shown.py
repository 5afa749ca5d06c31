"""Pictures among a training's samples: what is seen, and what is heard."""

from pathlib import Path

from PIL import Image
from torch import Tensor


def save_picture(pixels: Tensor, path: Path) -> None:
    """Write ``[3, H, W]`` uint8 as PNG."""
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)


def save_mel(mel: Tensor, path: Path) -> None:
    """Write a log-mel ``[T, M]`` as PNG of T by M grey pixels: time to the right, high bands above, loud is dark."""
    mel = mel.float()
    low, high = mel.min(), mel.max()
    grey = 255 - 255 * (mel - low) / (high - low).clamp(min=1e-6)
    Image.fromarray(grey.round().byte().T.flip(0).contiguous().numpy()).save(path)
