"""Choosing the next token, and the loops that turn prompts into answers."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from muomni.config import Section
from muomni.decoder import Cache, Decoder
from muomni.drawing import NO_NUMBERS, draw
from muomni.errors import UserError
from muomni.thinker import Thinker

COLD = 1e-6  # a temperature below it takes the likeliest: logits divided by it are beyond float32


class Sampling(Section):
    """How tokens are drawn."""

    temperature: float = Field(default=0.0, ge=0, le=10, description="0 takes the likeliest token")
    top_k: int = Field(default=0, ge=0, description="draw among the k likeliest tokens; 0 for all")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw among the likeliest tokens of this total chance")


def likeliest(logits: Tensor) -> list[int]:
    """The likeliest token of each row ``[B, V]``, the first of equals."""
    if logits.device.type == "cpu":  # NumPy's argmax is vectorised, PyTorch's takes as long as many layers
        found: list[int] = logits.detach().float().numpy().argmax(-1).tolist()
        return found
    return logits.argmax(-1).tolist()


def choose(logits: Tensor, sampling: Sampling, rng: torch.Generator) -> int:
    """Draw a token from logits ``[V]``: temperature, then top-k, then nucleus (Holtzman et al., 2019)."""
    if sampling.temperature < COLD:
        return likeliest(logits[None])[0]
    logits = logits.float().cpu() / sampling.temperature
    if 0 < sampling.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[-1], -torch.inf)
    if sampling.top_p == 1:
        return int(draw(logits.softmax(-1), rng))
    probability, order = logits.softmax(-1).sort(descending=True)
    # A token is kept if the likelier ones before it do not fill the nucleus yet; the first always is.
    cut = probability.cumsum(0) - probability >= sampling.top_p
    cut[0] = False  # float32 knows no nucleus as small as one may ask for
    probability[cut] = 0
    return int(order[draw(probability, rng)])


def laid_out(thinker: Thinker | Decoder) -> Decoder:
    """A model's weights as they are read to write; those that are laid out already stay so."""
    return thinker if isinstance(thinker, Decoder) else Decoder(thinker)


@torch.no_grad()
def answer_tokens(
    thinker: Thinker | Decoder,
    prompt: Tensor,
    stop: Collection[int],
    limit: int,
    sampling: Sampling,
    rng: torch.Generator,
    banned: Collection[int] = (),
    cache: Cache | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Continue a prompt, token by token, with a key/value cache.

    Args:
        thinker: the model; a `Decoder` of it, which holds the weights in any precision, saves laying them out anew.
        prompt: embeddings ``[1, T, D]``.
        stop: ids that end the answer; the one that did is given too.
        limit: tokens at most.
        sampling: how tokens are drawn.
        rng: source of the draws, on the CPU.
        banned: ids that are never drawn.
        cache: what stands before the prompt, and takes the prompt and the answer; by default a new one.

    Yields:
        Each token's id and the Thinker's state ``[D]`` after reading it.

    Raises:
        UserError: if what the model computes is not finite.
    """
    decoder, before = laid_out(thinker), cache.lengths[0] if cache else 0
    limit = min(limit, (cache.positions if cache else decoder.cfg.context) - before - prompt.shape[1])
    if cache is None:
        with decoder.lend(prompt.shape[1] + max(0, limit)) as lent:
            yield from answer_tokens(decoder, prompt, stop, limit, sampling, rng, banned, lent)
        return
    state = decoder.read(prompt, cache)[:, -1]  # [1, D]
    if not bool(state.isfinite().all()):  # the likeliest of NaN would be some token
        raise UserError(NO_NUMBERS)
    graph = decoder.greedy_graph(cache, banned) if sampling.temperature == 0 and limit > 0 else None
    forbidden = torch.tensor(sorted(banned), dtype=torch.int64, device=prompt.device)
    if graph is not None:
        start = cache.lengths[0]
        for number, (token, read) in enumerate(graph(decoder.likeliest(state, forbidden), start, limit), 1):
            cache.lengths = [start + number]
            yield token, read
            if token in stop:
                return
        return
    for _ in range(limit):
        logits = decoder.logits(state)[0].index_fill(0, forbidden, -torch.inf)
        token = choose(logits, sampling, rng)
        state = decoder.step([token], cache)
        yield token, state[0].clone()  # outside of inference mode: a tensor like any other
        if token in stop:
            return


@dataclass(frozen=True, eq=False)
class Request:
    """One of several prompts that are continued together; as the arguments of `answer_tokens`.

    Attributes:
        prompt: embeddings ``[T, D]``.
    """

    prompt: Tensor
    stop: Collection[int]
    limit: int
    sampling: Sampling
    rng: torch.Generator
    banned: Collection[int] = ()


@torch.no_grad()
def answer_batch(thinker: Thinker | Decoder, requests: Sequence[Request]) -> Iterator[tuple[int, int, Tensor]]:
    """Continue prompts of any lengths together: the weights are read once for all of them.

    Each row is padded on the right and goes on at its own position. When a quarter of the rows have ended, they are
    taken out.

    Args:
        thinker: as for `answer_tokens`.
        requests: the prompts, each with its own stop, limit, sampling and source of draws.

    Yields:
        The request's index, a token's id, and the Thinker's state ``[D]`` after reading it; for all that go on in
        turn.
    """
    decoder = laid_out(thinker)
    lengths = [len(request.prompt) for request in requests]
    left = [min(r.limit, decoder.cfg.context - length) for r, length in zip(requests, lengths, strict=True)]
    rows = [index for index, count in enumerate(left) if count > 0]  # the request of each row
    if not rows:
        return
    cache = decoder.new_cache(len(rows), max(lengths[i] + left[i] for i in rows))
    prompts = torch.nn.utils.rnn.pad_sequence([requests[i].prompt for i in rows], batch_first=True)  # [B, T, D]
    last = torch.tensor([lengths[i] - 1 for i in rows], device=prompts.device)
    state = decoder.read(prompts, cache)[torch.arange(len(rows), device=prompts.device), last]  # [B, D]
    cache.lengths = [lengths[i] for i in rows]
    forbidden = {i: torch.tensor(sorted(requests[i].banned), dtype=torch.int64, device=prompts.device) for i in rows}
    ended = [False] * len(rows)
    while not all(ended):
        logits = decoder.logits(state)
        if any(requests[index].banned for index in rows):
            logits = logits.clone()  # a tensor that may be written to
        for row, index in enumerate(rows):
            if requests[index].banned:
                logits[row].index_fill_(0, forbidden[index], -torch.inf)
        if all(requests[index].sampling.temperature == 0 for index in rows):
            tokens = likeliest(logits)
        else:
            draws = [(requests[index].sampling, requests[index].rng) for index in rows]
            tokens = [0 if ended[row] else choose(logits[row], *draws[row]) for row in range(len(rows))]
        state = decoder.step(tokens, cache)
        for row, index in enumerate(rows):
            if ended[row]:
                cache.lengths[row] -= 1  # forget what was read: it must not run out of the cache
                continue
            left[index] -= 1
            ended[row] = tokens[row] in requests[index].stop or left[index] == 0
            yield index, tokens[row], state[row].clone()
        if 4 * sum(ended) >= len(rows) and not all(ended):
            kept = [row for row in range(len(rows)) if not ended[row]]
            rows, state, ended = [rows[row] for row in kept], state[kept], [False] * len(kept)
            cache.keep(kept)
