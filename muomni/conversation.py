"""A conversation with pictures and recordings, and the sequence that the Thinker reads of it.

Each picture and recording is encoded once, when it comes in. At every question the chat template lays the conversation
out, the context budget decides what of it fits, and fusion puts the encoders' states in their places.
"""

import hashlib
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from muomni import fusion
from muomni.errors import UserError
from muomni.fusion import Plan, fuse, lay_out
from muomni.media import Samples, image_to_tensor, load_audio, load_image, load_video
from muomni.mel import log_mel
from muomni.omni import Omni
from muomni.recording import as_learned
from muomni.tokenizer import Segment, Tokenizer, render_chat

Picture = str | os.PathLike[str] | bytes | Image.Image
Recording = str | os.PathLike[str] | bytes | Samples | Tensor

PICTURES_AT_ONCE = 32  # encoded together; bounds the memory that a long video takes
STRIDE = 8  # mel frames of one state of the audio encoder


@dataclass(frozen=True, eq=False)
class Encoded:
    """A picture or recording after its encoder.

    Attributes:
        states: ``[P, Dv]`` of a picture, ``[N, Da]`` of a recording.
        cut: positions at the recording's end that the encoder has no room for.
    """

    states: Tensor
    cut: int = 0

    @cached_property
    def digest(self) -> bytes:
        """Hash of the states: equal for equal content, whatever object holds it."""
        return hashlib.sha256(self.states.float().cpu().contiguous().numpy().tobytes()).digest()


@dataclass(frozen=True)
class Prompt:
    """What the Thinker reads.

    Attributes:
        x: embeddings ``[1, T, D]``.
        plan: how it came to fit.
        keys: what stands at each position, T: a token's id, or a picture's or recording's digest and which of its
            states. Where two prompts begin with the same keys, the Thinker reads the same.
    """

    x: Tensor
    plan: Plan
    keys: list[Hashable]


class Conversation:
    """Questions and answers so far, over one model.

    Attributes:
        exchanges: each question as a message of the chat template, and the answer's text.
    """

    def __init__(self, model: Omni, tokenizer: Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.exchanges: list[tuple[dict[str, Any], str]] = []

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.audio_projector.weight.device

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Picture]) -> list[Encoded]:
        """Run the vision encoder.

        Raises:
            UserError: if a file is no picture that can be read.
        """
        size = self.model.cfg.vision_encoder.image_size
        encoded: list[Encoded] = []
        for at in range(0, len(pictures), PICTURES_AT_ONCE):
            some = (p if isinstance(p, Image.Image) else load_image(p) for p in pictures[at : at + PICTURES_AT_ONCE])
            pixels = torch.stack([image_to_tensor(picture.convert("RGB"), size) for picture in some])  # one by one
            encoded += [Encoded(states) for states in self.model.image_features(pixels.to(self.device))]
        return encoded

    @torch.no_grad()
    def encode_recording(self, recording: Recording) -> Encoded:
        """Run the audio encoder over as much of a recording as it has positions for, without the silence around it.

        Args:
            recording: a file, or samples ``[T]`` float32 at the model's sample rate.

        Raises:
            UserError: if a file is no sound that can be read.
        """
        cfg = self.model.cfg
        if isinstance(recording, str | os.PathLike | bytes):
            recording = load_audio(recording, cfg.mel.sample_rate)
        given = np.asarray(recording, np.float32)
        if given.ndim != 1:
            raise UserError(f"audio: expected samples [T], got {list(given.shape)}; give the mean of its channels")
        samples = torch.from_numpy(as_learned(given, cfg.mel.sample_rate))
        mel = log_mel(samples, cfg.mel)  # [T, M]
        positions = -(-len(mel) // STRIDE)
        mel = mel[: cfg.audio_encoder.positions * STRIDE].to(self.device)
        states, _ = self.model.audio_encoder(mel[None], torch.tensor([len(mel)], device=self.device))
        return Encoded(states[0], positions - states.shape[1])

    def message(
        self,
        text: str | None = None,
        images: Sequence[Picture] = (),
        video: str | Path | bytes | None = None,
        audio: Sequence[Recording] = (),
    ) -> dict[str, Any]:
        """A question for the chat template: pictures, then a video's, one a second, then recordings, then text.

        Raises:
            UserError: if a file cannot be read.
        """
        content: list[dict[str, Any]] = [{"type": "image", "member": e} for e in self.encode_pictures(images)]
        if video is not None:
            content.append({"type": "video", "frames": self.encode_pictures(load_video(video).frames)})
        content += [{"type": "audio", "member": self.encode_recording(recording)} for recording in audio]
        if text:
            content.append({"type": "text", "text": text})
        return {"role": "user", "content": content}

    @torch.no_grad()
    def prompt(self, question: dict[str, Any], reserve: int) -> Prompt:
        """Lay out the conversation with a new question.

        Args:
            question: from `message`.
            reserve: positions to keep for the answer.

        Raises:
            UserError: if the question is empty or alone too long for the context.
        """
        rendered = [
            render_chat([asked, {"role": "assistant", "content": answered}], self.tokenizer)
            for asked, answered in self.exchanges
        ]
        rendered.append(render_chat([question], self.tokenizer, add_generation_prompt=True))
        # The budget counts in turns, two to an exchange: an exchange is planned as one full turn and one empty.
        turns: list[list[tuple[str, int]]] = []
        for segments in rendered:
            turns += [[(segment.kind, size_of(segment)) for segment in segments], []]
        first, sizes, plan = fusion.plan(turns, self.model.cfg.thinker.context, reserve)
        kept = [segment for segments in rendered[first // 2 :] for segment in segments]
        room = [size for turn in sizes for size in turn]
        states: dict[str, list[Tensor]] = {"image": [], "audio": []}
        keys: list[Hashable] = []
        for segment, size in zip(kept, room, strict=True):
            if segment.kind == "text":
                keys += segment.value
            else:
                keys += [(segment.kind, segment.value.digest, number) for number in range(size)]
                states[segment.kind].append(segment.value.states[:size])
                plan.dropped_audio += segment.value.cut
        media = [size for segment, size in zip(kept, room, strict=True) if segment.kind != "text"]
        ids = torch.tensor([lay_out(kept, self.tokenizer, media).ids], device=self.device)
        joined = {kind: torch.cat(parts) if parts else None for kind, parts in states.items()}
        return Prompt(fuse(self.model, ids, self.tokenizer, joined["image"], joined["audio"]), plan, keys)


def size_of(segment: Segment) -> int:
    """Positions of a segment: its tokens, or its encoder's states."""
    return len(segment.value) if segment.kind == "text" else len(segment.value.states)
