"""Which character sounds at each frame of a person's recordings, found with nothing but the model itself.

The whole model has stage B's audio encoder, but not the layer behind it that spelled what it hears. What the encoder
gives was made to be spelled by one linear layer. Stage B's is taken where its checkpoint is beside the model's; else
another one is learned in a moment, from the recordings with their texts and from what the model says itself. Then
recordings are aligned as in stage D.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from muomni.alignment import align
from muomni.audio_encoder import BLANK, CTCHead, encode_characters
from muomni.checkpoint import load_checkpoint
from muomni.codec import Codec
from muomni.data.batches import pad
from muomni.data.speech import collate_mels
from muomni.errors import UserError
from muomni.fitting import load_into
from muomni.omni import Omni
from muomni.realignment import realign
from muomni.train.b_audio_encoder import fits

STEPS, RATE, BATCH = 400, 5e-3, 32
ROUNDS, ROUND_STEPS = 2, 150


@torch.no_grad()
def encoded(model: Omni, mels: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Log-mels ``[T, M]`` at 100 Hz to the audio encoder's states ``[S, D]``, on the CPU."""
    found = []
    for at in range(0, len(mels), BATCH):
        batch, lengths = collate_mels(mels[at : at + BATCH])
        states, sizes = model.audio_encoder(batch.to(device), lengths.to(device))
        found += [row[:size].float().cpu() for row, size in zip(states, sizes.tolist(), strict=True)]
    return found


def stage_head(model: Omni, folder: Path) -> CTCHead | None:
    """Stage B's layer from its checkpoint, if there is one whose encoder is the model's."""
    try:
        found = load_checkpoint(folder)
        own = model.audio_encoder.state_dict()
        if not all(torch.equal(tensor.cpu(), found.state[f"audio_encoder.{key}"]) for key, tensor in own.items()):
            return None
        head = CTCHead(model.cfg.audio_encoder)
        load_into(head, found.state, "ctc.", str(folder))
    except (UserError, KeyError):
        return None
    return head.eval()


def spelling_head(model: Omni, states: Sequence[Tensor], texts: Sequence[str], seed: int) -> CTCHead:
    """A layer that spells what the encoder hears, learned from its states ``[S, D]`` of recordings and their texts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = CTCHead(model.cfg.audio_encoder)
    optimiser = torch.optim.AdamW(head.parameters(), RATE, weight_decay=0.05)
    rng = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        rows = torch.randint(len(states), (BATCH,), generator=rng).tolist()
        targets = [torch.tensor(encode_characters(texts[i])) for i in rows]
        loss = F.ctc_loss(
            head(pad([states[i] for i in rows])).transpose(0, 1),
            torch.cat(targets),
            torch.tensor([len(states[i]) * head.slots for i in rows]),
            torch.tensor([len(target) for target in targets]),
            blank=BLANK,
            zero_infinity=True,
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return head.eval()


def heard_mel(codec: Codec, codes: Tensor) -> Tensor:
    """Codes ``[T, Q]`` as a log-mel ``[2 T, M]`` at 100 Hz."""
    mel = codec.decode(codes[None].to(codec.encoder.weight.device))  # [1, T, M]
    return F.interpolate(mel.transpose(1, 2), scale_factor=2, mode="linear")[0].T.cpu()


def placed(
    model: Omni,
    mels: Sequence[Tensor],
    texts: Sequence[str],
    letters: Sequence[Tensor],
    head: CTCHead | None,
    own_speech: Callable[[], Sequence[tuple[str, Tensor]]],
    seed: int,
    device: torch.device,
) -> list[Tensor | None]:
    """Align recordings.

    Args:
        model: in eval mode on the device.
        mels: log-mels ``[T, M]`` of the person at 100 Hz.
        texts: what is said in each.
        letters: the characters of each as `muomni.talker.spell` gives them, ``[N]``.
        head: of `stage_head`, if there is one.
        own_speech: else makes texts that the model says itself, each with its codes ``[T, Q]``.
        seed: of what is learned.
        device: where the encoder and the classifier of frames compute.

    Returns:
        For each recording ``[T]`` int64 at 50 Hz, indices into its letters, or None if it is too short for its text.
    """
    states = encoded(model, mels, device)
    if head is None:
        said = [(text, heard_mel(model.codec, codes)) for text, codes in own_speech()]
        said = [(text, mel) for text, mel in said if fits(text, len(mel), model.cfg.audio_encoder.slots)]
        heard = encoded(model, [mel for _, mel in said], device)
        head = spelling_head(model, [*states, *heard], [*texts, *(text for text, _ in said)], seed)
    found = list[Tensor | None]()
    for one, own, mel in zip(states, letters, mels, strict=True):
        with torch.no_grad():
            found.append(align(head(one[None])[0], own.tolist(), len(mel[::2])))
    usable = [(i, way) for i, way in enumerate(found) if way is not None]
    if usable:
        some = [mels[i][::2] for i, _ in usable]
        first = [way for _, way in usable]
        finer = realign(some, [letters[i] for i, _ in usable], first, len(some), ROUNDS, ROUND_STEPS, seed, device)
        for (i, _), way in zip(usable, finer, strict=True):
            found[i] = way
    return found
