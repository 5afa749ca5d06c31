"""N-gram baselines over token ids: what a language model without a network reaches on the same tokens.

`KneserNey` is the interpolated modified Kneser-Ney model of Chen and Goodman, "An empirical study of
smoothing techniques for language modeling" (1999), section 3. With c the count of an n-gram, h its history
and h' the history without its oldest token::

    p(w | h) = (c(hw) - D(c(hw))) / c(h) + gamma(h) * p(w | h')

The highest order uses counts; lower orders use how many different tokens precede the n-gram; under the
unigrams lies the uniform distribution, so that every token of the vocabulary has a probability above 0. It
needs numpy, seconds and no dictionary: the key of an n-gram is its suffix's rank and its oldest token, in one
64-bit integer.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

CHUNK = 1 << 16  # windows scored at once, for the memory's sake


def perplexity(logprobs: FloatArray) -> float:
    """exp of the mean negative natural log-probability a token."""
    return math.exp(-float(np.mean(logprobs)))


def bits_per_byte(logprobs: FloatArray, n_bytes: int) -> float:
    """Information of all tokens in bits over the UTF-8 bytes they spell: comparable across tokenizers."""
    return -float(np.sum(logprobs)) / math.log(2) / n_bytes


class Unigram:
    """Token frequencies, each count raised by one.

    Args:
        tokens: training ids, shape (N,).
        vocab_size: number of ids V.
    """

    def __init__(self, tokens: Sequence[int] | NDArray[np.integer], vocab_size: int) -> None:
        counts = np.bincount(np.asarray(tokens, np.int64), minlength=vocab_size) + 1.0
        self.log_table: FloatArray = np.log(counts / counts.sum())

    def logprobs(self, tokens: Sequence[int] | NDArray[np.integer]) -> FloatArray:
        """Natural log-probability of each token, shape (N,)."""
        return self.log_table[np.asarray(tokens, np.int64)]


def discounts(counts: IntArray) -> FloatArray:
    """What is taken from a count of 0, 1, 2, and 3 or more: shape (4,), Chen and Goodman's equation 26.

    Where the counts of counts are too few for the formula (a toy corpus), KenLM's fallback of 0.5, 1, 1.5.
    """
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == times)) for times in (1, 2, 3, 4))
    fallback = np.array([0.0, 0.5, 1.0, 1.5])
    if not (n1 and n2 and n3):
        return fallback
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    usable = bool(np.all(found >= 0) and np.all(found <= [0, 1, 2, 3]))
    return found if usable else fallback


class KneserNey:
    """Interpolated modified Kneser-Ney.

    Args:
        tokens: training ids, shape (N,), documents separated by `eot`.
        vocab_size: number of ids V; N times V must stay below 2**63.
        eot: the id of the end of a text; what precedes the first token counts as that.
        order: tokens in the longest n-gram.
    """

    def __init__(self, tokens: Sequence[int] | NDArray[np.integer], vocab_size: int, eot: int, order: int = 5) -> None:
        stream = np.asarray(tokens, np.int64)
        if len(stream) == 0 or order < 1 or stream.min() < 0 or stream.max() >= vocab_size:
            raise ValueError("need at least one token, ids below vocab_size, and order >= 1")
        self.vocab_size, self.eot, self.order = vocab_size, eot, order
        padded = np.concatenate([np.full(order, eot, np.int64), stream])
        self._learn_counts(self._learn_keys(padded))

    def _learn_keys(self, padded: IntArray) -> list[IntArray]:
        """Number all n-grams of every order: the rank among the sorted keys is an n-gram's id.

        Returns:
            For k = 0 to order the ids [order + N] of the n-grams of order k that end at each position.
        """
        self._keys: list[IntArray] = []  # of order k at index k - 1
        ids = [np.zeros(len(padded), np.int64)]
        for k in range(1, self.order + 1):
            oldest = padded[: len(padded) - k + 1]
            keys, inverse = np.unique(ids[-1][k - 1 :] * self.vocab_size + oldest, return_inverse=True)
            self._keys.append(keys)
            ids.append(np.concatenate([np.zeros(k - 1, np.int64), inverse]))  # too early for order k: never read
        return ids

    def _learn_counts(self, all_ids: list[IntArray]) -> None:
        """Counts from the highest order down; for each history its total and what discounts leave over."""
        self._counts: list[IntArray] = []
        self._totals: list[FloatArray] = []
        self._gammas: list[FloatArray] = []
        self._discounts: list[FloatArray] = []
        above: tuple[IntArray, IntArray] | None = None  # keys and counts of the order above
        for k in range(self.order, 0, -1):
            ids, history = all_ids[k][self.order :], all_ids[k - 1][self.order - 1 : -1]
            size = len(self._keys[k - 1])
            if above is None:
                counts = np.bincount(ids, minlength=size)
            else:  # in how many different n-grams of the order above it is the suffix
                counts = np.bincount(above[0][above[1] > 0] // self.vocab_size, minlength=size)
            history_of = np.zeros(size, np.int64)
            history_of[ids] = history
            discount = discounts(counts)
            taken = discount[np.minimum(counts, 3)]
            histories = 1 if k == 1 else len(self._keys[k - 2])
            totals = np.bincount(history_of, weights=counts, minlength=histories).astype(np.float64)
            left_over = np.bincount(history_of, weights=taken, minlength=histories)
            self._counts.insert(0, counts)
            self._totals.insert(0, totals)
            self._gammas.insert(0, left_over / np.maximum(totals, 1))
            self._discounts.insert(0, discount)
            above = (self._keys[k - 1], counts)

    def _ids(self, windows: IntArray, k: int) -> IntArray:
        """Ids of the n-grams of order k that end the windows [M, at least k]; -1 for those never seen."""
        ids = np.zeros(len(windows), np.int64)
        for length in range(1, k + 1):
            keys = self._keys[length - 1]
            wanted = ids * self.vocab_size + windows[:, -length]
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            ids = np.where((ids >= 0) & (keys[place] == wanted), place, -1)
        return ids

    def probabilities(self, windows: IntArray) -> FloatArray:
        """Probability of the last token of each window given those before it.

        Args:
            windows: ids, shape (M, order).

        Returns:
            Shape (M,), each above 0.
        """
        result = np.full(len(windows), 1.0 / self.vocab_size)
        for k in range(1, self.order + 1):
            ids, history = self._ids(windows, k), self._ids(windows[:, :-1], k - 1)
            counts = np.where(ids >= 0, self._counts[k - 1][ids], 0)
            totals = np.where(history >= 0, self._totals[k - 1][history], 0.0)
            kept = counts - self._discounts[k - 1][np.minimum(counts, 3)]
            mixed = kept / np.maximum(totals, 1) + self._gammas[k - 1][history] * result
            result = np.where(totals > 0, mixed, result)
        return result

    def logprobs(self, tokens: Sequence[int] | NDArray[np.integer]) -> FloatArray:
        """Natural log-probability of each token given the tokens before it, shape (N,)."""
        stream = np.asarray(tokens, np.int64)
        if len(stream) == 0:
            return np.zeros(0)
        padded = np.concatenate([np.full(self.order - 1, self.eot, np.int64), stream])
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.order)
        parts = [self.probabilities(windows[at : at + CHUNK]) for at in range(0, len(windows), CHUNK)]
        return np.log(np.concatenate(parts))

    def distribution(self, context: Sequence[int]) -> FloatArray:
        """Probabilities of all tokens after a context, shape (V,); they sum to 1."""
        history = [*([self.eot] * (self.order - 1)), *context][len(context) :]
        windows = np.empty((self.vocab_size, self.order), np.int64)
        windows[:, :-1] = history
        windows[:, -1] = np.arange(self.vocab_size)
        return self.probabilities(windows)
