"""How well the whole model predicts the answers of held-out conversations that somebody brought.

Such an answer may be right in many words, so it is not compared word by word: what counts is how likely the model takes
it to be. Beside it stands how likely it takes the same answer to be after another conversation's question. A model that
does not look at what it is asked has the same figure for both.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from muomni.data.dialogues import Dialogue
from muomni.evaluate.asking import Asker
from muomni.evaluate.measure import ratio
from muomni.fusion import fuse
from muomni.train.conversing import Sample


def score_own(asker: Asker, dialogues: Sequence[Dialogue], seed: int) -> dict[str, Any]:
    """Perplexity of the answers' tokens, with intervals over conversations.

    Args:
        asker: the model, and the split that the conversations are of.
        dialogues: some of them.
        seed: of the intervals.

    Returns:
        ``perplexity``, ``exchanged`` (of last answers after the next conversation's question; with two or more),
        ``left_out``: how many are longer than the context. Empty if there is none, or none fits.
    """
    fitting = [d for d in dialogues if len(sample_of(asker, d).ids) <= asker.model.cfg.thinker.context]
    if not fitting:
        return {}
    asker.encode(fitting)
    found: dict[str, Any] = {"left_out": len(dialogues) - len(fitting)}
    found["perplexity"] = perplexity(asker, fitting, seed)
    last = [replace(d, messages=d.messages[-2:]) for d in fitting]
    swapped = [with_question_of(d, other) for d, other in zip(last, [*last[1:], last[0]], strict=True)]
    swapped = [d for d in swapped if len(sample_of(asker, d).ids) <= asker.model.cfg.thinker.context]
    if len(fitting) > 1 and swapped:
        found["exchanged"] = perplexity(asker, swapped, seed)
    return found


def with_question_of(dialogue: Dialogue, other: Dialogue) -> Dialogue:
    """A conversation's last answer after another one's last question."""
    return replace(dialogue, messages=[other.messages[-2], dialogue.messages[-1]], media=other.media)


def sample_of(asker: Asker, dialogue: Dialogue) -> Sample:
    """A conversation as tensors."""
    members = [p["member"] for m in dialogue.messages[::2] for p in m["content"] if "member" in p]
    sizes = [
        asker.model.image_positions if name.endswith(".png") else -(-len(asker.data.mels[dialogue.media[name]]) // 8)
        for name in members
    ]
    return Sample(dialogue, asker.tokenizer, sizes)


@torch.no_grad()
def perplexity(asker: Asker, dialogues: Sequence[Dialogue], seed: int) -> dict[str, Any]:
    """Of the answers' tokens, whose number is ``n``."""
    nats, counts = [], []
    for dialogue in dialogues:
        sample = sample_of(asker, dialogue)
        images, audio = ([asker.features[digest] for digest in some] for some in (sample.pictures, sample.recordings))
        joined = [torch.cat(states) if states else None for states in (images, audio)]
        x = fuse(asker.model, sample.ids[None].to(asker.device), asker.tokenizer, *joined)
        wanted = sample.targets != -100
        logits = asker.model.thinker.logits(asker.model.thinker(x)[0, wanted.to(asker.device)]).float()  # [n, V]
        nats.append(float(F.cross_entropy(logits, sample.targets[wanted].to(asker.device), reduction="sum")))
        counts.append(int(wanted.sum()))
    return ratio(nats, counts, seed, math.exp) | {"n": sum(counts)}
