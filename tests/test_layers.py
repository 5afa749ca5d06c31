"""The transformer's parts against their formulas."""

import math

import pytest
import torch
from small_models import enlarge
from torch import nn

from muomni.layers import (
    Attention,
    Block,
    KVCache,
    MoE,
    RMSNorm,
    Stack,
    Standardise,
    SwiGLU,
    Whiten,
    rope_table,
    rotate,
)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stack(causal: bool, positions: int = 32, kv_heads: int = 2, layers: int = 2) -> Stack:
    torch.manual_seed(0)
    blocks = [Block(16, 4, kv_heads, SwiGLU(16, 24), causal) for _ in range(layers)]
    return enlarge(Stack(blocks, 16, positions))


def test_rms_norm_is_its_formula() -> None:
    norm = RMSNorm(8, eps=1e-5)
    nn.init.normal_(norm.weight)
    x = randn(3, 5, 8) * 7
    wanted = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), wanted)


def test_standardise_measures_and_inverts() -> None:
    layer, x = Standardise(4), randn(500, 4) * torch.tensor([1.0, 5.0, 0.1, 0.0]) + 3
    layer.measure(x)
    y = layer(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(y.std(0)[:3], torch.ones(3), atol=1e-3, rtol=0)
    assert y.isfinite().all()  # a bin that never moves
    torch.testing.assert_close(layer.inverse(y), x)


def test_rope_depends_on_distance_only() -> None:
    cos, sin = rope_table(64, 8, 10000.0)
    q, k = randn(1, 1, 1, 8, seed=1), randn(1, 1, 1, 8, seed=2)

    def product(i: int, j: int) -> float:
        return float((rotate(q, cos[i : i + 1], sin[i : i + 1]) * rotate(k, cos[j : j + 1], sin[j : j + 1])).sum())

    assert product(5, 2) == pytest.approx(product(43, 40), abs=1e-4)
    assert product(5, 2) != pytest.approx(product(5, 3), abs=1e-3)
    torch.testing.assert_close(rotate(q, cos[:1], sin[:1]), q)  # position 0 is not turned
    assert rotate(q, cos[9:10], sin[9:10]).norm() == pytest.approx(float(q.norm()), abs=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_equals_the_formula_with_expanded_heads(kv_heads: int, causal: bool) -> None:
    torch.manual_seed(1)
    attention, x = Attention(16, 4, kv_heads, causal), randn(2, 7, 16)
    rope = tuple(t[:7] for t in rope_table(7, 4, 10000.0))
    q = rotate(attention.query(x).view(2, 7, 4, 4).transpose(1, 2), *rope)
    k = rotate(attention.key(x).view(2, 7, kv_heads, 4).transpose(1, 2), *rope)
    v = attention.value(x).view(2, 7, kv_heads, 4).transpose(1, 2)
    heads = []
    for head in range(4):
        group = head // (4 // kv_heads)  # neighbouring heads share
        scores = q[:, head] @ k[:, group].transpose(1, 2) / math.sqrt(4)
        if causal:
            scores = scores.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)
        heads.append(scores.softmax(-1) @ v[:, group])
    wanted = attention.out(torch.cat(heads, dim=-1))
    torch.testing.assert_close(attention(x, rope), wanted, atol=1e-5, rtol=1e-4)


def test_causal_stack_does_not_see_the_future_and_the_other_does() -> None:
    x = randn(1, 9, 16)
    changed = x.clone()
    changed[:, 6] += 1
    for causal in (True, False):
        model = stack(causal)
        before, after = model(x)[:, :6], model(changed)[:, :6]
        assert torch.equal(before, after) == causal


@pytest.mark.parametrize("chunks", [[1] * 12, [5, 1, 1, 4, 1], [3, 9], [12], [11, 1]])
def test_cached_equals_uncached(chunks: list[int]) -> None:
    model, x = stack(causal=True), randn(2, 12, 16)
    cache = model.new_cache(2, 12)
    parts, at = [], 0
    for size in chunks:
        parts.append(model(x[:, at : at + size], cache=cache))
        at += size
    torch.testing.assert_close(torch.cat(parts, 1), model(x), atol=1e-5, rtol=1e-5)


def test_cache_keeps_every_earlier_position() -> None:
    model, x = stack(causal=True, layers=1), randn(1, 8, 16)
    last = []
    for changed in range(-1, 7):
        y = x.clone()
        if changed >= 0:
            y[:, changed] += 1
        cache = model.new_cache(1, 8)
        model(y[:, :7], cache=cache)
        last.append(model(y[:, 7:], cache=cache)[0, -1])
    for position in range(7):
        assert (last[position + 1] - last[0]).abs().max() > 1e-4, f"position {position} is not attended to"


def test_cache_and_context_refuse_more_than_they_hold() -> None:
    model = stack(causal=True, positions=8)
    cache = model.new_cache(1, 4)
    with pytest.raises(ValueError, match="holds 4 positions, 5"):
        model(randn(1, 5, 16), cache=cache)
    with pytest.raises(ValueError, match="9 positions, the context holds 8"):
        model(randn(1, 9, 16))
    assert isinstance(cache, KVCache) and cache.length == 0


@pytest.mark.parametrize("positions", [32, 0])
def test_mask_makes_padding_invisible(positions: int) -> None:
    model, x = stack(causal=False, positions=positions), randn(2, 9, 16)
    x[1, 5:] = 100
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 5:] = False
    torch.testing.assert_close(model(x, mask=mask)[1, :5], model(x[1:, :5])[0], atol=1e-5, rtol=1e-5)


