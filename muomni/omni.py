"""The whole model: encoders and projectors in front of the Thinker, Talker, codec and vocoder behind it.

Pictures and sounds become positions of the Thinker's sequence: each encoder's states are projected to its width and
stand where the chat template has ``<|image|>`` or ``<|audio|>``.
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from muomni.audio_encoder import AudioEncoder, AudioEncoderConfig
from muomni.checkpoint import load_checkpoint, load_into
from muomni.codec import Codec, CodecConfig
from muomni.config import Section, parse
from muomni.griffin_lim import GriffinLimConfig
from muomni.mel import MelConfig
from muomni.talker import Talker, TalkerConfig
from muomni.thinker import Thinker, ThinkerConfig
from muomni.tokenizer import Tokenizer
from muomni.vision_encoder import VisionEncoder, VisionEncoderConfig, pool_grid
from muomni.vocoder import VocoderConfig
from muomni.vocoders import make_vocoder


class FusionConfig(Section):
    """How the encoders meet the Thinker."""

    image_grid: int = Field(
        ge=0, le=32, description="cells on a side of the pooled patches after the CLS; 0 for the CLS alone"
    )


class OmniConfig(Section):
    """Everything that a checkpoint of the whole model needs to be built again."""

    mel: MelConfig
    thinker: ThinkerConfig
    vision_encoder: VisionEncoderConfig
    audio_encoder: AudioEncoderConfig
    codec: CodecConfig
    talker: TalkerConfig
    vocoder: VocoderConfig
    griffin_lim: GriffinLimConfig
    fusion: FusionConfig


class Omni(nn.Module):
    """All components; shapes as in their own files."""

    def __init__(self, cfg: OmniConfig) -> None:
        super().__init__()
        self.cfg = cfg
        width = cfg.thinker.d_model
        self.thinker = Thinker(cfg.thinker)
        self.vision_encoder = VisionEncoder(cfg.vision_encoder)
        self.audio_encoder = AudioEncoder(cfg.audio_encoder)
        self.vision_projector = nn.Linear(cfg.vision_encoder.d_model, width)
        self.audio_projector = nn.Linear(cfg.audio_encoder.d_model, width)
        # Where each state of a picture lies: rotary positions tell the Thinker distances in the sequence only.
        self.places = nn.Embedding(self.image_positions, width)
        nn.init.normal_(self.places.weight, std=0.2)
        self.codec = Codec(cfg.codec)
        self.talker = Talker(cfg.talker, width)
        self.vocoder = make_vocoder(cfg.mel, cfg.vocoder, cfg.griffin_lim)

    def image_features(self, images: Tensor) -> Tensor:
        """Pictures ``[B, 3, S, S]`` to encoder states ``[B, P, Dv]``: the CLS and, with a grid, its cells."""
        cls, patches = self.vision_encoder(images)
        if self.cfg.fusion.image_grid == 0:
            return cls[:, None]
        return torch.cat((cls[:, None], pool_grid(patches, self.cfg.fusion.image_grid)), dim=1)

    def project_images(self, states: Tensor) -> Tensor:
        """States of pictures in reading order ``[N, Dv]`` to the Thinker's width, each with its place, ``[N, D]``."""
        places = torch.arange(len(states), device=states.device) % self.image_positions
        return self.vision_projector(states) + self.places(places)

    @property
    def image_positions(self) -> int:
        """Positions that one picture takes in the Thinker's sequence."""
        return 1 + self.cfg.fusion.image_grid**2


def load_omni(folder: str | Path, device: torch.device | str = "cpu") -> tuple[Omni, Tokenizer, dict[str, Any]]:
    """Read an assembled checkpoint.

    Args:
        folder: as stage E writes it: weights, configuration, card and tokenizer.
        device: where the model goes.

    Returns:
        The model in eval mode, its tokenizer and its card.

    Raises:
        UserError: if a part is missing or does not fit its configuration.
    """
    checkpoint = load_checkpoint(folder)
    cfg = parse(OmniConfig, checkpoint.config, f"{folder}/config.json")
    model = Omni(cfg)
    load_into(model, checkpoint.state, where=str(folder))
    tokenizer = Tokenizer(Path(folder) / "tokenizer.model")
    return model.to(device).eval(), tokenizer, checkpoint.card
