"""The Thinker: cache, padding, loss, targets, mixture of experts."""

import pytest
import torch
import torch.nn.functional as F
from small_models import THINKER
from small_models import small_thinker as make
from small_models import token_ids as ids

from muomni import linear_cross_entropy
from muomni.config import parse
from muomni.errors import UserError
from muomni.layers import branch_positions
from muomni.thinker import Thinker, ThinkerConfig


@pytest.mark.parametrize("experts", [0, 4])
@torch.no_grad()
def test_cached_equals_uncached_token_by_token_and_in_chunks(experts: int) -> None:
    model, tokens = make(n_experts=experts, experts_per_token=2), ids(2, 24)
    x = model.embed(tokens)
    whole = model.logits(model(x))
    for prefill, step in ((1, 1), (10, 1), (10, 7), (23, 1)):
        cache = model.new_cache(2, 24)
        parts = [model(x[:, :prefill], cache)]
        for at in range(prefill, 24, step):
            parts.append(model(x[:, at : at + step], cache))
        assert cache.length == 24
        torch.testing.assert_close(model.logits(torch.cat(parts, 1)), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_first_token_reaches_the_last_logits_through_the_cache() -> None:
    model, tokens = make(), ids(1, 16)
    logits = []
    for first in (int(tokens[0, 0]), (int(tokens[0, 0]) + 1) % THINKER.vocab_size):
        tokens[0, 0] = first
        cache = model.new_cache(1, 16)
        for at in range(16):
            state = model(model.embed(tokens[:, at : at + 1]), cache)
        logits.append(model.logits(state))
    assert (logits[0] - logits[1]).abs().max() > 1e-4


@torch.no_grad()
def test_right_padding_changes_nothing() -> None:
    model, tokens = make(), ids(3, 20)
    alone = model(model.embed(tokens[:1, :13]))
    tokens[0, 13:] = 0
    torch.testing.assert_close(model(model.embed(tokens))[:1, :13], alone, atol=1e-5, rtol=1e-5)


def loss_and_gradients(model: Thinker, targets: torch.Tensor, select: bool = True) -> list[torch.Tensor | None]:
    """The loss, then every parameter's gradient."""
    loss = model.loss(model(model.embed(ids(3, 11))), targets, select)
    (3 * loss).backward()  # a factor, as where a loss is one of several
    return [loss.detach(), *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("chunk", [1 << 24, 5 * THINKER.vocab_size])  # 17 targets at once, or in chunks of 5
def test_chunked_loss_and_gradients_equal_plain_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, chunk: int, tied: bool
) -> None:
    targets = ids(3, 11, seed=1)
    targets[0, :5] = -100
    targets[2] = -100
    monkeypatch.setattr(linear_cross_entropy, "CHUNK_LOGITS", chunk)
    found = loss_and_gradients(make(tie_embeddings=tied), targets)
    model = make(tie_embeddings=tied)
    logits = model.logits(model(model.embed(ids(3, 11))))
    wanted = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    (3 * wanted).backward()
    for one, other in zip(found, [wanted.detach(), *(p.grad for p in model.parameters())], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        model = make(tie_embeddings=tied)
        torch.testing.assert_close(model.loss(model(model.embed(ids(3, 11))), targets), wanted.detach())
    found = loss_and_gradients(make(tie_embeddings=tied), targets, select=False)
    plain = loss_and_gradients(make(tie_embeddings=tied), targets)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_the_loss_of_an_impossible_target_is_finite() -> None:
    """Its probability is zero in fp32, its logarithm is not."""
    states, weight = torch.ones(1, 1, requires_grad=True), torch.tensor([[0.0], [500.0]])
    total = linear_cross_entropy.linear_cross_entropy(states, weight, torch.tensor([0]))
    total.backward()
    assert float(total.detach()) == 500 and states.grad is not None and float(states.grad) == 500


def test_under_autocast_the_loss_is_as_exact_as_its_products() -> None:
    torch.manual_seed(0)
    states, weight, targets = torch.randn(300, 32), torch.randn(500, 32) / 6, torch.randint(500, (300,))
    found = []
    for bf16 in (False, True):
        h, w = states.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            total = linear_cross_entropy.linear_cross_entropy(h, w, targets)
        total.backward()
        found.append((total.detach(), h.grad, w.grad))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-3, atol=0)
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        assert one is not None and other is not None and other.dtype == torch.float32
        assert float((one - other).norm() / one.norm()) < 0.01


def test_chunks_never_hold_more_logits_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_cross_entropy, "CHUNK_LOGITS", 4 * THINKER.vocab_size)
    model = make()
    with torch.profiler.profile(record_shapes=True) as recorded:
        model.loss(model(model.embed(ids(4, 30))), ids(4, 30)).backward()
    rows = [event.input_shapes[0][0] for event in recorded.events() if event.name == "aten::softmax"]
    assert set(rows) == {4} and len(rows) == 30


