"""From recordings to a model with one more voice: its codec, its alignments, its rows of the Talker."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muomni.audio_encoder import CTCHead
from muomni.checkpoint import make_card, save_checkpoint
from muomni.codec import Codec
from muomni.data.concepts import select_concepts
from muomni.data.splits import combination_split
from muomni.data.spoken import endless_sentences
from muomni.device import Device
from muomni.errors import UserError
from muomni.evaluate.similarity import SpeakerEncoder
from muomni.evaluate.speech import say
from muomni.omni import Omni, OmniConfig
from muomni.talker import Talker
from muomni.tokenizer import MODEL_FILE, Tokenizer
from muomni.train.loop import fit
from muomni.train.speaking import Utterance, spelled
from muomni.voice.aligning import placed
from muomni.voice.growing import grown_codec, grown_talker, own_codec, own_talker
from muomni.voice.learning import OwnCodecTask, VoiceTask, shares_of
from muomni.voice.recordings import Spoken
from muomni.voice.settings import LEAST_HELD, codec_config, voice_config
from muomni.voice.variants import variants

NAMES, SCENES = 240, 64  # concepts that sentences are about, as in profile tiny
NEAREST = 4  # sentences by which the old voice is found that is nearest
OWN_SPEECH = 120  # sentences that the model says itself where alignments have to be learned
LED = 60  # recordings that show which old codes go with the new ones


@dataclass(frozen=True)
class Job:
    """What a voice is made from.

    Attributes:
        model: the trained one, in eval mode on the device; it stays as it is.
        tokenizer: its.
        head: that spells what its audio encoder hears, if there is one.
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
    head: CTCHead | None
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
    model = job.model
    train, valid = aligned(job, [one for one in spoken if one.split != "test"])
    own = own_codec(model.codec)
    coding = OwnCodecTask(codec_config(job.steps[0]), own, [mel for mel, _ in train], [mel for mel, _ in valid])
    metrics = {f"codec_{key}": value for key, value in job.fit("codec", coding).items()}
    own.eval()
    learned, kept = (list(in_codes(own, some)) for some in (train, valid))
    plain = learned[:: max(1, len(learned) // LED)][:LED]
    shares = shares_of(model.talker, model.thinker, job.tokenizer, plain, job.like, own.cfg.codes)
    talker = own_talker(model.talker, job.name, job.like, shares)
    cfg = voice_config(job.steps[1])
    speaking = VoiceTask(cfg, talker, model.thinker, job.tokenizer, learned, kept, job.seed)
    metrics |= {f"talker_{key}": value for key, value in job.fit("talker", speaking).items()}
    return Made(joined(model, own, talker.eval(), job.device), own, metrics)


def aligned(
    job: Job, spoken: Sequence[Spoken]
) -> tuple[list[tuple[Tensor, Utterance]], list[tuple[Tensor, Utterance]]]:
    """Recordings with the character of each frame, still without codes.

    Returns:
        Those to learn from, each in several variants, and those to validate with: log-mels at 50 Hz and utterances.

    Raises:
        UserError: if most of the recordings are too short for their texts.
    """
    spellings = [spelled(one.text, job.tokenizer) for one in spoken]

    def own_speech() -> list[tuple[str, Tensor]]:
        model, voices = job.model, len(job.model.cfg.talker.voices)
        return [
            (text, say(model.talker, model.thinker, job.tokenizer, text, n, n % voices).codes.cpu())
            for n, text in enumerate(sentences("train", OWN_SPEECH, job.seed))
        ]

    mels, texts = [one.mel for one in spoken], [one.text for one in spoken]
    letters = [characters for _, characters, _ in spellings]
    ways = placed(job.model, mels, texts, letters, job.head, own_speech, job.seed, job.device.device)
    train, valid = list[tuple[Tensor, Utterance]](), list[tuple[Tensor, Utterance]]()
    voice, nothing = len(job.model.cfg.talker.voices), torch.zeros(0, job.model.cfg.codec.codebooks, dtype=torch.int64)
    for number, (one, spelling, way) in enumerate(zip(spoken, spellings, ways, strict=True)):
        if way is None:
            continue
        if one.split == "valid":
            valid.append((one.mel[::2], Utterance(one.text, *spelling, nothing, way, voice, number)))
            continue
        for mel, moved in variants(one.mel, way):
            train.append((mel, Utterance(one.text, *spelling, nothing, moved, voice, number)))
    if len(valid) < LEAST_HELD // 2 or len({u.number for _, u in train}) < LEAST_HELD:
        raise UserError("most recordings are too short for their texts; are these the texts of these recordings?")
    return train, valid


@torch.no_grad()
def in_codes(own: Codec, some: Sequence[tuple[Tensor, Utterance]]) -> Iterator[Utterance]:
    """Utterances with the voice's codes."""
    device = own.encoder.weight.device
    for mel, u in some:
        codes = own.encode(mel.to(device)).cpu()
        yield Utterance(u.text, u.ids, u.characters, u.tokens, codes, u.position, u.voice, u.number)


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
