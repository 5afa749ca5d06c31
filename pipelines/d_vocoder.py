"""Stage d-vocoder: the vocoder that section ``vocoder`` names into ``checkpoints/vocoder``, if it is one to be trained.

Griffin-Lim has no weights: then the checkpoint holds the configuration alone, and takes a moment.
"""

from pathlib import Path

from muomni.checkpoint import make_card, save_checkpoint
from muomni.codec import Codec, CodecConfig
from muomni.config import scalar, section
from muomni.device import DeviceConfig
from muomni.griffin_lim import GriffinLim, GriffinLimConfig
from muomni.mel import MelConfig
from muomni.talker import TalkerConfig
from muomni.train.d_vocoder import VocoderStageConfig, VocoderTask
from muomni.vocoder import VocoderConfig
from pipelines.components import load_component
from pipelines.run import main
from pipelines.training import Output, new_curves, run_stage, values, write_curves

SPEECH, CODEC = Path("data/corpus/speech"), Path("checkpoints/codec")
OUT = Path("checkpoints/vocoder")
CORPORA = [Path("data/corpus/speech/manifest.json")]


def run() -> None:
    """Train and write the checkpoint, or write that there was nothing to train."""
    cfg, model, mel = (
        section(VocoderStageConfig, "d_vocoder"),
        section(VocoderConfig, "vocoder"),
        section(MelConfig, "mel"),
    )
    codec, talker = section(CodecConfig, "codec"), section(TalkerConfig, "talker")
    griffin_lim, device, seed = (
        section(GriffinLimConfig, "griffin_lim"),
        section(DeviceConfig, "device"),
        scalar("seed"),
    )
    config = {"mel": mel, "vocoder": model}
    if model.kind == "griffin_lim":
        made_of = values(config)
        card = make_card("vocoder", GriffinLim(mel, griffin_lim), data={}, params=made_of, metrics={}, seconds=0.0)
        card["revision"] = ""  # the same whatever the commit, so that nothing after it runs again
        save_checkpoint(OUT, {}, made_of, card)
        with new_curves("d-vocoder") as made:
            write_curves(made, [])
        print("d-vocoder: vocoder.kind is griffin_lim, which needs no training")
        return
    run_stage(
        "d-vocoder",
        lambda: VocoderTask(cfg, model, mel, load_component(Codec(codec), CODEC), talker.voices, SPEECH, seed),
        lambda task: [Output(OUT, task.vocoder, config)],
        cfg=cfg,
        seed=seed,
        device=device,
        params={"d_vocoder": cfg, **config, "codec": codec, "talker": talker, "device": device, "seed": seed},
        data=[SPEECH, CODEC],
        corpora=CORPORA,
    )


if __name__ == "__main__":
    main("d-vocoder", run)
