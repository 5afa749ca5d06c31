"""How a further voice is learned. What it comes to is in docs/adding-a-voice.md."""

from typing import Any

from pydantic import Field

from muomni.train.d_codec import CodecStageConfig
from muomni.train.loop import TrainConfig
from muomni.voice.converting import ConverterConfig

LEAST, LEAST_SECONDS = 20, 40.0  # recordings, and seconds of them all
ENOUGH = 50  # recordings from which on docs/adding-a-voice.md has figures
MOST_SECONDS = 15.0  # of a recording
LEAST_HELD, MOST_HELD = 4, 20  # recordings for validation, and as many to judge by


class VoiceConfig(TrainConfig):
    """The Talker's training."""

    code_noise: float = Field(ge=0, lt=1, description="share of the previous codes replaced at random")
    state_dropout: float = Field(ge=0, le=1, description="share of the utterances without the Thinker's states")


def common(steps: int, evaluate: int, save: int) -> dict[str, Any]:
    """What the trainings have in common: of so many steps, evaluated and saved after so many of them."""
    return {
        "steps": steps,
        "accumulate": 1,
        "muon_lr": 0.0,
        "warmup": 20,
        "min_lr": 0.02,
        "clip": 1.0,
        "eval_every": max(1, evaluate),
        "save_every": max(1, save),
        "checkpointing": False,
        "max_bad_steps": 10,
    }


def codec_config(steps: int) -> CodecStageConfig:
    """The training of the voice's own codec."""
    often = min(200, steps // 3)
    return CodecStageConfig(
        batch_size=24,
        lr=0.001,
        weight_decay=0.0,
        speaker="",
        segment=48,
        commitment=0.25,
        valid_recordings=16,
        **common(steps, often, often),
    )


def converter_config(steps: int) -> ConverterConfig:
    """The training of what makes the person's speech of the old voice's."""
    often = min(100, steps // 3)
    return ConverterConfig(batch_size=8, lr=0.002, weight_decay=0.1, dropout=0.3, **common(steps, often, often))


def voice_config(steps: int) -> VoiceConfig:
    """The training of the Talker."""
    return VoiceConfig(
        batch_size=16,
        lr=0.02,
        weight_decay=0.01,
        code_noise=0.15,
        state_dropout=0.5,
        **common(steps, min(25, steps // 4), min(50, steps // 4)),
    )
