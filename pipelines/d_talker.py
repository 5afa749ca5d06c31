"""Stage d-talker: the Talker into ``checkpoints/talker``, on codes of d-codec aligned by b-audio-encoder."""

from pathlib import Path

from muomni.audio_encoder import AudioEncoder, AudioEncoderConfig, CTCHead
from muomni.codec import Codec, CodecConfig
from muomni.config import scalar, section
from muomni.device import DeviceConfig, pick_device
from muomni.griffin_lim import GriffinLimConfig
from muomni.mel import MelConfig
from muomni.talker import TalkerConfig
from muomni.thinker import Thinker, ThinkerConfig
from muomni.tokenizer import Tokenizer
from muomni.train.d_talker import TalkerStageConfig, TalkerTask
from muomni.train.speaking import ALIGNMENTS
from pipelines.components import load_component
from pipelines.run import main, state_dir
from pipelines.training import Output, run_stage

SHARDS = Path("data/shards/mels")
TOKENIZER = Path("data/tokenizer/tokenizer.model")
THINKER, CODEC, AUDIO = Path("checkpoints/thinker"), Path("checkpoints/codec"), Path("checkpoints/audio_encoder")
OUT = Path("checkpoints/talker")
CORPORA = [Path("data/corpus/speech/manifest.json")]


def run() -> None:
    """Train and write the checkpoint."""
    cfg, model = section(TalkerStageConfig, "d_talker"), section(TalkerConfig, "talker")
    thinker, codec = section(ThinkerConfig, "thinker"), section(CodecConfig, "codec")
    audio = section(AudioEncoderConfig, "audio_encoder")
    mel, griffin_lim = section(MelConfig, "mel"), section(GriffinLimConfig, "griffin_lim")
    device, seed = section(DeviceConfig, "device"), scalar("seed")

    def build() -> TalkerTask:
        return TalkerTask(
            cfg,
            model,
            load_component(Thinker(thinker), THINKER),
            load_component(Codec(codec), CODEC),
            load_component(AudioEncoder(audio), AUDIO, "audio_encoder."),
            load_component(CTCHead(audio), AUDIO, "ctc."),
            Tokenizer(TOKENIZER),
            mel,
            griffin_lim,
            SHARDS,
            seed,
            pick_device(device),
        )

    run_stage(
        "d-talker",
        build,
        lambda task: [
            Output(
                OUT,
                task.talker,
                {"talker": model, "thinker": thinker},
                {ALIGNMENTS: task.save_alignments(state_dir("d-talker"))},
            )
        ],
        cfg=cfg,
        seed=seed,
        device=device,
        params={
            "d_talker": cfg,
            "talker": model,
            "thinker": thinker,
            "codec": codec,
            "audio_encoder": audio,
            "mel": mel,
            "griffin_lim": griffin_lim,
            "device": device,
            "seed": seed,
        },
        data=[SHARDS, TOKENIZER, THINKER, CODEC, AUDIO],
        corpora=CORPORA,
    )


if __name__ == "__main__":
    main("d-talker", run)
