"""The vocoder that the configuration names."""

from muomni.griffin_lim import GriffinLim, GriffinLimConfig
from muomni.istft_vocoder import ISTFTVocoder
from muomni.mel import MelConfig
from muomni.vocoder import Vocoder, VocoderConfig


def make_vocoder(mel: MelConfig, cfg: VocoderConfig, griffin_lim: GriffinLimConfig) -> Vocoder:
    """A vocoder; the trained kind with the weights that it begins with, so load its own before it speaks.

    Args:
        mel: how the frames are made.
        cfg: which, and its shape.
        griffin_lim: settings of the kind that has no weights.
    """
    return ISTFTVocoder(mel, cfg) if cfg.kind == "istft" else GriffinLim(mel, griffin_lim)
