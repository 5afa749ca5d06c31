"""Teaching the Talker: examples with their alignment, batches, losses. Shared by stage D and stage E."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from muomni.alignment import align
from muomni.audio_encoder import AudioEncoder, CTCHead
from muomni.codec import Codec
from muomni.data.batches import pad
from muomni.data.speech import Recording, collate_mels
from muomni.device import Device
from muomni.errors import UserError
from muomni.talker import PADDING, Talker, spell
from muomni.tensor_files import write_tensors
from muomni.tokenizer import Tokenizer
from muomni.train.split import longest, runs, share

ALIGNMENTS = "alignments.safetensors"  # beside the Talker's weights
FRAMES = ("codes", "previous", "position", "stay", "mask", "advance")  # of a batch of utterances, ``[B, T, ...]``


@dataclass
class Utterance:
    """A recording as the Talker learns it.

    Attributes:
        text: what is said.
        ids: its tokens ``[n]``.
        characters: ``[N]`` int64, and ``tokens`` ``[N]``, which token spells each.
        codes: ``[T, Q]`` int64.
        position: ``[T]`` int64, the character of each frame.
        voice: who says it, index into the Talker's voices.
        number: of the recording, in the order of its split.
    """

    text: str
    ids: list[int]
    characters: Tensor
    tokens: Tensor
    codes: Tensor
    position: Tensor
    voice: int
    number: int


def spelled(text: str, tokenizer: Tokenizer) -> tuple[list[int], Tensor, Tensor]:
    """A text's token ids, its characters ``[N]`` int64, and which token spells each ``[N]`` int64."""
    ids = tokenizer.encode(text)
    characters, tokens = spell(tokenizer.decode(ids), tokenizer.char_spans(ids))
    return ids, torch.tensor(characters), torch.tensor(tokens)


@torch.no_grad()
def prepare_utterances(
    recordings: Sequence[Recording],
    voices: Sequence[str],
    tokenizer: Tokenizer,
    codec: Codec,
    encoder: AudioEncoder,
    head: CTCHead,
    device: Device,
) -> tuple[list[Utterance], int]:
    """Code and align recordings.

    Args:
        recordings: with their texts, of speakers among the voices.
        voices: the Talker's.
        tokenizer: of the texts.
        codec: in eval mode on the device.
        encoder: in eval mode on the device.
        head: in eval mode on the device.
        device: where they compute.

    Returns:
        The utterances, and how many recordings were too short for their text and are left out.
    """
    utterances: list[Utterance] = []
    for at in range(0, len(recordings), 32):
        part = recordings[at : at + 32]
        mels, lengths = collate_mels([r.mel for r in part])
        with device.autocast():
            states, state_lengths = encoder(mels.to(device.device), lengths.to(device.device))
            log_probs = head(states).cpu()  # [B, S, C + 1]
        for row, recording in enumerate(part):
            ids, characters, tokens = spelled(recording.text, tokenizer)
            codes = codec.encode(recording.mel[::2].float().to(device.device)).cpu()  # [T, Q]
            slots = int(state_lengths[row]) * head.slots
            position = align(log_probs[row, :slots], characters.tolist(), len(codes))
            if position is not None:
                voice = voices.index(recording.speaker)
                utterances.append(Utterance(recording.text, ids, characters, tokens, codes, position, voice, at + row))
    return utterances, len(recordings) - len(utterances)


