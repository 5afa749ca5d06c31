"""Which optimiser trains what, Muon against PyTorch's, and the learning-rate schedule."""

import pytest
import torch
from small_models import Tiny
from torch import nn

from muomni.train.optim import Muon, make_optimisers, orthogonalise, rate, set_rate, split_parameters


def test_muon_takes_the_blocks_matrices_and_nothing_else() -> None:
    model = Tiny()
    model.blocks = nn.ModuleList([nn.Conv1d(4, 4, 3), nn.Embedding(3, 4), nn.Linear(4, 4)])
    model.head.bias.requires_grad_(False)
    groups = split_parameters({"m": model})
    inside = [name for name, p in model.named_parameters() if name.startswith("stack.blocks") and p.ndim == 2]
    assert set(groups["muon"]) == {f"m.{name}" for name in [*inside, "blocks.2.weight"]} and len(inside) == 7
    assert set(groups["decay"]) == {"m.head.weight", "m.blocks.0.weight"}
    assert {"m.embedding.weight", "m.stack.norm.weight", "m.blocks.0.bias"} <= set(groups["no_decay"])
    assert not any("head.bias" in name for group in groups.values() for name in group)
    total = sum(p.numel() for group in groups.values() for p in group.values())
    assert total == sum(p.numel() for p in model.parameters() if p.requires_grad)
    both = make_optimisers({"m": model}, 1e-3, 0.02, 0.1)
    assert [type(optimiser) for optimiser in both] == [torch.optim.AdamW, Muon]
    one = make_optimisers({"m": model}, 1e-3, 0.0, 0.1)
    assert len(one) == 1 and sum(p.numel() for g in one[0].param_groups for p in g["params"]) == total


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_muon_agrees_with_pytorchs(shape: tuple[int, int]) -> None:
    torch.manual_seed(3)
    start, gradients = torch.randn(shape), [torch.randn(shape) for _ in range(3)]
    ends = []
    for make in (Muon, torch.optim.Muon):
        p = nn.Parameter(start.clone())
        optimiser = make([p], lr=0.02, weight_decay=0.1)
        for gradient in gradients:
            p.grad = gradient.clone()
            optimiser.step()
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=3e-3)  # PyTorch multiplies in bfloat16
    assert (ends[0] - start).norm() > 0.1


@pytest.mark.parametrize("columns", [6, 10, 12, 40])
def test_orthogonalise_does_each_matrix_alone(columns: int) -> None:
    torch.manual_seed(4)
    matrices = torch.randn(3, 6, columns) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    together = orthogonalise(matrices, 5, torch.float32)
    plain = orthogonalise(matrices.double(), 5, torch.float64).float()  # float64 takes the plain iteration
    torch.testing.assert_close(together, plain, rtol=0, atol=1e-3)
    torch.testing.assert_close(orthogonalise(matrices.mT, 5, torch.float32), plain.mT, rtol=0, atol=1e-3)
    alone = torch.cat([orthogonalise(m[None], 5, torch.float32) for m in matrices])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    values = torch.linalg.svdvals(together)
    assert values.max() < 1.3 and (columns == 6 or values.min() > 0.5)


def test_orthogonalise_bears_nearly_singular_matrices() -> None:
    torch.manual_seed(5)
    low = torch.randn(2, 64, 2) @ torch.randn(2, 2, 256) + 1e-4 * torch.randn(2, 64, 256)
    values = torch.linalg.svdvals(orthogonalise(low, 5, torch.float32))
    assert torch.isfinite(values).all() and values.max() < 1.3
    assert torch.equal(orthogonalise(torch.zeros(1, 4, 16), 5, torch.float32), torch.zeros(1, 4, 16))


def test_the_rate_warms_up_and_decays() -> None:
    shares = [rate(step, 100, 10, 0.1) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and shares[9] == shares[10] == 1.0
    assert all(a >= b for a, b in zip(shares[9:], shares[10:], strict=False))
    assert shares[-1] == pytest.approx(0.1)
    assert rate(0, 1, 0, 0.1) == 1.0
    optimisers = make_optimisers({"m": Tiny()}, 1e-3, 0.02, 0.0)
    set_rate(optimisers, 0.5)
    assert [group["lr"] for optimiser in optimisers for group in optimiser.param_groups] == [5e-4, 5e-4, 0.01]