def test_loss_without_targets_is_zero_and_not_nan() -> None:
    model = make()
    loss = model.loss(model(model.embed(ids(1, 4))), torch.full((1, 4), -100))
    assert float(loss.detach()) == 0
    loss.backward()


def test_targets_are_scored_where_they_stand() -> None:
    """States at t against targets[t]: a second shift in the loss would score another token."""
    model, targets = make(), ids(1, 9, seed=3)
    states = torch.zeros(1, 9, THINKER.d_model)
    states[0, :, :9] = torch.eye(9) * 40  # position t points at dimension t
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.weight[targets[0], torch.arange(9)] = 1
    assert float(model.loss(states, targets).detach()) < 1e-3
    assert float(model.loss(states[:, 1:], targets[:, :-1]).detach()) > 5


def test_it_learns_to_say_the_next_token_of_a_sequence() -> None:
    torch.manual_seed(0)
    model, tokens = Thinker(THINKER).train(), torch.randperm(THINKER.vocab_size)[:20][None]
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = model.loss(model(model.embed(tokens[:, :-1])), tokens[:, 1:])
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        said = model.logits(model(model.embed(tokens[:, :-1]))).argmax(-1)
    assert float(loss) < 0.05 and torch.equal(said, tokens[:, 1:])


def test_tied_head_is_the_embedding_and_counts_once() -> None:
    tied, untied = make(tie_embeddings=True), make()
    assert tied.head.weight is tied.embedding.weight
    size = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters())
    assert size == THINKER.vocab_size * THINKER.d_model


def test_balance_loss_is_weighted_and_dense_models_have_none() -> None:
    x = torch.randn(2, 8, THINKER.d_model, generator=torch.Generator().manual_seed(0))
    dense, mixture = make(), make(n_experts=4, experts_per_token=2, balance_weight=0.5)
    dense(x), mixture(x)
    assert dense.balance_loss() is None
    loss = mixture.balance_loss()
    assert loss is not None and 0.5 * 0.9 < float(loss) < 0.5 * 4
    loss.backward()
    assert all(b.feed_forward.router.weight.grad.abs().max() > 0 for b in mixture.stack.blocks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 3}, "not a multiple"),
        ({"n_kv_heads": 3}, "not a multiple"),
        ({"n_experts": 2, "experts_per_token": 4}, "exceeds"),
        ({"vocab_size": 3}, "vocab_size"),
        ({"d_model": "wide"}, "d_model"),
        ({"layers": 3}, "unknown key"),
    ],
)
def test_bad_shapes_are_refused_by_name(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(ThinkerConfig, THINKER.model_dump() | changes, "params.yaml: thinker")


@torch.no_grad()
def test_branches_of_a_sequence_are_what_each_is_alone() -> None:
    model, beginning = make(), ids(4)
    tails = [ids(n, seed=n) for n in (3, 1, 5)]
    tokens = torch.cat([beginning, *tails, ids(2)])  # two of padding
    branches = torch.tensor([0] * 4 + [1] * 3 + [2] + [3] * 5 + [0, 0])
    assert branch_positions(branches[None])[0, :-2].tolist() == [0, 1, 2, 3, 4, 5, 6, 4, 4, 5, 6, 7, 8]
    plain = torch.zeros_like(branches)  # another row of the batch that does not branch
    states = model(model.embed(torch.stack([tokens, tokens])), branches=torch.stack([branches, plain]))
    at = 4
    for tail in tails:
        alone = model(model.embed(torch.cat([beginning, tail])[None]))[0]
        torch.testing.assert_close(states[0, at : at + len(tail)], alone[4:], atol=1e-5, rtol=1e-5)
        at += len(tail)
    torch.testing.assert_close(states[1], model(model.embed(tokens[None]))[0], atol=1e-5, rtol=1e-5)