def test_checkpointing_gives_equal_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = stack(causal=True)
        model(randn(2, 6, 16), checkpointing=checkpointing).square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(stack(True).parameters()))
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def moe(experts: int = 4, top: int = 2) -> MoE:
    torch.manual_seed(0)
    return MoE(8, 12, experts, top)


def test_moe_is_the_weighted_sum_of_its_best_experts() -> None:
    layer, x = moe(), randn(2, 5, 8)
    flat = x.view(-1, 8)
    probability = layer.router(flat).softmax(-1)
    for row, out in zip(range(10), layer(x).view(-1, 8), strict=True):
        weight, chosen = probability[row].topk(2)
        wanted = sum(w / weight.sum() * layer.experts[c](flat[row]) for w, c in zip(weight, chosen, strict=True))
        torch.testing.assert_close(out, wanted, atol=1e-6, rtol=1e-5)


def test_moe_balance_loss_is_1_when_even_and_the_experts_when_collapsed() -> None:
    layer = moe(experts=4, top=1)
    with torch.no_grad():
        layer.router.weight.copy_(torch.eye(4, 8) * 50)
    layer(torch.eye(4, 8)[None])  # each position to its own expert
    assert float(layer.balance.detach()) == pytest.approx(1, abs=1e-3)
    layer(torch.eye(4, 8)[:1].repeat(1, 6, 1))
    assert float(layer.balance.detach()) == pytest.approx(4, abs=1e-3)
    with torch.no_grad():
        layer.router.weight.zero_()
    layer(randn(1, 6, 8))  # an undecided router: even probabilities
    assert float(layer.balance.detach()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("top", [1, 2])
def test_moe_router_and_used_experts_learn(top: int) -> None:
    layer = moe(top=top)
    layer(randn(4, 16, 8)).square().mean().backward()  # without the balance loss
    assert layer.router.weight.grad is not None and layer.router.weight.grad.abs().max() > 1e-6
    assert all(e.down.weight.grad is not None and e.down.weight.grad.abs().max() > 0 for e in layer.experts)


def test_whitened_vectors_lie_apart_in_every_direction() -> None:
    torch.manual_seed(3)
    x = 5 + torch.randn(400, 8) @ torch.diag(torch.tensor([1.0, 0.3, 0.1, 0.1, 0.05, 0.05, 0.02, 0.02]))
    whiten = Whiten(8)
    assert torch.equal(whiten(x), x), "nothing is changed before it is measured"
    whiten.measure(x)
    y = whiten(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(8), atol=1e-3, rtol=0)
    covariance = y.T @ y / len(y)
    # The floor, a thousandth of the average variance, holds back what hardly varies.
    assert (covariance.diagonal() > 0.7).all() and (covariance - covariance.diagonal().diag()).abs().max() < 0.05
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(whiten(x), y), "half precision would round the differences away"
