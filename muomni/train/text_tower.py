"""What the frozen Thinker makes of texts: the text tower of stage C."""

from collections.abc import Sequence

import torch
from torch import Tensor

from muomni.data.batches import pad
from muomni.thinker import Thinker
from muomni.tokenizer import Tokenizer

TEXTS_AT_ONCE = 64


@torch.no_grad()
def text_states(thinker: Thinker, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """What the frozen Thinker makes of texts: the mean of its states over each text's tokens, ``[N, Dt]``."""
    device = thinker.embedding.weight.device
    ids = [torch.tensor([tokenizer.bos, *tokenizer.encode(text)]) for text in texts]
    found = torch.empty(len(texts), thinker.cfg.d_model)
    order = sorted(range(len(texts)), key=lambda i: len(ids[i]))  # little padding, which causal states never see
    for at in range(0, len(order), TEXTS_AT_ONCE):
        part = order[at : at + TEXTS_AT_ONCE]
        states = thinker(thinker.embed(pad([ids[i] for i in part], tokenizer.pad).to(device))).cpu()
        for row, i in zip(states, part, strict=True):
            found[i] = row[1 : len(ids[i])].mean(0)
    return found


def phrase(name: str) -> str:
    """A name as the text tower reads it: ``a dog``."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
