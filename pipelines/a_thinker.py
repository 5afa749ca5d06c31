"""Stage a-thinker: next-token training of the Thinker into ``checkpoints/thinker``."""

from pathlib import Path

from muomni.config import scalar, section
from muomni.device import DeviceConfig
from muomni.thinker import ThinkerConfig
from muomni.train.a_thinker import ThinkerStageConfig, ThinkerTask
from pipelines.run import main
from pipelines.training import Output, run_stage

TOKENS = Path("data/tokens")
TOKENIZER = Path("data/tokenizer/tokenizer.model")
OUT = Path("checkpoints/thinker")
CORPORA = [Path("data/corpus/text/manifest.json")]


def run() -> None:
    """Train and write the checkpoint."""
    cfg, model = section(ThinkerStageConfig, "a_thinker"), section(ThinkerConfig, "thinker")
    device, seed = section(DeviceConfig, "device"), scalar("seed")
    run_stage(
        "a-thinker",
        lambda: ThinkerTask(cfg, model, TOKENS, TOKENIZER, seed),
        lambda task: [Output(OUT, task.thinker, {"thinker": model})],
        cfg=cfg,
        seed=seed,
        device=device,
        params={"a_thinker": cfg, "thinker": model, "device": device, "seed": seed},
        data=[TOKENS, TOKENIZER],
        corpora=CORPORA,
    )


if __name__ == "__main__":
    main("a-thinker", run)
