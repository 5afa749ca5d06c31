"""Optimisers and the learning-rate schedule: Muon for matrices inside blocks, AdamW for everything else."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from muomni.device import cpu_has_fast_bf16, gpu_has_fast_bf16
from muomni.train.memory import is_out_of_memory

BLOCK_LISTS = ("blocks", "layers")  # the attributes under which the models keep their transformer blocks
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients of the Muon post


def orthogonalise(matrices: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Nearest matrices with singular values about 1, by a quintic Newton-Schulz iteration.

    Args:
        matrices: [N, rows, columns], orthogonalised one by one.
        steps: iterations.
        dtype: precision of the products.

    Returns:
        [N, rows, columns] in `dtype`.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.to(dtype)
    tall = x.size(1) > x.size(2)
    x = x.mT if tall else x  # the smaller side makes the smaller Gram matrix
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)  # spectral norm at most 1
    if dtype == torch.float32 and x.size(2) >= 2 * x.size(1):
        # Each round multiplies x by a polynomial of its Gram matrix; those all commute, so the product of the
        # polynomials can be made from small matrices alone. Up to half the work, but float32 only.
        gram = x @ x.mT
        product = polynomial = torch.eye(x.size(1), dtype=dtype, device=x.device)
        for step in range(steps):
            gram = polynomial @ gram @ polynomial if step else gram
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            polynomial.diagonal(dim1=1, dim2=2).add_(a)
            product = polynomial @ product if step else polynomial
        x = product @ x
    else:
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised (Keller Jordan, 2024, https://kellerjordan.github.io/posts/muon/).

    The same update as `torch.optim.Muon` with its default learning-rate adjustment, with two differences:
    `torch.optim.Muon` always multiplies in bfloat16, about 100 times slower than float32 on a CPU without
    bf16 products, so here the precision follows the hardware; and matrices of one shape are orthogonalised
    together. A parameter [experts, rows, columns] counts as a stack of matrices.

    On a GPU the update is recorded as a CUDA graph, one for every set of parameters that has had gradients: it is some
    hundred operations, and starting them takes Python several times as long as the GPU computes.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        steps: int = 5,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "steps": steps})
        self.recorded: dict[tuple[int, ...], RecordedUpdate] = {}
        self.recording = True

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            for p in learning:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            if learning and learning[0].is_cuda and self.recording:
                self.replay(group, learning, gradients)
            else:
                self.update(group, learning, gradients, group["lr"])

    def replay(self, group: dict[str, Any], learning: list[Tensor], gradients: list[Tensor]) -> None:
        """`update` by a CUDA graph. The first update of a set of parameters is not recorded, and the second is."""
        key = tuple(id(p) for p in learning)
        if key not in self.recorded:
            self.update(group, learning, gradients, group["lr"])
            self.recorded[key] = RecordedUpdate(gradients)
        elif not self.recorded[key](gradients, group["lr"], lambda *given: self.update(group, learning, *given)):
            self.recording = False
            self.update(group, learning, gradients, group["lr"])

    def update(
        self, group: dict[str, Any], learning: list[Tensor], gradients: list[Tensor], lr: float | Tensor
    ) -> None:
        """Update parameters with their gradients; the learning rate may be a scalar tensor on their device."""
        shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for p, gradient in zip(learning, gradients, strict=True):
            rows, columns = p.shape[-2:]
            shapes.setdefault((rows, columns), []).append((p, gradient))
        for (rows, columns), pairs in shapes.items():
            # Lists of tensors in one call each: on a GPU starting an operation takes longer than these do.
            matrices, slopes = [p for p, _ in pairs], [gradient for _, gradient in pairs]
            buffers = [self.state[p]["momentum_buffer"] for p in matrices]
            torch._foreach_lerp_(buffers, slopes, 1 - group["momentum"])
            updates = torch._foreach_lerp(slopes, buffers, group["momentum"])  # Nesterov
            stacked = torch.cat([update.reshape(-1, rows, columns) for update in updates])
            fast = gpu_has_fast_bf16() if stacked.is_cuda else cpu_has_fast_bf16()
            stacked = orthogonalise(stacked, group["steps"], torch.bfloat16 if fast else torch.float32)
            stacked = stacked.to(matrices[0].dtype) * (-math.sqrt(max(1.0, rows / columns)) * lr)
            parts = stacked.split([p.numel() // (rows * columns) for p in matrices])
            torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])
            torch._foreach_add_(matrices, [part.reshape(p.shape) for p, part in zip(matrices, parts, strict=True)])


class RecordedUpdate:
    """An optimiser's update of certain parameters as a CUDA graph.

    Args:
        gradients: of these parameters, for their shapes.
    """

    def __init__(self, gradients: list[Tensor]) -> None:
        self.gradients = [torch.empty_like(gradient) for gradient in gradients]
        self.lr = torch.zeros((), device=gradients[0].device)
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, gradients: list[Tensor], lr: float, update: Callable[[list[Tensor], Tensor], None]) -> bool:
        """Update with these gradients and this learning rate. False if that could not be recorded: nothing is done."""
        torch._foreach_copy_(self.gradients, gradients)
        self.lr.fill_(lr)
        if self.graph is None:
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph):
                    update(self.gradients, self.lr)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                warnings.warn(f"Muon without a CUDA graph, which is slower: {error}", stacklevel=2)
                return False
            self.graph = graph
        self.graph.replay()
        return True


def is_block_matrix(name: str, parameter: nn.Parameter, owner: nn.Module) -> bool:
    """Whether Muon trains this parameter: a weight matrix (or a stack of them) inside a transformer block."""
    inside = any(part in BLOCK_LISTS for part in name.split(".")[:-1])
    other = (nn.Embedding, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
    return inside and parameter.ndim in (2, 3) and not isinstance(owner, other)


def split_parameters(modules: Mapping[str, nn.Module]) -> dict[str, dict[str, nn.Parameter]]:
    """Sort the trainable parameters of `modules` by name into ``muon``, ``decay`` and ``no_decay``.

    ``decay`` holds AdamW's matrices and convolutions; ``no_decay`` vectors (norms, biases) and embeddings. A
    parameter that is shared appears once, under its first name; one without gradient does not appear.
    """
    groups: dict[str, dict[str, nn.Parameter]] = {"muon": {}, "decay": {}, "no_decay": {}}
    seen: set[int] = set()
    for prefix, module in modules.items():
        owners = dict(module.named_modules())
        for name, p in module.named_parameters():
            if not p.requires_grad or id(p) in seen:
                continue
            seen.add(id(p))
            owner = owners[name.rpartition(".")[0]]
            full = f"{prefix}.{name}"
            if is_block_matrix(full, p, owner):
                groups["muon"][full] = p
            elif p.ndim < 2 or isinstance(owner, nn.Embedding):
                groups["no_decay"][full] = p
            else:
                groups["decay"][full] = p
    return groups


def make_optimisers(
    modules: Mapping[str, nn.Module], lr: float, muon_lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon where `muon_lr` is above zero and there are block matrices.

    Every group remembers its full rate as ``peak``, which `set_rate` scales.
    """
    groups = split_parameters(modules)
    if not muon_lr:
        groups["decay"] |= groups.pop("muon")
        groups["muon"] = {}
    adamw = [
        {"params": list(groups[name].values()), "weight_decay": decay, "peak": lr}
        for name, decay in (("decay", weight_decay), ("no_decay", 0.0))
        if groups[name]
    ]
    optimisers: list[torch.optim.Optimizer] = []
    if adamw:
        optimisers.append(torch.optim.AdamW(adamw, lr=lr, betas=(0.9, 0.95), fused=True))
    if groups["muon"]:
        optimisers.append(Muon(groups["muon"].values(), lr=muon_lr, weight_decay=weight_decay))
        optimisers[-1].param_groups[0]["peak"] = muon_lr
    return optimisers


def rate(step: int, steps: int, warmup: int, floor: float) -> float:
    """The share of the full learning rate at a step: linear warm-up, then a cosine down to `floor`.

    Args:
        step: counted from 0.
        steps: length of the training.
        warmup: steps of warm-up.
        floor: share at the last step.
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimisers: Iterable[torch.optim.Optimizer], share: float) -> None:
    """Set every group's learning rate to a share of its full rate."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
