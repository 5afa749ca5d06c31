"""Finer alignments: a small classifier of frames and the likeliest way through the text, in turn (Viterbi training).

The audio encoder emits up to four characters from one state of 80 ms and tends to put them into its first slots, so
that `muomni.alignment.align` is off by a few frames. A convolutional network learns from that which character sounds at
each frame. What it learns is right more often than its labels, because their errors are not always the same ones. The
likeliest way through each text by its log-probabilities gives better labels, and so on (Bourlard and Morgan, 1994, who
trained hybrids of networks and hidden Markov models so).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from muomni.audio_encoder import CHARACTERS, mask_of
from muomni.data.batches import pad
from muomni.data.speech import collate_mels
from muomni.layers import Standardise

WIDTH, KERNELS = 128, (5, 5, 3)
BATCH = 16  # recordings that the classifier learns from at once
RATE = 2e-3
MEASURED = 200  # recordings for the statistics of the bands
PRIOR = 0.5  # share of a character's log-frequency that is taken off: long sounds are not likelier because of it
IGNORED = -100


class FrameClassifier(nn.Module):
    """Log-mel frames to log-probabilities of the character that sounds, from 11 frames around each."""

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.standardise = Standardise(n_mels)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, WIDTH, kernel, padding=kernel // 2)
            for before, kernel in zip((n_mels, WIDTH, WIDTH), KERNELS, strict=True)
        )
        self.head = nn.Linear(WIDTH, len(CHARACTERS))

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """``[B, T, M]`` at 50 Hz, with their lengths ``[B]``, to ``[B, T, C]``; padding changes nothing."""
        real = mask_of(lengths, mel.shape[1])[:, None]
        x = self.standardise(mel).transpose(1, 2)
        for convolution in self.convolutions:
            x = F.gelu(convolution(x * real))
        return self.head(x.transpose(1, 2)).log_softmax(-1)


def best_ways(scores: Sequence[Tensor]) -> list[Tensor]:
    """The likeliest way through each text: every character in order, each for a frame at least (Viterbi, 1967).

    Where two ways are equally likely, as between two equal letters, the next character begins as early as it can.

    Args:
        scores: for each recording ``[T, N]``, log-probability of its n-th character at each frame; T at least N.

    Returns:
        For each ``[T]`` int64, growing by steps of one from 0 to N - 1.

    Raises:
        ValueError: if a recording has fewer frames than characters.
    """
    frames, lengths = ([s.shape[axis] for s in scores] for axis in (0, 1))
    if any(t < n for t, n in zip(frames, lengths, strict=True)):
        raise ValueError("a recording has fewer frames than characters")
    rows, longest, most = len(scores), max(frames), max(lengths)
    emitted = np.full((longest, rows, most), -np.inf, np.float32)
    for row, score in enumerate(scores):
        emitted[: frames[row], row, : lengths[row]] = score.cpu().numpy()
    best = np.full((rows, most), -np.inf, np.float32)
    best[:, 0] = emitted[0, :, 0]
    came = np.zeros((longest, rows, most), bool)  # from the character before
    before = np.full((rows, most), -np.inf, np.float32)
    for t in range(1, longest):
        before[:, 1:] = best[:, :-1]
        came[t] = before > best
        best = np.where(came[t], before, best) + emitted[t]
    ways = []
    for row in range(rows):
        way, at = np.zeros(frames[row], np.int64), lengths[row] - 1
        for t in range(frames[row] - 1, -1, -1):
            way[t] = at
            at -= int(came[t, row, at])
        ways.append(torch.from_numpy(way))
    return ways


def realign(
    mels: Sequence[Tensor],
    characters: Sequence[Tensor],
    positions: Sequence[Tensor],
    learn: int,
    rounds: int,
    steps: int,
    seed: int,
    device: torch.device,
) -> list[Tensor]:
    """Improve alignments.

    Args:
        mels: log-mels ``[T, M]`` at 50 Hz.
        characters: of each recording ``[N]`` int64, with N at most T.
        positions: the alignments to begin with, ``[T]`` int64: the character of each frame.
        learn: so many of the first recordings are learned from; all are aligned.
        rounds: how often the classifier learns and the recordings are aligned again.
        steps: of learning in each round.
        seed: of the classifier's weights and of what it sees when.
        device: where it computes.

    Returns:
        The alignments, ``[T]`` int64 each.
    """
    positions = list(positions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = FrameClassifier(mels[0].shape[1])
    classifier.standardise.measure(torch.cat([mel.float() for mel in mels[: min(learn, MEASURED)]]))
    classifier.to(device)
    optimiser = torch.optim.AdamW(classifier.parameters(), RATE)
    rng = torch.Generator().manual_seed(seed)
    for _ in range(rounds):
        for _ in range(steps):
            rows = torch.randint(learn, (BATCH,), generator=rng).tolist()
            mel, lengths = (part.to(device) for part in collate_mels([mels[i] for i in rows]))
            label = pad([characters[i][positions[i]] for i in rows], IGNORED).to(device)
            loss = F.nll_loss(classifier(mel, lengths).flatten(0, 1), label.flatten(), ignore_index=IGNORED)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        positions = aligned(classifier, mels, characters, frequencies(characters[:learn], positions[:learn]), device)
    return positions


def frequencies(characters: Sequence[Tensor], positions: Sequence[Tensor]) -> Tensor:
    """How often each of `CHARACTERS` sounds at a frame, as a share ``[C]``; never quite 0."""
    counts = torch.ones(len(CHARACTERS))
    for own, position in zip(characters, positions, strict=True):
        counts += torch.bincount(own[position], minlength=len(CHARACTERS))
    return counts / counts.sum()


@torch.no_grad()
def aligned(
    classifier: FrameClassifier,
    mels: Sequence[Tensor],
    characters: Sequence[Tensor],
    shares: Tensor,
    device: torch.device,
) -> list[Tensor]:
    """The likeliest way through each text by a classifier; recordings of similar length together.

    Args:
        classifier: of the character at each frame, on `device`.
        mels: log-mels ``[T, M]`` at 50 Hz.
        characters: of each recording ``[N]`` int64, with N at most T.
        shares: how often each character sounds, ``[C]``: a frequent one is not likelier here for that.
        device: where it computes.

    Returns:
        For each recording ``[T]`` int64: the character of each frame.
    """
    order = sorted(range(len(mels)), key=lambda i: len(mels[i]))
    taken = PRIOR * shares.log().to(device)
    found = dict[int, Tensor]()
    for at in range(0, len(order), 2 * BATCH):
        rows = order[at : at + 2 * BATCH]
        mel, lengths = (part.to(device) for part in collate_mels([mels[i] for i in rows]))
        scores = (classifier(mel, lengths) - taken).cpu()  # [B, T, C]
        ways = best_ways([scores[b, : len(mels[i])][:, characters[i]] for b, i in enumerate(rows)])
        found.update(zip(rows, ways, strict=True))
    return [found[i] for i in range(len(mels))]
