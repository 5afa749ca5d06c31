"""All trained parts, each as its own stage left it, built from the configuration in its checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from muomni.audio_encoder import AudioEncoder, AudioEncoderConfig, CTCHead
from muomni.checkpoint import Checkpoint, load_checkpoint, load_into
from muomni.codec import Codec, CodecConfig
from muomni.config import Section, parse
from muomni.errors import UserError
from muomni.omni import Omni, load_omni
from muomni.talker import Talker, TalkerConfig
from muomni.thinker import Thinker, ThinkerConfig
from muomni.tokenizer import Tokenizer
from muomni.train.c_vision_encoder import ContrastiveHeads
from muomni.vision_encoder import VisionEncoder, VisionEncoderConfig

S = TypeVar("S", bound=Section)
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Parts:
    """What the stages made, in eval mode.

    Attributes:
        thinker: of stage A.
        audio_encoder, ctc: of stage B.
        vision_encoder, heads: of stage C.
        codec, talker: of stage D.
        omni: of stage E, with further trained parts of its own.
        tokenizer: of all.
        cards: the card of each checkpoint by its folder's name.
    """

    thinker: Thinker
    audio_encoder: AudioEncoder
    ctc: CTCHead
    vision_encoder: VisionEncoder
    heads: ContrastiveHeads
    codec: Codec
    talker: Talker
    omni: Omni
    tokenizer: Tokenizer
    cards: dict[str, dict]


def section_of(cls: type[S], checkpoint: Checkpoint, name: str, folder: Path) -> S:
    """A section of a checkpoint's configuration.

    Raises:
        UserError: if it is missing or bad.
    """
    if name not in checkpoint.config:
        raise UserError(f"{folder}/config.json: section '{name}' is missing; run `dvc repro` to train it again")
    return parse(cls, checkpoint.config[name], f"{folder}/config.json: {name}")


def load_parts(folder: Path, device: torch.device) -> Parts:
    """Read all checkpoints.

    Args:
        folder: holds those of all stages, for example ``checkpoints``.
        device: where the parts go.

    Raises:
        UserError: if a checkpoint is missing, damaged or does not fit its configuration.
    """
    folders = {n: folder / n for n in ("thinker", "audio_encoder", "vision_encoder", "codec", "talker")}
    found = {name: load_checkpoint(path) for name, path in folders.items()}

    def fill(module: M, name: str, prefix: str = "") -> M:
        load_into(module, found[name].state, prefix, where=str(folders[name]))
        return module.to(device).eval()

    def config(cls: type[S], name: str) -> S:
        return section_of(cls, found[name], name, folders[name])

    thinker = Thinker(config(ThinkerConfig, "thinker"))
    audio, vision = config(AudioEncoderConfig, "audio_encoder"), config(VisionEncoderConfig, "vision_encoder")
    space = found["vision_encoder"].state.get("heads.picture.weight")
    if space is None:
        raise UserError(f"{folders['vision_encoder']}: holds no heads; run `dvc repro --force c-vision-encoder`")
    heads = ContrastiveHeads(vision.d_model, thinker.cfg.d_model, len(space))
    omni, tokenizer, card = load_omni(folder / "omni", device)
    return Parts(
        fill(thinker, "thinker"),
        fill(AudioEncoder(audio), "audio_encoder", "audio_encoder."),
        fill(CTCHead(audio), "audio_encoder", "ctc."),
        fill(VisionEncoder(vision), "vision_encoder", "vision_encoder."),
        fill(heads, "vision_encoder", "heads."),
        fill(Codec(config(CodecConfig, "codec")), "codec"),
        fill(Talker(config(TalkerConfig, "talker"), thinker.cfg.d_model), "talker"),
        omni,
        tokenizer,
        {name: checkpoint.card for name, checkpoint in found.items()} | {"omni": card},
    )
