"""Drawing tokens, and the loop that continues a prompt."""

import pytest
import torch
from small_models import THINKER
from small_models import small_thinker as thinker

from muomni.decoder import Decoder
from muomni.sampling import Request, Sampling, answer_batch, answer_tokens, choose
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


@torch.no_grad()
def by_the_modules(model: Thinker, x: torch.Tensor, limit: int, sampling: Sampling, seed: int) -> list:
    """Tokens and states with the Thinker's own forward pass and cache."""
    cache, draws, made = model.new_cache(1, x.shape[1] + limit), rng(seed), []
    state = model(x, cache)[0, -1]
    for _ in range(limit):
        token = choose(model.logits(state), sampling, draws)
        state = model(model.embed(torch.tensor([[token]])), cache)[0, -1]
        made.append((token, state))
    return made


@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True}, {"n_experts": 4, "experts_per_token": 2}])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.5, top_k=40, top_p=0.9)])
@pytest.mark.parametrize("length", [1, 7, 100, THINKER.context - 1])
def test_tokens_and_states_are_those_of_the_modules(changes: dict, sampling: Sampling, length: int) -> None:
    model = thinker(**changes)
    x, limit = prompt(model, length), min(60, THINKER.context - length)
    for seed in range(2):
        wanted = by_the_modules(model, x, limit, sampling, seed)
        made = list(answer_tokens(model, x, (), 60, sampling, rng(seed)))
        assert [token for token, _ in made] == [token for token, _ in wanted]
        for (_, one), (_, other) in zip(made, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_cache_holds_what_stands_before_the_prompt() -> None:
    model = thinker()
    decoder, whole = Decoder(model), prompt(model, 30)
    wanted = [token for token, _ in answer_tokens(model, whole, (), 20, Sampling(), rng())]
    cache = decoder.new_cache(1, THINKER.context)
    decoder.read(whole[:, :21], cache)
    made = answer_tokens(decoder, whole[:, 21:], (), 500, Sampling(), rng(), cache=cache)
    tokens = [token for token, _ in made]
    assert tokens[:20] == wanted and len(tokens) == THINKER.context - 30 and cache.lengths == [THINKER.context]


def requests(model: Thinker, sampling: Sampling) -> list[Request]:
    """Prompts of several lengths that end for several reasons: a limit, the context, a stop token, at once."""
    lengths = [6, 1, 150, 33, 12, 160, 80, 6]
    limits = [20, 1, 40, 0, 35, 5, 60, 20]
    prompts = [prompt(model, length)[0] for length in lengths]
    free = [token for token, _ in answer_tokens(model, prompts[0][None], (), 20, sampling, rng(0))]
    return [
        Request(x, {free[4]} if index == 0 else (), limit, sampling, rng(index), {3, 5} if index % 2 else ())
        for index, (x, limit) in enumerate(zip(prompts, limits, strict=True))
    ]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.5, top_p=0.9)])
@pytest.mark.parametrize("changes", [{}, {"n_experts": 4, "experts_per_token": 2}])
def test_prompts_together_get_what_each_gets_alone(sampling: Sampling, changes: dict) -> None:
    model = thinker(**changes)
    found: list[list] = [[] for _ in range(8)]
    for index, token, state in answer_batch(model, requests(model, sampling)):
        found[index].append((token, state))
    for made, r in zip(found, requests(model, sampling), strict=True):
        alone = list(answer_tokens(model, r.prompt[None], r.stop, r.limit, r.sampling, r.rng, r.banned))
        assert [token for token, _ in made] == [token for token, _ in alone]
        for (_, one), (_, other) in zip(made, alone, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert [len(made) for made in found][1:] == [1, 10, 0, 35, 0, 60, 20] and len(found[0]) <= 5


def test_rows_that_ended_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = thinker(), []
    decoder = Decoder(model)
    step = decoder.step
    monkeypatch.setattr(decoder, "step", lambda tokens, cache: (rows.append(len(tokens)), step(tokens, cache))[1])
    limits = [2, 4, 6, 8, 30, 30, 30, 30]
    asked = [Request(prompt(model, 5)[0], (), limit, Sampling(), rng()) for limit in limits]
    made = list(answer_batch(decoder, asked))
    assert len(made) == sum(limits) and rows == [8] * 4 + [6] * 4 + [4] * 22
    assert [index for index, *_ in made[:8]] == list(range(8))


def test_nothing_to_continue_gives_nothing() -> None:
    model = thinker()
    assert list(answer_batch(model, [])) == []
    assert list(answer_batch(model, [Request(prompt(model)[0], (), 0, Sampling(), rng())])) == []
