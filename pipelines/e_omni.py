"""Stage e-omni: mixed conversations for all parts together into ``checkpoints/omni``."""

from pathlib import Path

from muomni.audio_encoder import AudioEncoderConfig
from muomni.codec import CodecConfig
from muomni.config import scalar, section
from muomni.data.shard_format import INDEX
from muomni.device import DeviceConfig, pick_device
from muomni.griffin_lim import GriffinLimConfig
from muomni.mel import MelConfig
from muomni.omni import FusionConfig, Omni, OmniConfig
from muomni.talker import TalkerConfig
from muomni.thinker import ThinkerConfig
from muomni.tokenizer import MODEL_FILE, Tokenizer
from muomni.train.e_omni import OmniStageConfig, OmniTask
from muomni.train.speaking import ALIGNMENTS
from muomni.vision_encoder import VisionEncoderConfig
from muomni.vocoder import VocoderConfig
from pipelines.components import load_component
from pipelines.run import main
from pipelines.training import Output, run_stage

CONVERSATIONS, MELS = Path("data/shards/conversations"), Path("data/shards/mels")
TOKENS = Path("data/tokens")
TOKENIZER = Path("data/tokenizer/tokenizer.model")
THINKER, TALKER, CODEC = Path("checkpoints/thinker"), Path("checkpoints/talker"), Path("checkpoints/codec")
VOCODER = Path("checkpoints/vocoder")
AUDIO, VISION = Path("checkpoints/audio_encoder"), Path("checkpoints/vision_encoder")
OUT = Path("checkpoints/omni")
CORPORA = [*(Path(f"data/corpus/{name}/manifest.json") for name in ("images", "text", "speech")), CONVERSATIONS / INDEX]


def run() -> None:
    """Assemble the trained parts, train them together, and write the whole model with its tokenizer."""
    cfg = section(OmniStageConfig, "e_omni")
    device, seed = section(DeviceConfig, "device"), scalar("seed")
    model = OmniConfig(
        mel=section(MelConfig, "mel"),
        thinker=section(ThinkerConfig, "thinker"),
        vision_encoder=section(VisionEncoderConfig, "vision_encoder"),
        audio_encoder=section(AudioEncoderConfig, "audio_encoder"),
        codec=section(CodecConfig, "codec"),
        talker=section(TalkerConfig, "talker"),
        fusion=section(FusionConfig, "fusion"),
        vocoder=section(VocoderConfig, "vocoder"),
        griffin_lim=section(GriffinLimConfig, "griffin_lim"),
    )

    def build() -> OmniTask:
        omni = Omni(model)
        load_component(omni.thinker, THINKER)
        load_component(omni.talker, TALKER)
        load_component(omni.codec, CODEC)
        if model.vocoder.kind != "griffin_lim":
            load_component(omni.vocoder, VOCODER)
        load_component(omni.audio_encoder, AUDIO, "audio_encoder.")
        load_component(omni.vision_encoder, VISION, "vision_encoder.")
        chosen = pick_device(device)  # the frozen encoders compute their states there
        return OmniTask(cfg, omni, TALKER / ALIGNMENTS, Tokenizer(TOKENIZER), CONVERSATIONS, MELS, TOKENS, seed, chosen)

    sections = {name: getattr(model, name) for name in OmniConfig.model_fields}
    run_stage(
        "e-omni",
        build,
        lambda task: [Output(OUT, task.omni, sections, {MODEL_FILE: TOKENIZER})],
        cfg=cfg,
        seed=seed,
        device=device,
        params={"e_omni": cfg, **sections, "device": device, "seed": seed},
        data=[CONVERSATIONS, MELS, TOKENS, TOKENIZER, THINKER, TALKER, CODEC, VOCODER, AUDIO, VISION],
        corpora=CORPORA,
    )


if __name__ == "__main__":
    main("e-omni", run)
