"""How well a Thinker predicts unseen text, beside models without a network on the very same tokens."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from muomni.data.tokens import TokenDataset
from muomni.decoder import Decoder
from muomni.evaluate.measure import Figure, ratio
from muomni.evaluate.ngram import KneserNey, Unigram
from muomni.matrix import Weights
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer

FloatArray = NDArray[np.float64]


@torch.no_grad()
def thinker_logprobs(thinker: Thinker, data: TokenDataset, context: int, stride: int, most: int = 0) -> FloatArray:
    """Natural log-probabilities that a Thinker gives to the tokens of a split.

    Args:
        thinker: in eval mode.
        data: the split.
        context: tokens of a window.
        stride: tokens that each window adds.
        most: stop after so many tokens; 0 for all.

    Returns:
        ``[N]``, of the second token and on, in the split's order.
    """
    device = thinker.embedding.weight.device
    found: list[FloatArray] = []
    count = 0
    for inputs, targets in data.eval_windows(context, stride=stride):
        states = thinker(thinker.embed(inputs.to(device)))  # [B, T, D]
        counted = targets != -100
        logits = thinker.logits(states[counted.to(device)]).float()  # [n, V]
        losses = F.cross_entropy(logits, targets[counted].to(device), reduction="none")
        found.append(-losses.double().cpu().numpy())
        count += len(losses)
        if most and count >= most:
            break
    joined = np.concatenate(found)
    return joined[:most] if most else joined


def scores(logprobs: FloatArray, spelled: Sequence[int], window: int, seed: int) -> dict[str, Figure]:
    """Perplexity a token and bits a byte of text, with intervals over windows of the text.

    Args:
        logprobs: ``[N]`` natural.
        spelled: bytes of text that each token spells, ``[N]``.
        window: tokens that are drawn together; neighbours are not independent.
        seed: of the intervals.
    """
    starts = range(0, len(logprobs), window)
    nats = [-float(logprobs[at : at + window].sum()) for at in starts]
    counts = [len(logprobs[at : at + window]) for at in starts]
    sizes = [sum(spelled[at : at + window]) for at in starts]
    found = {
        "perplexity": ratio(nats, counts, seed, math.exp),
        "bits_per_byte": ratio([n / math.log(2) for n in nats], sizes, seed),
    }
    return {name: value | {"n": len(logprobs)} for name, value in found.items()}  # tokens, not windows


@torch.no_grad()
def weights_scores(
    thinker: Thinker, data: TokenDataset, kinds: Sequence[Weights], context: int, stride: int, most: int, seed: int
) -> dict[str, dict[str, Figure]]:
    """What weights in fewer bits cost: each kind on the same tokens, beside the Thinker's own modules.

    Args:
        thinker: in eval mode.
        data: the split.
        kinds: of weights.
        context: tokens of a window.
        stride: tokens that each window adds.
        most: stop after so many tokens; 0 for all.
        seed: of the intervals, which are over windows.

    Returns:
        By kind: ``perplexity``; ``nats``, how much more a token costs than with the modules; ``same``, the share of
        tokens after which the likeliest one is the modules'.
    """
    decoders = {kind: Decoder(thinker, kind) for kind in kinds}
    sizes: list[int] = []
    nats: dict[str, list[float]] = {kind: [] for kind in ("own", *kinds)}
    same: dict[str, list[int]] = {kind: [] for kind in kinds}
    for inputs, targets in data.eval_windows(context, stride=stride):
        for window, wanted in zip(inputs[:, None], targets, strict=True):
            counted = wanted != -100
            own = thinker.logits(thinker(thinker.embed(window))[0, counted])  # [n, V]
            sizes.append(len(own))
            nats["own"].append(float(F.cross_entropy(own, wanted[counted], reduction="sum")))
            for kind, decoder in decoders.items():
                logits = decoder.logits(decoder(decoder.embed(window))[0, counted])
                nats[kind].append(float(F.cross_entropy(logits, wanted[counted], reduction="sum")))
                same[kind].append(int((logits.argmax(-1) == own.argmax(-1)).sum()))
        if most and sum(sizes) >= most:
            break
    return {
        kind: {
            "perplexity": ratio(nats[kind], sizes, seed, math.exp),
            "nats": ratio([a - b for a, b in zip(nats[kind], nats["own"], strict=True)], sizes, seed),
            "same": ratio(same[kind], sizes, seed),
        }
        for kind in kinds
    }


def bytes_spelled(stream: NDArray[np.integer], tokenizer: Tokenizer, eot: int) -> list[int]:
    """UTF-8 bytes of text that each token of packed documents spells; `eot` spells none.

    Document by document: the space that the tokenizer puts before a text is not the text's.
    """
    ends = np.flatnonzero(stream == eot) + 1
    documents = np.split(stream, ends)
    return [len(piece.encode()) for ids in documents for piece in tokenizer.pieces(ids.tolist())]


def score_language(
    thinkers: dict[str, Thinker],
    train: TokenDataset,
    test: TokenDataset,
    tokenizer: Tokenizer,
    *,
    order: int,
    context: int,
    stride: int,
    most: int,
    seed: int,
) -> dict[str, dict[str, Figure]]:
    """`scores` of Thinkers, of token frequencies and of a Kneser-Ney model, by name.

    Args:
        thinkers: by name, in eval mode.
        train: what the baselines count.
        test: what all are scored on.
        tokenizer: of both.
        order: of the n-grams.
        context: of a Thinker's window.
        stride: tokens that each window adds.
        most: tokens that are scored; 0 for all.
        seed: of the intervals.
    """
    stream = np.asarray(test.tokens)[: most + 1 if most else None]
    spelled = bytes_spelled(stream, tokenizer, test.eot)[1:]
    counted: dict[str, Unigram | KneserNey] = {
        "unigram": Unigram(train.tokens, test.vocab_size),
        "ngram": KneserNey(train.tokens, test.vocab_size, test.eot, order),
    }
    found = {name: thinker_logprobs(model, test, context, stride, most) for name, model in thinkers.items()}
    found |= {name: model.logprobs(stream)[1:] for name, model in counted.items()}
    return {name: scores(logprobs, spelled, context, seed) for name, logprobs in found.items()}
