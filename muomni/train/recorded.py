"""Loss and gradient of a micro-batch as one CUDA graph.

A small model's forward and backward pass are some hundred operations that a GPU is done with before Python has started
the next. Where every batch has the same shapes they can be recorded once, and started all together at each step.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Values = dict[str, float | Tensor]


class RecordedGradient:
    """A recorded micro-batch.

    Args:
        run: computes a batch's loss and its gradient, and returns the loss, a scalar, and further values.
        parameters: those whose gradient it computes; it has none when this is called.
        batch: tensors on the GPU. They become the graph's inputs.

    Raises:
        RuntimeError: if it cannot be recorded.
    """

    def __init__(
        self,
        run: Callable[[Any], tuple[Tensor, Values]],
        parameters: Sequence[nn.Parameter],
        batch: tuple[Tensor, ...],
    ) -> None:
        self.parameters, self.batch = parameters, batch
        device = batch[0].device
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):  # what libraries set up in their first call on a stream cannot be recorded
            run(batch)
        torch.cuda.current_stream(device).wait_stream(side)
        self.drop()
        torch.cuda.empty_cache()  # the graph keeps memory of its own
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss, self.values = run(batch)
        self.gradients = [p.grad for p in parameters]
        self.drop()

    def drop(self) -> None:
        """Without gradients the next backward pass sets them and does not add to them."""
        for p in self.parameters:
            p.grad = None

    def __call__(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Values]:
        """Loss and further values of a batch with the same shapes; sets the gradients."""
        for place, tensor in zip(self.batch, batch, strict=True):
            place.copy_(tensor)
        self.graph.replay()
        for p, gradient in zip(self.parameters, self.gradients, strict=True):
            p.grad = gradient
        values = {name: value.clone() if isinstance(value, Tensor) else value for name, value in self.values.items()}
        return self.loss.clone(), values
