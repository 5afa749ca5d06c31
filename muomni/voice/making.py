"""From recordings to a model with one more voice: its codec, its alignments, its rows of the Talker."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from muomni.checkpoint import make_card, save_checkpoint
from muomni.codec import Codec
from muomni.data.concepts import select_concepts
from muomni.data.splits import combination_split
from muomni.data.spoken import endless_sentences
from muomni.device import Device
from muomni.evaluate.similarity import SpeakerEncoder
from muomni.evaluate.speech import say
from muomni.omni import Omni, OmniConfig
from muomni.talker import Talker
from muomni.tokenizer import MODEL_FILE, Tokenizer
from muomni.train.loop import fit
from muomni.train.speaking import Utterance
from muomni.voice.converting import Converter, ConverterTask
from muomni.voice.growing import grown_codec, grown_talker, own_codec, own_talker
from muomni.voice.learning import OwnCodecTask, VoiceTask, shares_of
from muomni.voice.material import converted, examples_of, in_both_voices, in_codes, written
from muomni.voice.recordings import Spoken
from muomni.voice.saying import say_all
from muomni.voice.settings import codec_config, converter_config, voice_config

NAMES, SCENES = 240, 64  # concepts that sentences are about, as in profile tiny
NEAREST = 4  # sentences by which the old voice is found that is nearest
MORE, MORE_HELD = 1200, 24  # further sentences of the old voice that are converted, and those kept for validation


@dataclass(frozen=True)
class Job:
    """What a voice is made from.

    Attributes:
        model: the trained one, in eval mode on the device; it stays as it is.
        tokenizer: its.
        name: of the voice.
        like: number of the old voice that it begins as.
        steps: of the codec's training and of the Talker's.
        seed: of everything random.
        device: where it computes.
        folder: for the state of both trainings.
        fingerprint: of all that goes in: an interrupted training goes on if it is the same.
    """

    model: Omni
    tokenizer: Tokenizer
    name: str
    like: int
    steps: tuple[int, int]
    seed: int
    device: Device
    folder: Path
    fingerprint: str

    def fit(self, name: str, task: Any) -> dict[str, float]:
        """Train a task, from where it was interrupted if it was."""
        common: dict[str, Any] = {"seed": self.seed, "device": self.device, "fingerprint": self.fingerprint}
        return fit(task, task.cfg, state_dir=self.folder / name, name=name, samples=False, **common)


@dataclass(frozen=True)
class Made:
    """What came of it.

    Attributes:
        model: with the new voice as its last, in eval mode.
        own: the voice's codec alone, in eval mode.
        metrics: of both trainings.
    """

    model: Omni
    own: Codec
    metrics: dict[str, float]


def sentences(split: str, number: int, seed: int, without: Sequence[str] = ()) -> list[str]:
    """Sentences about pictured things, of combinations of a split, in an order that the seed draws."""
    rng = random.Random(f"voice:{split}:{seed}")
    made = endless_sentences(select_concepts(NAMES, SCENES), rng, lambda key: combination_split(key, 0))
    found = dict[str, None]()
    while len(found) < number:
        item = next(made)
        if item.split == split and item.text not in without:
            found[item.text] = None
    return list(found)


def learn(job: Job, spoken: Sequence[Spoken]) -> Made:
    """Teach a voice; of recordings of the split ``test`` nothing is learned.

    Raises:
        UserError: if too few recordings fit their texts.
    """
    model, used = job.model, [one for one in spoken if one.split != "test"]
    recorded = in_both_voices(model, job.tokenizer, job.like, job.seed, used)
    train, valid = (list(written(recorded, split)) for split in ("train", "valid"))
    own = own_codec(model.codec)
    coding = OwnCodecTask(codec_config(job.steps[0]), own, [mel for mel, _ in train], [mel for mel, _ in valid])
    figures = {"codec": job.fit("codec", coding)}
    own.eval()
    converting = ConverterTask(converter_config(job.steps[0]), *examples_of(recorded), job.seed)
    figures["converter"] = job.fit("converter", converting)
    said, more = more_speech(job, converting.converter.eval(), own, [one.text for one in spoken])
    shares = shares_of([u.codes for u in said], [u.codes for u in more], model.cfg.codec.codes, own.cfg.codes)
    talker = own_talker(model.talker, job.name, job.like, shares.to(job.device.device))
    learned, kept = [*in_codes(own, train), *more[MORE_HELD:]], [*in_codes(own, valid), *more[:MORE_HELD]]
    cfg = voice_config(job.steps[1])
    figures["talker"] = job.fit("talker", VoiceTask(cfg, talker, model.thinker, job.tokenizer, learned, kept, job.seed))
    metrics = {f"{part}_{key}": value for part, found in figures.items() for key, value in found.items()}
    return Made(joined(model, own, talker.eval(), job.device), own, metrics)


def more_speech(
    job: Job, converter: Converter, own: Codec, without: Sequence[str]
) -> tuple[list[Utterance], list[Utterance]]:
    """Sentences that nobody recorded, as the old voice says them, and converted to the new voice and its codes."""
    texts = sentences("train", MORE + MORE_HELD, job.seed, without)
    said = say_all(job.model, job.tokenizer, texts, job.like, job.seed + 1)
    return said, list(converted(job.model.codec, converter, own, said, len(job.model.cfg.talker.voices)))


def joined(model: Omni, own: Codec, talker: Talker, device: Device) -> Omni:
    """The model with the voice's codec and rows in its own, and everything else as it was."""
    codec, whole = grown_codec(model.codec, own), grown_talker(model.talker, talker)
    config = model.cfg.model_copy(update={"codec": codec.cfg, "talker": whole.cfg})
    made = Omni(OmniConfig.model_validate(config.model_dump()))
    state = dict(model.state_dict())
    for name, part in (("codec", codec), ("talker", whole)):
        state |= {f"{name}.{key}": tensor for key, tensor in part.state_dict().items()}
    made.load_state_dict(state)
    return made.to(device.device).eval()


