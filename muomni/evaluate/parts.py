"""All trained parts, each as its own stage left it, built from the configuration in its checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from muomni.audio_encoder import AudioEncoder, AudioEncoderConfig, CTCHead
from muomni.checkpoint import load_checkpoint, load_into
from muomni.codec import Codec, CodecConfig
from muomni.config import Section, parse
from muomni.errors import UserError
from muomni.istft_vocoder import ISTFTVocoder
from muomni.mel import MelConfig
from muomni.omni import Omni, load_omni
from muomni.talker import Talker, TalkerConfig
from muomni.thinker import Thinker, ThinkerConfig
from muomni.tokenizer import Tokenizer
from muomni.train.c_vision_encoder import ContrastiveHeads
from muomni.vision_encoder import VisionEncoder, VisionEncoderConfig
from muomni.vocoder import VocoderConfig

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


class Part:
    """A stage's checkpoint, to fill modules from.

    Args:
        folder: the checkpoint.
        device: where the modules go.

    Raises:
        UserError: if it is missing or damaged.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.folder, self.device = folder, device
        self.found = load_checkpoint(folder)

    def section(self, cls: type[S], name: str) -> S:
        """A section of its configuration.

        Raises:
            UserError: if it is missing or bad.
        """
        where = f"{self.folder}/config.json: "
        if name not in self.found.config:
            raise UserError(f"{where}section '{name}' is missing; run `dvc repro` to train it again")
        return parse(cls, self.found.config[name], where + name)

    def fill(self, module: M, prefix: str = "") -> M:
        """Put the weights, or those under a prefix, into a module, in eval mode.

        Raises:
            UserError: if they do not fit.
        """
        load_into(module, self.found.state, prefix, where=str(self.folder))
        return module.to(self.device).eval()

    def thinker(self) -> Thinker:
        """Of stage A."""
        return self.fill(Thinker(self.section(ThinkerConfig, "thinker")))

    def hearing(self) -> tuple[AudioEncoder, CTCHead]:
        """Of stage B."""
        cfg = self.section(AudioEncoderConfig, "audio_encoder")
        return self.fill(AudioEncoder(cfg), "audio_encoder."), self.fill(CTCHead(cfg), "ctc.")

    def seeing(self, text_width: int) -> tuple[VisionEncoder, ContrastiveHeads]:
        """Of stage C, for a Thinker of this width."""
        cfg = self.section(VisionEncoderConfig, "vision_encoder")
        space = self.found.state.get("heads.picture.weight")
        if space is None:
            raise UserError(f"{self.folder}: holds no heads; run `dvc repro --force c-vision-encoder`")
        heads = ContrastiveHeads(cfg.d_model, text_width, len(space))
        return self.fill(VisionEncoder(cfg), "vision_encoder."), self.fill(heads, "heads.")

    def codec(self) -> Codec:
        """Of stage D."""
        return self.fill(Codec(self.section(CodecConfig, "codec")))

    def talker(self, text_width: int) -> Talker:
        """Of stage D, for a Thinker of this width."""
        return self.fill(Talker(self.section(TalkerConfig, "talker"), text_width))

    def vocoder(self) -> ISTFTVocoder:
        """Of stage D, if it trained one.

        Raises:
            UserError: if it did not.
        """
        cfg = self.section(VocoderConfig, "vocoder")
        if cfg.kind != "istft":
            raise UserError(
                f"{self.folder}: no vocoder was trained; set vocoder.kind: istft and run `dvc repro d-vocoder`"
            )
        return self.fill(ISTFTVocoder(self.section(MelConfig, "mel"), cfg))


def load_parts(folder: Path, device: torch.device) -> Parts:
    """Read all checkpoints.

    Args:
        folder: holds those of all stages, for example ``checkpoints``.
        device: where the parts go.

    Raises:
        UserError: if a checkpoint is missing, damaged or does not fit its configuration.
    """
    thinker = Part(folder / "thinker", device).thinker()
    width = thinker.cfg.d_model
    return Parts(
        thinker,
        *Part(folder / "audio_encoder", device).hearing(),
        *Part(folder / "vision_encoder", device).seeing(width),
        Part(folder / "codec", device).codec(),
        Part(folder / "talker", device).talker(width),
        *load_omni(folder / "omni", device)[:2],
    )
