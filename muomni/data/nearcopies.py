"""Near copies: texts that repeat another one, found by the runs of words that they share."""

import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHINGLE = 8  # words


def shingles(text: str) -> NDArray[np.uint64]:
    """Hashes of all runs of `SHINGLE` words, case and punctuation aside, sorted; a shorter text is one."""
    words = np.array([zlib.crc32(w.encode()) for w in re.findall(r"\w+", text.lower())], np.uint64)
    length = min(SHINGLE, max(len(words), 1))
    count = len(words) - length + 1
    hashes = np.zeros(max(count, 0), np.uint64)
    for k in range(length):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + words[k : k + count]  # modulo 2**64
    return np.unique(hashes)


def near_copies(
    texts: Mapping[str, str], held_out: Mapping[str, str], jaccard: float = 0.2, contained: float = 0.5
) -> list[dict[str, Any]]:
    """Find the texts that repeat a held-out one.

    Args:
        texts: candidates by name, for example the training documents.
        held_out: what they must not repeat, by name.
        jaccard: shared shingles over all shingles of the two; above it they are near copies.
        contained: shared shingles over those of the shorter one; above it, it is an extract of the other.

    Returns:
        For each near copy ``item``, ``copy_of``, ``jaccard`` and ``contained``.
    """
    if not held_out:
        return []
    sets = [shingles(text) for text in held_out.values()]
    names = list(held_out)
    sizes = np.array([len(found) for found in sets])
    owners = np.repeat(np.arange(len(sets)), sizes)
    order = np.argsort(np.concatenate(sets), kind="stable")
    table, owners = np.concatenate(sets)[order], owners[order]
    found = []
    for name, text in texts.items():
        own = shingles(text)
        first, last = np.searchsorted(table, own, "left"), np.searchsorted(table, own, "right")
        runs = [np.arange(a, b) for a, b in zip(first, last, strict=True) if b > a]
        if not runs:
            continue
        shared = np.bincount(owners[np.concatenate(runs)], minlength=len(sets))
        jaccards = shared / np.maximum(sizes + len(own) - shared, 1)
        shares = shared / np.maximum(np.minimum(sizes, len(own)), 1)
        worst = int(np.argmax(np.maximum(jaccards / jaccard, shares / contained)))
        if jaccards[worst] > jaccard or shares[worst] > contained:
            figures = {
                "jaccard": round(float(jaccards[worst]), 3),
                "contained": round(float(shares[worst]), 3),
            }
            found.append({"item": name, "copy_of": names[worst], **figures})
    return found
