"""Stage d-codec: the speech codec into ``checkpoints/codec``."""

from pathlib import Path

from muomni.codec import CodecConfig
from muomni.config import scalar, section
from muomni.device import DeviceConfig
from muomni.griffin_lim import GriffinLimConfig
from muomni.mel import MelConfig
from muomni.train.d_codec import CodecStageConfig, CodecTask
from pipelines.run import main
from pipelines.training import Output, run_stage

SHARDS = Path("data/shards/mels")
OUT = Path("checkpoints/codec")
CORPORA = [Path("data/corpus/speech/manifest.json")]


def run() -> None:
    """Train and write the checkpoint."""
    cfg, model = section(CodecStageConfig, "d_codec"), section(CodecConfig, "codec")
    mel, griffin_lim = section(MelConfig, "mel"), section(GriffinLimConfig, "griffin_lim")
    device, seed = section(DeviceConfig, "device"), scalar("seed")
    run_stage(
        "d-codec",
        lambda: CodecTask(cfg, model, mel, griffin_lim, SHARDS, seed),
        lambda task: [Output(OUT, task.codec, {"codec": model})],
        cfg=cfg,
        seed=seed,
        device=device,
        params={"d_codec": cfg, "codec": model, "mel": mel, "griffin_lim": griffin_lim, "device": device, "seed": seed},
        data=[SHARDS],
        corpora=CORPORA,
    )


if __name__ == "__main__":
    main("d-codec", run)
