"""Which split an item belongs to: a hash of what the item is about, so that every stage comes to the same answer.

A picture, a sentence about it and a question about it share the key of their combination of concepts (``cat|dog``,
``dog*3``), so a combination that is held out of the pictures is held out of the texts and the speech as well.
"""

import hashlib
from collections.abc import Iterable
from itertools import combinations

# Held-out shares of the combinations of concepts. They are constants because pictures, sentences and conversations
# must agree on them: with one share a corpus, a test picture could be described in the training speech.
VALID_SHARE = 0.06
TEST_SHARE = 0.14

# A key that starts like this is never held out: what every split needs ("What is this?", "It is a dog.").
TRAIN_ONLY = "train:"


def split_of(key: str, seed: int, valid: float, test: float) -> str:
    """Place a key by its hash; the same key and seed always give the same split, whatever else there is.

    Args:
        key: what the item is about.
        seed: another seed gives another partition.
        valid: share of the keys for validation, 0 to 1.
        test: share of the keys for testing, 0 to 1.

    Returns:
        ``train``, ``valid`` or ``test``.
    """
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < test:
        return "test"
    return "valid" if place < test + valid else "train"


def pair_key(first: str, second: str) -> str:
    """The key of two concepts together, whatever their order."""
    return "|".join(sorted((first, second)))


def combination_key(names: Iterable[str]) -> str:
    """The key of a picture's or sentence's set of two or more concepts: ``apple|cat|dog``."""
    return "|".join(sorted(set(names)))


def combination_split(key: str, seed: int) -> str | None:
    """Split of a combination key, with the project's shares.

    Three or more concepts together contain every pair of them, so they have a split only if all pairs share it.

    Args:
        key: ``cat|dog``, ``apple|cat|dog``, ``dog*3`` or ``pattern|dog``; keys starting with `TRAIN_ONLY` train.
        seed: the project's seed.

    Returns:
        The split, or None for three or more concepts whose pairs lie in different splits: such an item is left out.
    """
    if key.startswith(TRAIN_ONLY):
        return "train"
    parts = key.split("|")
    if len(parts) < 3:
        return split_of(key, seed, VALID_SHARE, TEST_SHARE)
    found = {split_of(pair_key(a, b), seed, VALID_SHARE, TEST_SHARE) for a, b in combinations(parts, 2)}
    return found.pop() if len(found) == 1 else None
