"""Pictures and videos that users bring; sounds are in `muomni.sound` and can be had from here as well.

Every loader takes a path or the file's bytes and returns clean data or raises `UserError`: one line that
names the file, the fault and what to do.
"""

import io
import math
import warnings
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from muomni.errors import UserError
from muomni.sound import (
    Samples,
    Source,
    decode_audio,
    decoded,
    load_audio,
    open_container,
    read_source,
    reason,
    save_audio,
)
from muomni.untrusted import IMAGE_FORMATS

__all__ = ["Video", "image_to_tensor", "load_audio", "load_image", "load_video", "save_audio"]

MAX_PIXELS = 50_000_000
MAX_FRAMES = 600  # of a video, after sampling
MAX_SIDE = 512  # pixels of a video's frame; larger ones are made smaller as they come, or 600 would fill the memory
MAX_FRAME_PIXELS = 16_777_216  # of a video; decoders hold up to twenty frames at a time
MAX_VIDEO_PIXELS = 100_000_000_000  # of all frames that are decoded: ten minutes of 1080p at 60 frames a second
STRIP_PIXELS = 1_000_000  # that are converted at a time
PADDING = (255, 255, 255)  # what is around a picture that is not square, and behind a transparent one


@dataclass(frozen=True)
class Video:
    """Frames of a video, their times in seconds from its start, and its sound (None if it has none)."""

    frames: list[Image.Image]
    times: list[float]
    audio: Samples | None


def load_image(source: Source) -> Image.Image:
    """Load a picture (of an animation the first one) upright in RGB, white where it is transparent.

    Raises:
        UserError: if it cannot be read, is no picture, is damaged, or has more than `MAX_PIXELS`.
    """
    data, name = read_source(source, "image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{name}: more than {MAX_PIXELS // 1_000_000} million pixels; make it smaller") from None
    except Exception:
        known = ", ".join(IMAGE_FORMATS[:4])
        raise UserError(f"{name}: not a picture that can be read; give {known} or the like") from None
    if image.width * image.height > MAX_PIXELS:
        raise UserError(f"{name}: {image.width} x {image.height} pixels is too large; make it smaller")
    try:  # decoders raise many kinds of exception on damaged bytes
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _to_rgb(image)
    except Exception as error:
        raise UserError(f"{name}: the picture is damaged or cut off ({reason(error)})") from None


def _to_rgb(image: Image.Image) -> Image.Image:
    """Strip by strip, since a conversion takes several times the memory of what it converts."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.convert("RGB")
    top = max(float(np.ravel(image.getextrema())[1]), 1e-9) if image.mode == "F" else 65535.0
    rgb, rows = Image.new("RGB", image.size), max(1, STRIP_PIXELS // image.width)
    for first in range(0, image.height, rows):
        strip = image.crop((0, first, image.width, min(first + rows, image.height)))
        rgb.paste(_strip_to_rgb(strip, top), (0, first))
    return rgb


def _strip_to_rgb(image: Image.Image, top: float) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # Pillow would clip these to 255
        values = np.nan_to_num(np.asarray(image, dtype=np.float64) / top * 255)
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*PADDING, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image.convert("RGB")


def image_to_tensor(image: Image.Image, size: int) -> torch.Tensor:
    """Fit a picture into a square, proportions kept, the rest padded: float32 [3, size, size], 0 to 1."""
    scale = size / max(image.size)
    fitted = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if fitted != image.size:
        image = image.resize(fitted, Image.Resampling.BICUBIC)
    square = Image.new("RGB", (size, size), PADDING)
    square.paste(image, ((size - fitted[0]) // 2, (size - fitted[1]) // 2))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 255


def load_video(source: Source, fps: float = 1.0, sample_rate: int = 16000) -> Video:
    """Load a video as pictures at a steady rate, and its sound.

    Args:
        source: path or bytes.
        fps: pictures a second; a slower video gives each picture once.
        sample_rate: of the sound, Hz.

    Raises:
        UserError: if it cannot be read, has no pictures, is damaged or cut off, is longer than `MAX_SECONDS`,
            its pictures have more than `MAX_FRAME_PIXELS`, are more than `MAX_FRAMES`, or have more than
            `MAX_VIDEO_PIXELS` together.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise UserError(f"video: {fps} frames a second is not possible; give a number above 0")
    data, name = read_source(source, "video")
    frames: list[Image.Image] = []
    times: list[float] = []
    step = 1 / Fraction(fps).limit_denominator(1000)
    with open_container(data, name, "video") as container:
        if not container.streams.video:
            raise UserError(f"{name}: there are no pictures in it; give a video, or use it as audio")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UserError(f"{name}: its pictures are in a form that cannot be read; save it as MP4 (H.264)")
        _check_frame(stream.codec_context, name)
        stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}  # its pictures may grow on the way
        first: float | None = None
        pixels = 0
        for frame in decoded(container, stream, name, "video"):
            _check_frame(frame, name)
            pixels += frame.width * frame.height
            if pixels > MAX_VIDEO_PIXELS:
                raise UserError(f"{name}: is too much to decode; make the video smaller or give a shorter part")
            first = (frame.time or 0.0) if first is None else first
            time = (frame.time or 0.0) - first
            if time + 1e-3 < len(frames) * step and frames:
                continue
            if len(frames) == MAX_FRAMES:
                raise UserError(f"{name}: more than {MAX_FRAMES} frames; give a shorter part or a lower rate")
            picture = frame.to_image().convert("RGB").rotate(frame.rotation, expand=True)
            picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)  # never larger than it was
            frames.append(picture)
            times.append(time)
    if not frames:
        raise UserError(f"{name}: the video has no frames; it may be cut off, save it again")
    return Video(frames, times, decode_audio(data, name, sample_rate, needed=False))


def _check_frame(frame: Any, name: str) -> None:
    """Something of a width and a height against `MAX_FRAME_PIXELS`."""
    if frame.width * frame.height > MAX_FRAME_PIXELS:
        raise UserError(f"{name}: {frame.width} x {frame.height} pixels are too many for a video; make it smaller")
