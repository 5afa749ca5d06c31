"""Drawing from a model's probabilities, or saying that it has none."""

import torch
from torch import Tensor

from muomni.errors import UserError

NO_NUMBERS = "the model's output is not finite: its weights are too large or damaged; train it again or take another"


def draw(probability: Tensor, rng: torch.Generator) -> Tensor:
    """An index drawn from probabilities ``[V]`` on the CPU, int64 ``[]``.

    Raises:
        UserError: if they hold NaN, which weights that are finite can still give.
    """
    try:
        return torch.multinomial(probability, 1, generator=rng)[0]
    except RuntimeError:  # rather than look at every number beforehand
        if bool(probability.isfinite().all()):
            raise
        raise UserError(NO_NUMBERS) from None
