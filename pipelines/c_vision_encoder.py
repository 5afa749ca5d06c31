"""Stage c-vision-encoder: contrastive training of the vision encoder into ``checkpoints/vision_encoder``."""

from pathlib import Path

from torch import nn

from muomni.config import scalar, section
from muomni.device import DeviceConfig
from muomni.thinker import Thinker, ThinkerConfig
from muomni.tokenizer import Tokenizer
from muomni.train.c_vision_encoder import VisionStageConfig, VisionTask
from muomni.vision_encoder import VisionEncoderConfig
from pipelines.components import load_component
from pipelines.run import main
from pipelines.training import Output, run_stage

SHARDS = Path("data/shards/images")
TOKENIZER = Path("data/tokenizer/tokenizer.model")
THINKER = Path("checkpoints/thinker")
OUT = Path("checkpoints/vision_encoder")
CORPORA = [Path("data/corpus/images/manifest.json")]


def run() -> None:
    """Train and write the encoder with its training-only heads, which evaluation uses."""
    cfg, model = section(VisionStageConfig, "c_vision_encoder"), section(VisionEncoderConfig, "vision_encoder")
    thinker = section(ThinkerConfig, "thinker")
    device, seed = section(DeviceConfig, "device"), scalar("seed")
    run_stage(
        "c-vision-encoder",
        lambda: VisionTask(cfg, model, load_component(Thinker(thinker), THINKER), Tokenizer(TOKENIZER), SHARDS, seed),
        lambda task: [Output(OUT, nn.ModuleDict(task.modules), {"vision_encoder": model})],
        cfg=cfg,
        seed=seed,
        device=device,
        params={
            "c_vision_encoder": cfg,
            "vision_encoder": model,
            "thinker": thinker,
            "device": device,
            "seed": seed,
        },
        data=[SHARDS, TOKENIZER, THINKER],
        corpora=CORPORA,
    )


if __name__ == "__main__":
    main("c-vision-encoder", run)
