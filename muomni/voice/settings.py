"""How a further voice is learned. What it comes to is in docs/adding-a-voice.md."""

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


def codec_config(steps: int) -> CodecStageConfig:
    """The training of the voice's own codec."""
    return CodecStageConfig(
        steps=steps,
        batch_size=24,
        accumulate=1,
        lr=0.001,
        muon_lr=0.0,
        weight_decay=0.0,
        warmup=20,
        min_lr=0.02,
        clip=1.0,
        eval_every=max(1, min(200, steps // 3)),
        save_every=max(1, min(200, steps // 3)),
        checkpointing=False,
        max_bad_steps=10,
        speaker="",
        segment=48,
        commitment=0.25,
        valid_recordings=16,
    )


def converter_config(steps: int) -> ConverterConfig:
    """The training of what makes the person's speech of the old voice's."""
    return ConverterConfig(
        steps=steps,
        batch_size=8,
        accumulate=1,
        lr=0.002,
        muon_lr=0.0,
        weight_decay=0.1,
        warmup=20,
        min_lr=0.02,
        clip=1.0,
        eval_every=max(1, min(100, steps // 3)),
        save_every=max(1, min(100, steps // 3)),
        checkpointing=False,
        max_bad_steps=10,
        dropout=0.3,
    )


def voice_config(steps: int) -> VoiceConfig:
    """The training of the Talker."""
    return VoiceConfig(
        steps=steps,
        batch_size=16,
        accumulate=1,
        lr=0.02,
        muon_lr=0.0,
        weight_decay=0.01,
        warmup=20,
        min_lr=0.02,
        clip=1.0,
        eval_every=max(1, min(25, steps // 4)),
        save_every=max(1, min(50, steps // 4)),
        checkpointing=False,
        max_bad_steps=10,
        code_noise=0.15,
        state_dropout=0.5,
    )
