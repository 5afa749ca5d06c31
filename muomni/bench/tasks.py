"""Every training stage's task with untrained parts, for measuring what a step of it takes."""

from collections.abc import Callable
from pathlib import Path

from muomni.audio_encoder import AudioEncoder, CTCHead
from muomni.codec import Codec
from muomni.device import Device
from muomni.omni import Omni, OmniConfig
from muomni.params import Params
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train.a_thinker import ThinkerTask
from muomni.train.b_audio_encoder import AudioTask
from muomni.train.c_vision_encoder import VisionTask
from muomni.train.d_codec import CodecTask
from muomni.train.d_talker import TalkerTask
from muomni.train.d_vocoder import VocoderTask
from muomni.train.e_omni import OmniTask
from muomni.train.speaking import ALIGNMENTS
from muomni.train.task import Task, TrainConfig

# Stage, the section of its settings, and what its samples are called.
STAGES = {
    "a-thinker": ("a_thinker", "sequences"),
    "b-audio-encoder": ("b_audio_encoder", "recordings"),
    "c-vision-encoder": ("c_vision_encoder", "pictures"),
    "d-codec": ("d_codec", "segments"),
    "d-talker": ("d_talker", "recordings"),
    "d-vocoder": ("d_vocoder", "segments"),
    "e-omni": ("e_omni", "conversations"),
}

# Their losses look at the whole batch at once, so parts of it, one after another, are not the same training.
WHOLE = ("c-vision-encoder", "d-codec", "d-vocoder")


def used(params: Params) -> list[str]:
    """The stages that train something."""
    return [stage for stage in STAGES if stage != "d-vocoder" or params.vocoder.kind != "griffin_lim"]


def settings(params: Params, stage: str) -> TrainConfig:
    """A stage's section."""
    section: TrainConfig = getattr(params, STAGES[stage][0])
    return section


def with_settings(params: Params, stage: str, **changes: object) -> Params:
    """The same parameters with changes in a stage's section."""
    section = settings(params, stage).model_copy(update=changes)
    return params.model_copy(update={STAGES[stage][0]: section})


def omni_config(params: Params) -> OmniConfig:
    """The sections that shape the whole model."""
    return OmniConfig(**{name: getattr(params, name) for name in OmniConfig.model_fields})


def build(params: Params, stage: str, data: Path, device: Device) -> Task:
    """A stage's task on a data set, with weights as drawn at the start and not as earlier stages left them.

    Args:
        params: of the profile.
        stage: one of `STAGES`.
        data: as the data stages, or `muomni.bench.rehearsal`, wrote it.
        device: where parts that only serve are put.
    """
    p, seed = params, params.seed
    tokens, model = data / "tokens", data / "tokenizer" / "tokenizer.model"
    images, mels, conversations = (data / "shards" / name for name in ("images", "mels", "conversations"))

    def talker() -> TalkerTask:
        encoder, head = AudioEncoder(p.audio_encoder), CTCHead(p.audio_encoder)
        thinker, codec = Thinker(p.thinker), Codec(p.codec)
        quick = p.d_talker.model_copy(update={"align_rounds": 0})  # before the first step, not in it
        return TalkerTask(
            quick, p.talker, thinker, codec, encoder, head, Tokenizer(model), p.mel, p.griffin_lim, mels, seed, device
        )

    def omni() -> OmniTask:
        alignments = data / ALIGNMENTS
        if p.e_omni.talker_every and not alignments.is_file():
            talker().save_alignments(data)
        whole = Omni(omni_config(p))
        return OmniTask(p.e_omni, whole, alignments, Tokenizer(model), conversations, mels, tokens, seed, device)

    makers: dict[str, Callable[[], Task]] = {
        "a-thinker": lambda: ThinkerTask(p.a_thinker, p.thinker, tokens, model, seed),
        "b-audio-encoder": lambda: AudioTask(p.b_audio_encoder, p.audio_encoder, mels, seed),
        "c-vision-encoder": lambda: VisionTask(
            p.c_vision_encoder, p.vision_encoder, Thinker(p.thinker), Tokenizer(model), images, seed
        ),
        "d-codec": lambda: CodecTask(p.d_codec, p.codec, p.mel, p.griffin_lim, mels, seed),
        "d-talker": talker,
        "d-vocoder": lambda: VocoderTask(
            p.d_vocoder, p.vocoder, p.mel, Codec(p.codec), p.talker.voices, data / "corpus" / "speech", seed
        ),
        "e-omni": omni,
    }
    return makers[stage]()
