"""Stage D, last part, where the configuration asks for it: a vocoder learns to turn log-mel frames into sound."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor, nn

from muomni.codec import Codec
from muomni.data.utterances import read_recording, read_utterances
from muomni.errors import UserError
from muomni.istft_vocoder import ISTFTVocoder
from muomni.media import load_audio, save_audio
from muomni.mel import LogMel, MelConfig, log_mel
from muomni.spectra import SpectralDistance
from muomni.train.loop import TrainConfig
from muomni.vocoder import VocoderConfig

CONTEXT = 4  # frames on either side of a segment that are heard but not scored


class VocoderStageConfig(TrainConfig):
    """Section ``d_vocoder``."""

    recordings: int = Field(ge=1, description="recordings to learn from at most; an hour of speech is about 900")
    segment: int = Field(ge=8, le=1000, description="frames of a training segment, 50 a second")
    coded: float = Field(ge=0, le=1, description="share of the segments whose frames come from the codec")
    valid_recordings: int = Field(ge=1, description="recordings made again at each evaluation")


@dataclass
class Sound:
    """A recording: ``wave`` float32 ``[T * hop]``, its log-mel and what the codec leaves of it, float16 ``[T, M]``."""

    wave: Tensor
    mel: Tensor
    coded: Tensor


def read_sounds(
    corpus: Path, split: str, voices: Sequence[str], most: int, codec: Codec, mel: MelConfig, seed: int
) -> list[Sound]:
    """Recordings of voices, as many of each, the same ones each time.

    Args:
        corpus: folder of the speech corpus.
        split: train, valid or test.
        voices: speakers as its manifest names them.
        most: recordings of all voices together, rounded up to as many of each.
        codec: trained, on the CPU; for what it leaves of each log-mel.
        mel: how frames are made.
        seed: of which recordings.

    Raises:
        UserError: if a voice has none, or a file cannot be read.
    """
    rows = [row for row in read_utterances(corpus) if row["split"] == split]
    rng = torch.Generator().manual_seed(seed)
    sounds = []
    for voice in voices:
        own = [row for row in rows if row["speaker"] == voice]
        if not own:
            raise UserError(f"talker.voices: no recording of '{voice}' in the {split} split of {corpus}")
        for number in torch.randperm(len(own), generator=rng)[: -(-most // len(voices))].tolist():
            wave = torch.from_numpy(load_audio(read_recording(corpus, own[number]), mel.sample_rate))
            frames = log_mel(wave, mel)[::2]  # [T, M] at 50 Hz
            coded = codec.decode(codec.encode(frames)[None])[0]
            wave = torch.nn.functional.pad(wave, (0, len(frames) * 2 * mel.hop_length - len(wave)))
            sounds.append(Sound(wave, frames.half(), coded.half()))
    return sounds


class VocoderTask:
    """Log-mel segments, recorded or coded, to sound."""

    best_by = ""

    def __init__(
        self,
        cfg: VocoderStageConfig,
        model: VocoderConfig,
        mel: MelConfig,
        codec: Codec,
        voices: Sequence[str],
        corpus: Path,
        seed: int,
    ) -> None:
        self.cfg, self.mel, self.checkpointing = cfg, mel, cfg.checkpointing
        self.vocoder = ISTFTVocoder(mel, model)
        self.modules = {"vocoder": self.vocoder}
        self.front, self.distance = LogMel(mel), SpectralDistance()
        self.frozen: dict[str, nn.Module] = {"mel": self.front, "distance": self.distance}
        codec.eval()
        self.train = read_sounds(corpus, "train", voices, cfg.recordings, codec, mel, seed)
        self.valid = read_sounds(corpus, "valid", voices, cfg.valid_recordings, codec, mel, seed)
        frames = torch.cat([sound.mel for sound in self.train]).float()
        self.vocoder.standardise.measure(frames)

    def batch(self, step: int, micro: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Frames with their context ``[B, T + 2 CONTEXT, M]``, and the sound of those within ``[B, T * hop]``."""
        size, hop = self.cfg.segment, self.vocoder.hop
        picks = torch.randint(len(self.train), (self.cfg.batch_size,), generator=rng).tolist()
        mels = torch.full((len(picks), size + 2 * CONTEXT, self.mel.n_mels), torch.tensor(self.mel.floor).log().item())
        waves = torch.zeros(len(picks), size * hop)
        for row, pick in enumerate(picks):
            sound = self.train[pick]
            frames = sound.coded if float(torch.rand((), generator=rng)) < self.cfg.coded else sound.mel
            start = int(torch.randint(max(1, len(frames) - size + 1), (), generator=rng))
            first = max(0, start - CONTEXT)
            part = frames[first : start + size + CONTEXT].float()
            at = first - start + CONTEXT
            mels[row, at : at + len(part)] = part
            wave = sound.wave[start * hop : (start + size) * hop]
            waves[row, : len(wave)] = wave
        return mels, waves

    def loss(self, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Differences of the spectra and of the log-mel, in nats."""
        mels, waves = batch
        edge = CONTEXT * self.vocoder.hop
        made = self.vocoder.waves(mels, self.checkpointing)[:, edge:-edge]
        with torch.autocast(made.device.type, enabled=False):
            spectral = self.distance(made, waves)
            mel = (self.front(made) - self.front(waves)).abs().mean()
        return spectral + mel, {"spectral": spectral.detach(), "mel_error": mel.detach()}

    def evaluate(self) -> dict[str, float]:
        """Mean log-mel error in nats and spectral distance, from frames as recorded and as the codec leaves them."""
        device = self.vocoder.nothing.device
        scores: dict[str, float] = {}
        for kind in ("mel", "coded"):
            for sound in self.valid:
                wave = sound.wave.to(device)
                made = self.vocoder(getattr(sound, kind))
                error = (self.front(made) - self.front(wave)).abs().mean()
                found = {"mel_error": error, "spectral": self.distance(made[None], wave[None])}
                for name, value in found.items():
                    key = name if kind == "mel" else f"coded_{name}"
                    scores[key] = scores.get(key, 0.0) + float(value) / len(self.valid)
        return scores

    def samples(self, step: int, folder: Path) -> None:
        """The first held-out recordings, from their frames and from the codec's."""
        for number, sound in enumerate(self.valid[:2]):
            for name, frames in (("mel", sound.mel), ("coded", sound.coded)):
                save_audio(folder / f"{name}-{number}.wav", self.vocoder(frames).cpu(), self.mel.sample_rate)