def texts_digest(texts: Sequence[str]) -> str:
    """A hash of texts in their order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def save_alignments(path: Path, utterances: Sequence[Utterance], recordings: Sequence[Recording]) -> None:
    """Write what `prepare_utterances` found out: int32 ``<number>/codes`` and ``<number>/position``."""
    tensors: dict[str, Tensor] = {}
    for u in utterances:
        tensors |= {f"{u.number}/codes": u.codes.to(torch.int32), f"{u.number}/position": u.position.to(torch.int32)}
    write_tensors(path, tensors, {"texts": texts_digest([r.text for r in recordings])})


def aligned_utterances(
    path: Path, recordings: Sequence[Recording], voices: Sequence[str], tokenizer: Tokenizer
) -> tuple[list[Utterance], int]:
    """What `prepare_utterances` returned, from what `save_alignments` wrote.

    Args:
        path: the file.
        recordings: the same as then, in the same order.
        voices: the Talker's.
        tokenizer: of the texts, the same as then.

    Raises:
        UserError: if the file is missing or damaged, or made of other recordings.
    """
    again = "run `dvc repro --force d-talker`"
    try:
        with safe_open(path, "pt") as file:
            made_of = (file.metadata() or {}).get("texts")
            tensors = {name: file.get_tensor(name).long() for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: no alignments there ({error}); {again}") from None
    if made_of != texts_digest([r.text for r in recordings]):
        raise UserError(f"{path}: made of other recordings than these; {again}")
    utterances = []
    for number, recording in enumerate(recordings):
        if f"{number}/codes" in tensors:
            ids, characters, tokens = spelled(recording.text, tokenizer)
            codes, position = (tensors[f"{number}/{name}"] for name in ("codes", "position"))
            voice = voices.index(recording.speaker)
            utterances.append(Utterance(recording.text, ids, characters, tokens, codes, position, voice, number))
    return utterances, len(recordings) - len(utterances)


def time_on_character(position: Tensor) -> Tensor:
    """Frames since the current character began, ``[T]`` for ``[T]``."""
    frames = torch.arange(len(position))
    new = torch.ones(len(position), dtype=torch.bool)
    new[1:] = position[1:] != position[:-1]
    return frames - torch.where(new, frames, 0).cummax(0).values


def collate_utterances(rows: Sequence[Utterance], codes: int, noise: float, rng: torch.Generator) -> dict[str, Tensor]:
    """A padded batch for `talker_loss`.

    Args:
        rows: B utterances.
        codes: codes of a codebook; this number itself stands for "no frame yet".
        noise: share of the previous codes replaced at random, so that the Talker does not rely on its own past alone.
        rng: source of the noise.

    Returns:
        ``characters`` and ``tokens`` ``[B, N]``; ``voice`` ``[B]``; ``codes`` and ``previous`` ``[B, T, Q]``;
        ``position``, ``stay``, ``mask`` and ``advance`` ``[B, T]``.
    """
    target = pad([u.codes for u in rows])
    mask = pad([torch.ones(len(u.codes), dtype=torch.bool) for u in rows])
    previous = torch.cat((torch.full_like(target[:, :1], codes), target[:, :-1]), dim=1)
    if noise:
        hit = torch.rand(previous.shape, generator=rng) < noise
        previous = torch.where(hit, torch.randint(codes, previous.shape, generator=rng), previous)
    advance = []
    for u in rows:
        # The frame after a character's last belongs to the next one; after the last of all, speech ends.
        step = torch.ones(len(u.position))
        step[:-1] = (u.position[1:] != u.position[:-1]).float()
        advance.append(step)
    return {
        "characters": pad([u.characters for u in rows], PADDING),
        "tokens": pad([u.tokens for u in rows]),
        "voice": torch.tensor([u.voice for u in rows]),
        "codes": target,
        "previous": previous,
        "position": pad([u.position for u in rows]),
        "stay": pad([time_on_character(u.position) for u in rows]),
        "mask": mask,
        "advance": pad(advance),
    }


def talker_loss(
    talker: Talker, batch: dict[str, Tensor], states: Tensor, checkpointing: bool = False
) -> tuple[Tensor, dict[str, float | Tensor]]:
    """Cross-entropy of every codebook plus that of the decisions to go on.

    Args:
        talker: the model.
        batch: from `collate_utterances`.
        states: the Thinker's states of each character's token, ``[B, N, Dt]``.
        checkpointing: recompute each layer in the backward pass instead of storing it.
    """
    character_states = talker.condition(batch["characters"], states, batch["voice"])
    h = talker(batch["previous"], character_states, batch["position"], batch["stay"], checkpointing=checkpointing)
    h = h[batch["mask"]]  # [F, D]
    wanted = batch["codes"][batch["mask"]]
    losses = [F.cross_entropy(logits.float(), wanted[:, q]) for q, logits in enumerate(talker.code_logits(h, wanted))]
    going = talker.advance(h)[:, 0].float()
    advance = F.binary_cross_entropy_with_logits(going, batch["advance"][batch["mask"]])
    values: dict[str, float | Tensor] = {f"code_loss_{q}": loss.detach() for q, loss in enumerate(losses)}
    values |= {"advance_loss": advance.detach(), "padding": 1 - batch["mask"].float().mean()}
    return torch.stack(losses).sum() + advance, values


def split_utterances(batch: dict[str, Tensor], parts: int) -> list[tuple[dict[str, Tensor], float]]:
    """A batch of `collate_utterances`, and what else it has by row, in parts: `talker_loss` is a mean over frames."""
    found = []
    for rows in runs(len(batch["mask"]), parts):
        part = {name: tensor[rows] for name, tensor in batch.items()}
        frames = longest(part["mask"])
        part |= {name: part[name][:, :frames] for name in FRAMES}
        found.append((part, share(part["mask"], batch["mask"])))
    return found


def gather_states(states: Tensor, first: int | Tensor, tokens: Tensor) -> Tensor:
    """The Thinker's state of each character's token.

    Args:
        states: ``[B, T, D]``.
        first: position of the text's first token, one for all or ``[B]``.
        tokens: ``[B, N]``, which token of the text.

    Returns:
        ``[B, N, D]``.
    """
    index = tokens + (first[:, None] if isinstance(first, Tensor) else first)
    return states.gather(1, index[..., None].expand(-1, -1, states.shape[-1]))