def nearest(model: Omni, tokenizer: Tokenizer, person: Sequence[Tensor], encoder: SpeakerEncoder | None) -> int:
    """The number of the model's voice that sounds most like a person; the first if nobody can tell."""
    voices = range(len(model.cfg.talker.voices))
    if encoder is None or len(voices) == 1:
        return 0
    wanted, scores = encoder.voice(person), []
    for voice in voices:
        codes = [say(model.talker, model.thinker, tokenizer, t, 0, voice).codes for t in sentences("valid", NEAREST, 0)]
        waves = [model.vocoder(model.codec.decode(one[None])[0]).cpu() for one in codes]
        scores.append(float(encoder.voice(waves) @ wanted))
    return scores.index(max(scores))


def save(folder: Path, made: Made, old: dict[str, Any], about: dict[str, Any], tokenizer: Path) -> None:
    """Write the checkpoint.

    Args:
        folder: where to.
        made: the model.
        old: the card of the model that it began as.
        about: what the card has of the voice: ``data`` hashes, ``params`` settings, ``metrics`` figures.
        tokenizer: the model's folder, whose tokenizer is copied.
    """
    config = made.model.cfg.model_dump(mode="json")
    params = old["params"] | {"codec": config["codec"], "talker": config["talker"], "voice": about["params"]}
    seconds = made.metrics["codec_seconds"] + made.metrics["talker_seconds"]
    card = make_card(
        "omni",
        made.model,
        data=old["data"] | about["data"],
        params=params,
        metrics=old["metrics"] | made.metrics | about["metrics"],
        seconds=seconds,
        run=old["run"],
    )
    save_checkpoint(folder, made.model.state_dict(), config, card, {MODEL_FILE: tokenizer / MODEL_FILE})
