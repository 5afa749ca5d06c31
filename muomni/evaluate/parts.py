"""All trained parts, each as its own stage left it, built from the configuration in its checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from muomni.audio_encoder import AudioEncoder, CTCHead
from muomni.building import make_module, section_of
from muomni.checkpoint import CONFIG, load_checkpoint
from muomni.codec import Codec
from muomni.config import Section
from muomni.errors import UserError
from muomni.fitting import assemble
from muomni.istft_vocoder import ISTFTVocoder
from muomni.omni import Omni, load_omni
from muomni.talker import Talker
from muomni.thinker import Thinker, ThinkerConfig
from muomni.tokenizer import Tokenizer
from muomni.train.c_vision_encoder import ContrastiveHeads
from muomni.vision_encoder import VisionEncoder
from muomni.vocoder import VocoderConfig

S = TypeVar("S", bound=Section)


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
        return section_of(self.found.config, cls, name, str(self.folder / CONFIG))

    def fill(self, component: str) -> Any:
        """The module with its weights, in eval mode.

        Raises:
            UserError: if they do not fit.
        """
        config, state = self.found.config, self.found.state

        def build() -> nn.Module:
            return make_module(component, config, state, str(self.folder / CONFIG))

        return assemble(build, state, where=str(self.folder)).to(self.device).eval()

    def same_width(self, its: int, text_width: int) -> None:
        """Check that a part which takes the Thinker's states was made for those of this width.

        Raises:
            UserError: if not.
        """
        if its != text_width:
            raise UserError(
                f"{self.folder}: made for a Thinker of width {its}, not {text_width}; run `dvc repro` to train it again"
            )

    def thinker(self) -> Thinker:
        """Of stage A."""
        return cast(Thinker, self.fill("thinker"))

    def hearing(self) -> tuple[AudioEncoder, CTCHead]:
        """Of stage B."""
        both = self.fill("audio_encoder")
        return both["audio_encoder"], both["ctc"]

    def seeing(self, text_width: int) -> tuple[VisionEncoder, ContrastiveHeads]:
        """Of stage C, for a Thinker of this width."""
        both = self.fill("vision_encoder")
        self.same_width(len(both["heads"].whiten.mean), text_width)
        return both["vision_encoder"], both["heads"]

    def codec(self) -> Codec:
        """Of stage D."""
        return cast(Codec, self.fill("codec"))

    def talker(self, text_width: int) -> Talker:
        """Of stage D, for a Thinker of this width."""
        self.same_width(self.section(ThinkerConfig, "thinker").d_model, text_width)
        return cast(Talker, self.fill("talker"))

    def vocoder(self) -> ISTFTVocoder:
        """Of stage D, if it trained one.

        Raises:
            UserError: if it did not.
        """
        if self.section(VocoderConfig, "vocoder").kind != "istft":
            raise UserError(
                f"{self.folder}: no vocoder was trained; set vocoder.kind: istft and run `dvc repro d-vocoder`"
            )
        return cast(ISTFTVocoder, self.fill("vocoder"))


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
