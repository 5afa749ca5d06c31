"""The module that each stage saves, built again from the configuration of its checkpoint."""

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from muomni.audio_encoder import AudioEncoder, AudioEncoderConfig, CTCHead
from muomni.codec import Codec, CodecConfig
from muomni.config import Section, parse
from muomni.errors import UserError
from muomni.istft_vocoder import ISTFTVocoder
from muomni.mel import MelConfig
from muomni.omni import Omni, OmniConfig
from muomni.talker import Talker, TalkerConfig
from muomni.thinker import Thinker, ThinkerConfig
from muomni.train.c_vision_encoder import ContrastiveHeads
from muomni.vision_encoder import VisionEncoder, VisionEncoderConfig
from muomni.vocoder import VocoderConfig

S = TypeVar("S", bound=Section)


def section_of(config: Mapping[str, Any], cls: type[S], name: str, where: str) -> S:
    """A section of a checkpoint's configuration.

    Args:
        config: as `muomni.checkpoint.Checkpoint.config`.
        cls: the section's type.
        name: its name.
        where: what messages call the file.

    Raises:
        UserError: if it is missing or bad.
    """
    if name not in config:
        raise UserError(f"{where}: section '{name}' is missing; run `dvc repro` to train it again")
    return parse(cls, config[name], f"{where}: {name}")


def make_module(component: str, config: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> nn.Module:
    """The module that a checkpoint holds the weights of, with those that it begins with.

    Args:
        component: of the checkpoint's card.
        config: its configuration.
        state: its tensors, perhaps on the meta device: stage C's heads have the widths of theirs.
        where: what messages call the configuration's file.

    Raises:
        UserError: if the configuration is bad or there is no such component.
    """

    def part(cls: type[S], name: str) -> S:
        return section_of(config, cls, name, where)

    match component:
        case "thinker":
            return Thinker(part(ThinkerConfig, "thinker"))
        case "audio_encoder":
            hearing = part(AudioEncoderConfig, "audio_encoder")
            return nn.ModuleDict({"audio_encoder": AudioEncoder(hearing), "ctc": CTCHead(hearing)})
        case "vision_encoder":
            seeing = part(VisionEncoderConfig, "vision_encoder")
            space, text = (state.get(f"heads.{name}.weight") for name in ("picture", "text.0"))
            if space is None or text is None or space.ndim != 2 or text.ndim != 2:
                raise UserError(f"{where}: holds no heads; run `dvc repro --force c-vision-encoder`")
            heads = ContrastiveHeads(seeing.d_model, text.shape[1], space.shape[0])
            return nn.ModuleDict({"vision_encoder": VisionEncoder(seeing), "heads": heads})
        case "codec":
            return Codec(part(CodecConfig, "codec"))
        case "talker":
            return Talker(part(TalkerConfig, "talker"), part(ThinkerConfig, "thinker").d_model)
        case "vocoder":
            vocoder = part(VocoderConfig, "vocoder")
            return nn.Module() if vocoder.kind == "griffin_lim" else ISTFTVocoder(part(MelConfig, "mel"), vocoder)
        case "omni":
            return Omni(parse(OmniConfig, config, where))
    raise UserError(f"{where}: no component is called {component[:40]!r}; give a checkpoint of muOmni")
