"""What the model read, for learners: positions, and each picture and recording as its encoder got it."""

import base64
import io
from typing import Any

import numpy as np
import torch
from PIL import Image

from muomni.conversation import STRIDE, Encoded
from muomni.media import image_to_tensor
from muomni.mel import MelConfig, log_mel
from muomni.omni import Omni
from muomni.serve.conversing import Read
from muomni.serve.metrics import Stopwatch
from muomni.serve.schema_answer import Details, SeenInput

FRAMES = 100  # of a log-mel, a second


def png_address(image: Image.Image) -> str:
    """A picture as a data address."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def mel_picture(mel: torch.Tensor, cfg: MelConfig) -> Image.Image:
    """A log-mel ``[T, M]`` in grey: time to the right, low frequencies at the bottom, white loud."""
    low = float(np.log(cfg.floor))
    high = max(low + 1.0, float(mel.max()))
    grey = ((mel - low) / (high - low) * 255).clamp(0, 255).round().to(torch.uint8)
    return Image.fromarray(np.ascontiguousarray(grey.numpy().T[::-1]))


def seen_input(given: Any, encoded: Encoded, positions: int, model: Omni) -> SeenInput:
    """One picture or recording."""
    if isinstance(given, Image.Image):
        cfg = model.cfg.vision_encoder
        pixels = (image_to_tensor(given, cfg.image_size).permute(1, 2, 0) * 255).round().to(torch.uint8)
        return SeenInput(
            kind="image",
            positions=positions,
            png=png_address(Image.fromarray(pixels.numpy())),
            size=[given.width, given.height],
            patch_size=cfg.patch_size,
            grid=model.cfg.fusion.image_grid,
        )
    mel = log_mel(torch.from_numpy(given), model.cfg.mel)[: positions * STRIDE]
    seconds = len(given) / model.cfg.mel.sample_rate
    picture = png_address(mel_picture(mel, model.cfg.mel)) if len(mel) else ""
    return SeenInput(kind="audio", positions=positions, png=picture, seconds=round(seconds, 3), frames=len(mel))


def details_of(read: Read, model: Omni) -> Details:
    """What the model read of a conversation; pictures and recordings of its newest question. Takes long."""
    held: dict[bytes, int] = {}  # positions of each picture or recording, by its hash
    for key in read.prompt.keys:
        if isinstance(key, tuple):
            held[key[1]] = max(held.get(key[1], 0), key[2] + 1)
    plan = read.prompt.plan
    return Details(
        positions=dict(plan.positions),
        answer=plan.answer,
        dropped_turns=plan.dropped_turns,
        dropped_audio_s=round(plan.dropped_audio * STRIDE / FRAMES, 3),
        context=plan.context,
        inputs=[seen_input(given, encoded, held.get(encoded.digest, 0), model) for given, encoded in read.seen],
    )


def times_of(watch: Stopwatch) -> Details:
    """How fast an answer came."""

    def rounded(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds, 4)

    return Details(
        first_token_s=rounded(watch.first_token),
        first_audio_s=rounded(watch.first_audio),
        tokens_per_s=rounded(watch.tokens_per_s),
    )
