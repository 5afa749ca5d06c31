"""Drawing tokens, and the loop that continues a prompt."""

import pytest
import torch
from small_models import THINKER, enlarge

from muomni.sampling import Sampling, answer_tokens, choose
from muomni.thinker import Thinker

LOGITS = torch.tensor([1.0, 3.0, 2.0, -4.0, 2.5])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shares(sampling: Sampling, draws: int = 1500) -> torch.Tensor:
    generator = rng()
    drawn = torch.tensor([choose(LOGITS, sampling, generator) for _ in range(draws)])
    return torch.bincount(drawn, minlength=5) / draws


def test_temperature_0_takes_the_likeliest() -> None:
    assert {choose(LOGITS, Sampling(), rng(seed)) for seed in range(20)} == {1}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_scales_the_logits(temperature: float) -> None:
    wanted = (LOGITS / temperature).softmax(-1)
    torch.testing.assert_close(shares(Sampling(temperature=temperature)), wanted, atol=0.05, rtol=0)


def test_top_k_and_top_p_leave_the_likeliest() -> None:
    assert (shares(Sampling(temperature=1.0, top_k=2)) > 0).tolist() == [False, True, False, False, True]
    assert (shares(Sampling(temperature=1.0, top_k=1)) > 0).tolist() == [False, True, False, False, False]
    assert (shares(Sampling(temperature=1.0, top_k=50)) > 0).sum() >= 4
    # Chances: 1 0.47, 4 0.28, 2 0.17, 0 0.06: 0.5 takes the first two, since the first alone does not fill it.
    assert (shares(Sampling(temperature=1.0, top_p=0.5)) > 0).tolist() == [False, True, False, False, True]
    assert (shares(Sampling(temperature=1.0, top_p=0.01)) > 0).tolist() == [False, True, False, False, False]
    two = shares(Sampling(temperature=1.0, top_p=0.5))
    torch.testing.assert_close(two[[1, 4]], LOGITS[[1, 4]].softmax(-1), atol=0.05, rtol=0)


def thinker() -> Thinker:
    torch.manual_seed(0)
    model = enlarge(Thinker(THINKER).eval())
    with torch.no_grad():
        model.embedding.weight.mul_(10)
        model.head.weight.mul_(10)
    return model


def prompt(model: Thinker, length: int = 6) -> torch.Tensor:
    return model.embed(torch.randint(THINKER.vocab_size, (1, length), generator=rng(5))).detach()


@torch.no_grad()
def test_answer_equals_full_recomputation_and_gives_the_state_after_each_token() -> None:
    model = thinker()
    x = prompt(model)
    made = list(answer_tokens(model, x, (), 20, Sampling(), rng()))
    assert len(made) == 20
    for token, state in made:
        assert int(model.logits(model(x))[0, -1].argmax()) == token
        x = torch.cat((x, model.embed(torch.tensor([[token]]))), dim=1)
        torch.testing.assert_close(state, model(x)[0, -1], atol=1e-5, rtol=1e-5)


def test_it_stops_at_a_stop_token_and_gives_it() -> None:
    model = thinker()
    free = [token for token, _ in answer_tokens(model, prompt(model), (), 20, Sampling(), rng())]
    stop = free[4]
    stopped = [token for token, _ in answer_tokens(model, prompt(model), {stop}, 20, Sampling(), rng())]
    assert stopped == free[: free.index(stop) + 1]


def test_banned_tokens_are_never_drawn() -> None:
    model = thinker()
    banned = set(range(0, THINKER.vocab_size, 2))
    for sampling in (Sampling(), Sampling(temperature=5.0)):
        made = [token for token, _ in answer_tokens(model, prompt(model), (), 60, sampling, rng(), banned)]
        assert len(made) == 60 and not banned & set(made)


@pytest.mark.parametrize(("limit", "length", "tokens"), [(500, 150, 10), (3, 6, 3), (0, 6, 0), (5, 160, 0)])
def test_an_answer_never_exceeds_limit_or_context(limit: int, length: int, tokens: int) -> None:
    model = thinker()
    assert len(list(answer_tokens(model, prompt(model, length), (), limit, Sampling(), rng()))) == tokens


def test_same_seed_same_answer_and_another_seed_another() -> None:
    model, sampling = thinker(), Sampling(temperature=2.0)
    torch.manual_seed(1)
    first = [t for t, _ in answer_tokens(model, prompt(model), (), 20, sampling, rng(3))]
    torch.manual_seed(2)
    assert [t for t, _ in answer_tokens(model, prompt(model), (), 20, sampling, rng(3))] == first
    assert [t for t, _ in answer_tokens(model, prompt(model), (), 20, sampling, rng(4))] != first
