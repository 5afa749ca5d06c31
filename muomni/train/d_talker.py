"""Stage D, second part: the Talker learns to say texts in codes, from recordings aligned by stage B."""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from muomni.audio_encoder import AudioEncoder, CTCHead
from muomni.codec import Codec
from muomni.data.batches import Buckets, pad
from muomni.data.speech import load_recordings
from muomni.device import Device
from muomni.errors import UserError
from muomni.griffin_lim import GriffinLim, GriffinLimConfig
from muomni.media import save_audio
from muomni.mel import MelConfig
from muomni.realignment import realign
from muomni.talker import Talker, TalkerConfig
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer
from muomni.train.loop import TrainConfig
from muomni.train.speaking import (
    ALIGNMENTS,
    Utterance,
    collate_utterances,
    gather_states,
    prepare_utterances,
    save_alignments,
    spelled,
    split_utterances,
    talker_loss,
)


class TalkerStageConfig(TrainConfig):
    """Section ``d_talker``."""

    align_rounds: int = Field(
        ge=0, le=20, description="how often the alignments are made finer; 0 leaves them as the CTC head has them"
    )
    align_steps: int = Field(ge=1, description="steps of the classifier of frames in each of these rounds")
    code_noise: float = Field(ge=0, lt=1, description="share of the previous codes replaced at random in training")
    state_dropout: float = Field(
        ge=0, le=1, description="share of the utterances trained without the Thinker's states, so that both are used"
    )
    valid_recordings: int = Field(ge=1, description="recordings scored at each evaluation")


