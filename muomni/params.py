"""The whole of params.yaml: every section with its types, and what must agree between sections.

The command, the run form and the checks read this; a stage reads only its own sections (see `muomni.config`).
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from muomni.audio_encoder import AudioEncoderConfig
from muomni.codec import CodecConfig
from muomni.config import Section, load_params, parse
from muomni.data.conversations import ConversationsConfig
from muomni.data.image_corpus import ImagesConfig
from muomni.data.speech_corpus import CLEAR_VOICE, SpeechConfig
from muomni.data.text_corpus import TextConfig
from muomni.device import DeviceConfig
from muomni.errors import UserError
from muomni.evaluate.config import EvaluateConfig
from muomni.griffin_lim import GriffinLimConfig
from muomni.mel import MelConfig
from muomni.omni import FusionConfig, joints
from muomni.registry_config import RegistryConfig
from muomni.talker import TalkerConfig
from muomni.thinker import ThinkerConfig
from muomni.tokenizer import TokenizerConfig
from muomni.train.a_thinker import ThinkerStageConfig
from muomni.train.b_audio_encoder import AudioStageConfig
from muomni.train.c_vision_encoder import VisionStageConfig
from muomni.train.d_codec import CodecStageConfig
from muomni.train.d_talker import TalkerStageConfig
from muomni.train.d_vocoder import VocoderStageConfig
from muomni.train.e_omni import OmniStageConfig
from muomni.vision_encoder import VisionEncoderConfig
from muomni.vocoder import VocoderConfig

FRAMES_A_SECOND = 100  # of the log-mel; the audio encoder keeps one in 8, the codec one in 2


class Params(Section):
    """All sections, in the order of `muomni.config.SECTIONS`. A new section needs its line here and its name there."""

    profile: str = Field(description="where the values came from, for the log")
    seed: int = Field(ge=0, lt=2**31, description="of everything random")
    device: DeviceConfig
    text: TextConfig
    images: ImagesConfig
    speech: SpeechConfig
    conversations: ConversationsConfig
    mel: MelConfig
    tokenizer: TokenizerConfig
    thinker: ThinkerConfig
    vision_encoder: VisionEncoderConfig
    audio_encoder: AudioEncoderConfig
    codec: CodecConfig
    talker: TalkerConfig
    vocoder: VocoderConfig
    griffin_lim: GriffinLimConfig
    fusion: FusionConfig
    a_thinker: ThinkerStageConfig
    b_audio_encoder: AudioStageConfig
    c_vision_encoder: VisionStageConfig
    d_codec: CodecStageConfig
    d_talker: TalkerStageConfig
    d_vocoder: VocoderStageConfig
    e_omni: OmniStageConfig
    evaluate: EvaluateConfig
    registry: RegistryConfig


def equals(p: Params) -> Iterator[tuple[str, int, str, int]]:
    """Pairs of keys, with their values, that must be equal."""
    yield "thinker.vocab_size", p.thinker.vocab_size, "tokenizer.vocab_size", p.tokenizer.vocab_size
    yield from joints(p)
    yield "images.size_px", p.images.size_px, "vision_encoder.image_size", p.vision_encoder.image_size
    yield "speech.sample_rate", p.speech.sample_rate, "mel.sample_rate", p.mel.sample_rate


def limits(p: Params) -> Iterator[tuple[str, float, str, float]]:
    """Keys and what they must not exceed."""
    patches = p.vision_encoder.image_size // p.vision_encoder.patch_size
    yield "fusion.image_grid", p.fusion.image_grid, "the patches on a side of vision_encoder", patches
    yield "a_thinker.context", p.a_thinker.context, "thinker.context", p.thinker.context
    heard, spoken = p.audio_encoder.positions * 8 / FRAMES_A_SECOND, p.talker.frames * 2 / FRAMES_A_SECOND
    yield "speech.max_seconds", p.speech.max_seconds, "the seconds that audio_encoder.positions hold", heard
    yield "speech.max_seconds", p.speech.max_seconds, "the seconds that talker.frames hold", spoken


def check(p: Params, where: str) -> None:
    """Check what sections have in common.

    Args:
        p: sections that are good by themselves.
        where: the file, for messages.

    Raises:
        UserError: names the two keys that disagree.
    """
    for one, value, other, wanted in equals(p):
        if value != wanted:
            raise UserError(f"{where}: {one}: {value}, but {other} is {wanted}; make them equal")
    for one, size, other, most in limits(p):
        if size > most:
            raise UserError(f"{where}: {one}: {size:g} is more than {other}, {most:g}; lower it")
    if p.mel.sample_rate != FRAMES_A_SECOND * p.mel.hop_length:
        raise UserError(
            f"{where}: mel.hop_length: {p.mel.hop_length} samples at {p.mel.sample_rate} Hz are not "
            f"{FRAMES_A_SECOND} frames a second; set it to {p.mel.sample_rate // FRAMES_A_SECOND}"
        )


def check_voices(p: Params, where: str) -> None:
    """Check that the embedded corpus has every voice that the Talker learns; your own recordings may have any.

    Raises:
        UserError: names the voice.
    """
    if p.speech.source != "embedded":
        return
    made = [CLEAR_VOICE, *(f"espeak:{voice}" for voice in p.speech.espeak_voices if p.speech.espeak_fraction > 0)]
    for voice in p.talker.voices:
        if voice not in made:
            raise UserError(f"{where}: talker.voices: speech has no '{voice}'; it has {', '.join(made)}")


def read_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a whole parameter file.

    Raises:
        UserError: in one line, if the file is missing or no YAML, a section or key is missing or unknown, a value is
            bad, or two sections disagree.
    """
    params = parse(Params, load_params(path), str(path))
    check(params, str(path))
    check_voices(params, str(path))
    return params
