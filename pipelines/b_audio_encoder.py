"""Stage b-audio-encoder: CTC training of the audio encoder into ``checkpoints/audio_encoder``."""

from pathlib import Path

from torch import nn

from muomni.audio_encoder import AudioEncoderConfig
from muomni.config import scalar, section
from muomni.device import DeviceConfig
from muomni.train.b_audio_encoder import AudioStageConfig, AudioTask
from pipelines.run import main
from pipelines.training import Output, run_stage

SHARDS = Path("data/shards/mels")
OUT = Path("checkpoints/audio_encoder")
CORPORA = [Path("data/corpus/speech/manifest.json")]


def run() -> None:
    """Train and write the encoder with its training-only CTC head, which aligns speech in stage D."""
    cfg, model = section(AudioStageConfig, "b_audio_encoder"), section(AudioEncoderConfig, "audio_encoder")
    device, seed = section(DeviceConfig, "device"), scalar("seed")
    run_stage(
        "b-audio-encoder",
        lambda: AudioTask(cfg, model, SHARDS, seed),
        lambda task: [Output(OUT, nn.ModuleDict(task.modules), {"audio_encoder": model})],
        cfg=cfg,
        seed=seed,
        device=device,
        params={"b_audio_encoder": cfg, "audio_encoder": model, "device": device, "seed": seed},
        data=[SHARDS],
        corpora=CORPORA,
    )


if __name__ == "__main__":
    main("b-audio-encoder", run)