class TalkerTask:
    """Text to codes."""

    best_by = ""

    def __init__(
        self,
        cfg: TalkerStageConfig,
        model: TalkerConfig,
        thinker: Thinker,
        codec: Codec,
        encoder: AudioEncoder,
        head: CTCHead,
        tokenizer: Tokenizer,
        mel: MelConfig,
        griffin_lim: GriffinLimConfig,
        shards: Path,
        seed: int,
        device: Device,
    ) -> None:
        self.cfg, self.tokenizer, self.mel, self.checkpointing = cfg, tokenizer, mel, cfg.checkpointing
        self.thinker, self.codec = thinker, codec
        self.talker = Talker(model, thinker.cfg.d_model)
        self.modules = {"talker": self.talker}
        self.frozen = {"thinker": thinker, "codec": codec}
        for module in (encoder, head, codec):
            module.to(device.device).eval()
        parts, mels = {}, list[Tensor]()
        for split in ("train", "valid"):
            recordings = load_recordings(shards, split, model.voices)
            if split == "valid":
                recordings = recordings[: cfg.valid_recordings]
            parts[split], left_out = prepare_utterances(
                recordings, model.voices, tokenizer, codec, encoder, head, device
            )
            silent = set(model.voices if split == "train" else ()) - {model.voices[u.voice] for u in parts[split]}
            if silent or not parts[split]:
                names = ", ".join(sorted(silent or model.voices))
                raise UserError(f"talker.voices: no usable recording of {names} in the {split} split")
            mels += [recordings[u.number].mel[::2] for u in parts[split]]
            if split == "train":
                self.recordings, self.left_out = recordings, left_out
        self.train, self.valid = parts["train"], parts["valid"]
        self.realign(mels, seed, device.device)
        self.vocoder = GriffinLim(mel, griffin_lim)
        self.buckets = Buckets([len(u.codes) for u in self.train], cfg.batch_size, seed)

    def realign(self, mels: Sequence[Tensor], seed: int, device: torch.device) -> None:
        """Make the alignments of training and validation finer, given their log-mels ``[T, M]`` at 50 Hz."""
        if not self.cfg.align_rounds:
            return
        both = [*self.train, *self.valid]
        found = realign(
            mels,
            [u.characters for u in both],
            [u.position for u in both],
            len(self.train),
            self.cfg.align_rounds,
            self.cfg.align_steps,
            seed,
            device,
        )
        for u, position in zip(both, found, strict=True):
            u.position = position

    def save_alignments(self, folder: Path) -> Path:
        """Write the training recordings' codes and alignment, which stage E learns from too; returns the file."""
        save_alignments(folder / ALIGNMENTS, self.train, self.recordings)
        return folder / ALIGNMENTS

    def collate(self, rows: Sequence[Utterance], noise: float, rng: torch.Generator) -> dict[str, Tensor]:
        """A batch with the token ids that the Thinker reads."""
        batch = collate_utterances(rows, self.talker.cfg.codes, noise, rng)
        ids = [[self.tokenizer.assistant, *u.ids, self.tokenizer.end] for u in rows]
        return batch | {"ids": pad([torch.tensor(i) for i in ids], self.tokenizer.pad)}

    def batch(self, step: int, micro: int, rng: torch.Generator) -> dict[str, Tensor]:
        """Utterances of similar length."""
        rows = [self.train[i] for i in self.buckets.at(self.cfg.number(step, micro))]
        batch = self.collate(rows, self.cfg.code_noise, rng)
        keep = torch.rand(len(rows), generator=rng) >= self.cfg.state_dropout
        return batch | {"keep": keep.float()}

    @torch.no_grad()
    def states(self, batch: dict[str, Tensor]) -> Tensor:
        """The Thinker's states of each character's token ``[B, N, Dt]``."""
        h = self.thinker(self.thinker.embed(batch["ids"]))
        return gather_states(h, 1, batch["tokens"])  # after <|assistant|>

    def loss(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Codes and decisions to go on."""
        states = self.states(batch) * batch["keep"][:, None, None]
        return talker_loss(self.talker, batch, states, self.checkpointing)

    def split(self, batch: dict[str, Tensor], parts: int) -> list[tuple[dict[str, Tensor], float]]:
        """Fewer utterances at a time."""
        return split_utterances(batch, parts)

    def evaluate(self) -> dict[str, float]:
        """Loss on held-out utterances."""
        device = self.talker.advance.weight.device
        total: dict[str, float] = {}
        count = 0
        for at in range(0, len(self.valid), 16):
            rows = self.valid[at : at + 16]
            batch = self.collate(rows, 0.0, torch.Generator())
            batch = {key: value.to(device) for key, value in batch.items()}
            loss, values = talker_loss(self.talker, batch, self.states(batch))
            for key, value in {"loss": loss, **values}.items():
                total[key] = total.get(key, 0.0) + float(value) * len(rows)
            count += len(rows)
        scores = {key: value / count for key, value in total.items() if key != "padding"}
        return scores | {"recordings_left_out": float(self.left_out)}

    def speak(self, text: str, seed: int = 0, voice: int = 0) -> Tensor:
        """A text as a waveform ``[samples]``, in a voice."""
        device = self.talker.advance.weight.device
        rows = [self.make(text)]
        batch = {key: value.to(device) for key, value in self.collate(rows, 0.0, torch.Generator()).items()}
        rng = torch.Generator().manual_seed(seed)
        codes, _ = self.talker.generate(batch["characters"][0], self.states(batch)[0], rng, voice=voice)
        return self.vocoder(self.codec.decode(codes[None])[0].cpu().float())

    def make(self, text: str) -> Utterance:
        """A text without a recording."""
        ids, characters, tokens = spelled(text, self.tokenizer)
        none = torch.zeros(1, self.talker.cfg.codebooks, dtype=torch.int64)
        return Utterance(text, ids, characters, tokens, none, torch.zeros(1, dtype=torch.int64), 0, -1)

    def samples(self, step: int, folder: Path) -> None:
        """The first held-out sentences, spoken in the default voice, and one in each further voice."""
        voices = self.talker.cfg.voices
        said = [(self.valid[n % len(self.valid)].text, max(0, n - 1)) for n in range(1 + len(voices))]
        for number, (sentence, voice) in enumerate(said):
            save_audio(folder / f"said-{number}.wav", self.speak(sentence, voice=voice), self.mel.sample_rate)
        text = "".join(f"said-{n}.wav\t{voices[voice]}\t{sentence}\n" for n, (sentence, voice) in enumerate(said))
        (folder / "texts.tsv").write_text(text, encoding="utf-8")
