"""Choosing the next token, and the loop that turns a prompt into an answer."""

from collections.abc import Collection, Iterator

import torch
from pydantic import Field
from torch import Tensor

from muomni.config import Section
from muomni.thinker import Thinker


class Sampling(Section):
    """How tokens are drawn."""

    temperature: float = Field(default=0.0, ge=0, le=10, description="0 takes the likeliest token")
    top_k: int = Field(default=0, ge=0, description="draw among the k likeliest tokens; 0 for all")
    top_p: float = Field(default=1.0, gt=0, le=1, description="draw among the likeliest tokens of this total chance")


def choose(logits: Tensor, sampling: Sampling, rng: torch.Generator) -> int:
    """Draw a token from logits ``[V]``: temperature, then top-k, then nucleus (Holtzman et al., 2019)."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    logits = logits.float().cpu() / sampling.temperature
    if 0 < sampling.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[-1], -torch.inf)
    probability, order = logits.softmax(-1).sort(descending=True)
    # A token is kept if the likelier ones before it do not fill the nucleus yet; the first always is.
    probability[probability.cumsum(0) - probability >= sampling.top_p] = 0
    return int(order[torch.multinomial(probability, 1, generator=rng)])


@torch.no_grad()
def answer_tokens(
    thinker: Thinker,
    prompt: Tensor,
    stop: Collection[int],
    limit: int,
    sampling: Sampling,
    rng: torch.Generator,
    banned: Collection[int] = (),
) -> Iterator[tuple[int, Tensor]]:
    """Continue a prompt, token by token, with a key/value cache.

    Args:
        thinker: the model.
        prompt: embeddings ``[1, T, D]``.
        stop: ids that end the answer; the one that did is given too.
        limit: tokens at most.
        sampling: how tokens are drawn.
        rng: source of the draws, on the CPU.
        banned: ids that are never drawn.

    Yields:
        Each token's id and the Thinker's state ``[D]`` after reading it.
    """
    limit = min(limit, thinker.cfg.context - prompt.shape[1])
    cache = thinker.new_cache(1, prompt.shape[1] + max(0, limit))
    state = thinker(prompt, cache)[0, -1]
    forbidden = torch.tensor(sorted(banned), dtype=torch.int64, device=prompt.device)
    for _ in range(limit):
        logits = thinker.logits(state)
        logits[forbidden] = -torch.inf
        token = choose(logits, sampling, rng)
        ids = torch.tensor([[token]], device=prompt.device)
        state = thinker(thinker.embed(ids), cache)[0, -1]
        yield token, state
        if token in stop:
            return
