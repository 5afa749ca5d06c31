"""The whole model: encoders and projectors in front of the Thinker, Talker, codec and vocoder behind it.

Pictures and sounds become positions of the Thinker's sequence: each encoder's states are projected to its width and
stand where the chat template has ``<|image|>`` or ``<|audio|>``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from muomni.audio_encoder import AudioEncoder, AudioEncoderConfig
from muomni.checkpoint import CARD, CONFIG, Checkpoint, load_checked
from muomni.codec import Codec, CodecConfig
from muomni.config import Section, parse
from muomni.errors import UserError
from muomni.fitting import check_fit, load_into, outline
from muomni.griffin_lim import GriffinLimConfig
from muomni.mel import MelConfig
from muomni.talker import Talker, TalkerConfig
from muomni.thinker import Thinker, ThinkerConfig
from muomni.tokenizer import MODEL_FILE, Tokenizer
from muomni.untrusted import plain_file
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

    @model_validator(mode="after")
    def check(self) -> "OmniConfig":
        """The sections agree."""
        for one, value, other, wanted in joints(self):
            if value != wanted:
                raise ValueError(f"{one} is {value}, but {other} is {wanted}")
        patches = self.vision_encoder.image_size // self.vision_encoder.patch_size
        if self.fusion.image_grid > patches:
            raise ValueError(f"fusion.image_grid {self.fusion.image_grid} is more than the {patches} patches on a side")
        return self


class Joined(Protocol):
    """The sections that have something in common."""

    mel: MelConfig
    audio_encoder: AudioEncoderConfig
    codec: CodecConfig
    talker: TalkerConfig


def joints(p: Joined) -> Iterator[tuple[str, int, str, int]]:
    """Pairs of keys, with their values, that must be equal, or the parts do not fit onto each other."""
    yield "talker.codebooks", p.talker.codebooks, "codec.codebooks", p.codec.codebooks
    yield "talker.codes", p.talker.codes, "codec.codes", p.codec.codes
    yield "audio_encoder.n_mels", p.audio_encoder.n_mels, "mel.n_mels", p.mel.n_mels
    yield "codec.n_mels", p.codec.n_mels, "mel.n_mels", p.mel.n_mels


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
        UserError: if a file is missing, damaged or changed, or a part does not fit its configuration.
    """
    folder = Path(folder)

    def check(found: Checkpoint) -> tuple[OmniConfig, Tokenizer]:
        """Everything but the weights; nothing of their size is allocated yet."""
        cfg = parse(OmniConfig, found.config, str(folder / CONFIG))
        check_fit(outline(lambda: Omni(cfg), found.state, str(folder)), found.state, where=str(folder))
        tokenizer = Tokenizer(plain_file(folder, MODEL_FILE))
        if tokenizer.sha256 != found.card["files_sha256"].get(MODEL_FILE):
            raise UserError(f"{folder / MODEL_FILE}: is not the file that {CARD} was written for; copy it again")
        if tokenizer.vocab_size != cfg.thinker.vocab_size:
            raise UserError(
                f"{folder}: its tokenizer has {tokenizer.vocab_size} pieces, its Thinker knows "
                f"{cfg.thinker.vocab_size}; train it again with `dvc repro --force e-omni`"
            )
        return cfg, tokenizer

    checkpoint, (cfg, tokenizer) = load_checked(folder, check)
    model = Omni(cfg)
    load_into(model, checkpoint.state, where=str(folder))
    return model.to(device).eval(), tokenizer, checkpoint.card
