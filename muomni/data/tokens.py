"""Packed tokens (see `muomni.data.packing`) as training batches and evaluation windows, read from disk."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from muomni.data.files import read_json, sha256_file
from muomni.errors import UserError

INDEX = "index.json"
STAGE = "tokens"
IGNORED = -100  # a target that the loss leaves out, as in torch.nn.functional.cross_entropy


class TokenDataset:
    """One split's stream, mapped from disk.

    Args:
        folder: what the stage ``tokens`` wrote.
        split: train, valid or test.

    Attributes:
        tokens: the stream, uint16 [N], read only.
        bytes: UTF-8 bytes of the text behind it, for bits per byte.
        vocab_size, eot: the tokenizer's.
        index: the whole index.

    Raises:
        UserError: if the index or the file is missing, damaged or empty, or the file is not the one of the index.
    """

    def __init__(self, folder: str | Path, split: str) -> None:
        folder = Path(folder)
        self.index = read_json(folder / INDEX, STAGE)
        try:
            entry = self.index["splits"][split]
            path, count = folder / entry["file"], int(entry["tokens"])
            self.bytes, digest = int(entry["bytes"]), entry["sha256"]
            self.vocab_size, self.eot = int(self.index["vocab_size"]), int(self.index["eot"])
            if path.parent != folder or not 0 <= self.eot < self.vocab_size <= 1 << 16:
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError):  # the last for Infinity
            message = f"{folder / INDEX}: has no split '{split}' of tokens; run `dvc repro --force {STAGE}`"
            raise UserError(message) from None
        if not path.is_file():
            raise UserError(f"{path}: no such file; run `dvc repro {STAGE}`")
        if path.stat().st_size != 2 * count or count < 2:
            size = path.stat().st_size
            raise UserError(f"{path}: {size} bytes, expected {2 * count}; run `dvc repro --force {STAGE}`")
        if sha256_file(path) != digest:
            raise UserError(f"{path}: was changed (its sha256 differs from {INDEX}); run `dvc repro --force {STAGE}`")
        self.path = path
        self.tokens: NDArray[np.uint16] = np.memmap(path, "<u2", mode="r")

    def __len__(self) -> int:
        """Tokens in the stream."""
        return len(self.tokens)

    def sequences(self, context: int) -> int:
        """Training sequences in one epoch.

        Raises:
            UserError: if the stream is too short for a single one.
        """
        if len(self.tokens) <= context:
            raise UserError(
                f"{self.path}: {len(self.tokens)} tokens are too few for a context of {context}; "
                f"give more text (text.max_mb) or a smaller context"
            )
        return len(self.tokens) // context

    def batch_at(self, step: int, batch_size: int, context: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch of a training step: a pure function of its arguments, so that resuming is exact.

        Each epoch cuts the stream, taken as a ring, into stretches of `context` tokens from a new random
        start, in a new random order. Within an epoch no token is a target twice, and all but fewer than
        `context` of them are. A batch at the end of an epoch is filled from the next.

        Args:
            step: counts from 0. With several processes, give each ``step * processes + rank``.
            batch_size: sequences B.
            context: length T.
            seed: of the run.

        Returns:
            Inputs and targets, int64 [B, T]; a target is the token after its input.

        Raises:
            UserError: if there are fewer than ``context + 1`` tokens.
        """
        per_epoch, length = self.sequences(context), len(self.tokens)
        rows = np.empty((batch_size, context + 1), np.int64)
        for row in range(batch_size):
            epoch, place = divmod(step * batch_size + row, per_epoch)
            start, order = epoch_order(seed, epoch, length, per_epoch)
            first = (start + int(order[place]) * context) % length
            head = self.tokens[first : first + context + 1]
            rows[row, : len(head)] = head
            rows[row, len(head) :] = self.tokens[: context + 1 - len(head)]
        batch = torch.from_numpy(rows)
        return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

    def eval_windows(
        self, context: int, batch_size: int = 8, stride: int | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Go once through the whole split: every token but the first is a target exactly once.

        Args:
            context: length T of a window.
            batch_size: windows B in a batch; the last one may hold fewer.
            stride: targets a window adds, 1 to `context`. Less than `context` gives every later target at
                least ``context - stride`` tokens before it, at the price of reading them again; `context` by
                default.

        Yields:
            Inputs and targets, int64 [B, T]. Targets already counted, and the end of the last window, are
            -100.

        Raises:
            ValueError: if `stride` is not 1 to `context`.
        """
        stride = context if stride is None else stride
        if not 1 <= stride <= context:
            raise ValueError(f"stride {stride} outside 1 to {context}")
        last = len(self.tokens) - 1  # targets are the tokens 1 to last
        windows: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        done = 0
        while done < last:
            end = min(last, context if done == 0 else done + stride)
            first = max(0, end - context)
            inputs, targets = np.full(context, self.eot, np.int64), np.full(context, IGNORED, np.int64)
            inputs[: end - first] = self.tokens[first:end]
            targets[done - first : end - first] = self.tokens[done + 1 : end + 1]
            windows.append((inputs, targets))
            done = end
            if len(windows) == batch_size or done == last:
                yield (
                    torch.from_numpy(np.stack([w[0] for w in windows])),
                    torch.from_numpy(np.stack([w[1] for w in windows])),
                )
                windows = []


@lru_cache(maxsize=8)
def epoch_order(seed: int, epoch: int, length: int, per_epoch: int) -> tuple[int, NDArray[np.int64]]:
    """Where an epoch starts in the ring of `length` tokens, and the order [per_epoch] of its stretches."""
    rng = np.random.default_rng([seed, epoch])
    return int(rng.integers(length)), rng.permutation(per_epoch)
