"""The Thinker laid out for writing: the states of its modules, one token at a time, in rows, and in fewer bits."""

import math

import pytest
import torch
from small_models import THINKER, small_thinker
from small_models import token_ids as ids

from muomni import decoder as decoder_file
from muomni import matrix as matrix_file
from muomni.decoder import Decoder
from muomni.errors import UserError
from muomni.matrix import Matrix, Weights
from muomni.sampling import Sampling, answer_tokens
from muomni.thinker import Thinker

SHAPES = {
    "shared keys": {},
    "tied head": {"tie_embeddings": True},
    "experts": {"n_experts": 4, "experts_per_token": 2},
    "a key to a head": {"n_kv_heads": 4},
    "one key": {"n_kv_heads": 1},
}
CONTEXT = THINKER.context


def make(**changes: object) -> Thinker:
    model = small_thinker(**changes)
    with torch.no_grad():
        for block in model.stack.blocks:  # training moves the gains away from 1
            block.norm1.weight.uniform_(0.5, 2)
            block.norm2.weight.uniform_(0.5, 2)
        model.stack.norm.weight.uniform_(0.5, 2)
    return model


def reference(model: Thinker, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(model.embed(tokens))


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("prompt", [1, 2, 31, CONTEXT - 1, CONTEXT])
def test_states_and_logits_are_those_of_the_modules(shape: str, prompt: int) -> None:
    model, tokens = make(**SHAPES[shape]), ids(1, CONTEXT)
    wanted, decoder = reference(model, tokens), Decoder(model)
    cache = decoder.new_cache(1, CONTEXT)
    parts = [decoder.read(decoder.embed(tokens[:, :prompt]), cache)]
    parts += [decoder.step([int(token)], cache)[:, None] for token in tokens[0, prompt:]]
    states = torch.cat(parts, dim=1)
    close(states, wanted)
    with torch.no_grad():
        close(decoder.logits(states), model.logits(wanted))
    assert cache.lengths == [CONTEXT]
    with pytest.raises(ValueError, match="161 positions"):
        decoder.step([1], cache)


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_in_pieces_is_reading_at_once(shape: str) -> None:
    model, tokens = make(**SHAPES[shape]), ids(2, 40)
    decoder, wanted = Decoder(model), reference(model, tokens)
    x = decoder.embed(tokens)
    close(decoder(x), wanted)
    for sizes in ((13, 27), (1, 1, 38), (20, 1, 19)):
        cache = decoder.new_cache(2, 50)
        close(torch.cat([decoder.read(part, cache) for part in x.split(sizes, dim=1)], dim=1), wanted)


def test_a_cache_that_is_set_back_forgets() -> None:
    model = make()
    decoder, one, other = Decoder(model), ids(1, 30), ids(1, 30, seed=1)
    cache = decoder.new_cache(1, CONTEXT)
    decoder.read(decoder.embed(one), cache)
    cache.lengths = [12]
    states = decoder.read(decoder.embed(other[:, 12:]), cache)
    close(states, reference(model, torch.cat((one[:, :12], other[:, 12:]), dim=1))[:, 12:])


def test_rows_of_different_lengths_go_on_at_their_own_positions() -> None:
    model, lengths = make(), [3, 17, 1, 9]
    decoder, tokens, more = Decoder(model), ids(4, 17), ids(4, 6, seed=1)
    cache = decoder.new_cache(4, 30)
    states = decoder.read(decoder.embed(tokens), cache)
    cache.lengths = list(lengths)
    wholes = [torch.cat((tokens[row, :n], more[row]))[None] for row, n in enumerate(lengths)]
    for row, n in enumerate(lengths):
        close(states[row, :n], reference(model, wholes[row])[0, :n])
    for at in range(3):
        made = decoder.step(more[:, at].tolist(), cache)
        for row, n in enumerate(lengths):
            close(made[row], reference(model, wholes[row])[0, n + at])
    cache.keep([3, 1])
    for at in range(3, 6):
        made = decoder.step(more[[3, 1], at].tolist(), cache)
        for place, row in enumerate((3, 1)):
            close(made[place], reference(model, wholes[row])[0, lengths[row] + at])
    assert cache.lengths == [15, 23]
    with pytest.raises(ValueError, match="one token at a time"):
        decoder.read(decoder.embed(tokens[:2]), cache)


def test_a_step_with_tensors_for_positions_is_the_same_step() -> None:
    """What a CUDA graph records, over a whole cache with rubbish in the positions that are not filled yet."""
    model, tokens = make(), ids(1, 20)
    decoder, wanted = Decoder(model), reference(model, tokens)
    cache = decoder.new_cache(1, 40)
    cache.kv.normal_()
    decoder.read(decoder.embed(tokens[:, :8]), cache)
    for at in range(8, 20):
        close(decoder.step_at(tokens[:, at], torch.tensor([at]), cache.kv), wanted[:, at])


def test_autocast_and_gradients_do_not_reach_it() -> None:
    model, tokens = make(), ids(1, 20)
    wanted, decoder = reference(model, tokens), Decoder(model)
    x = model.embed(tokens)
    assert x.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        states = decoder(x)
        made = [state for _, state in answer_tokens(model, x, (), 4, Sampling(), torch.Generator())]
    close(states, wanted)
    assert not states.requires_grad and states.dtype == torch.float32
    plain = [state for _, state in answer_tokens(model, x, (), 4, Sampling(), torch.Generator())]
    assert torch.equal(torch.stack(made), torch.stack(plain))
    head = torch.nn.Linear(THINKER.d_model, 1)
    head(torch.stack(made)).sum().backward()  # what comes out may be learned from: it is no inference tensor
    assert head.weight.grad is not None


def test_the_models_own_weights_stay_as_they_are() -> None:
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for weights in ("fp32", "int8"):
        list(answer_tokens(Decoder(model, weights), model.embed(ids(1, 9)), (), 5, Sampling(), torch.Generator()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


# Rounding: 8 bits of bf16 are 2^-9 of a number, 127 steps of int8 are 1/254 of a row's largest.
@pytest.mark.parametrize(("weights", "error"), [("fp32", 1e-6), ("bf16", 2**-8), ("int8", 2**-6)])
@pytest.mark.parametrize("rows", [1, 3, 16, 17, 40])
def test_matrices_err_as_much_as_their_bits_say(
    weights: Weights, error: float, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(96, 64, generator=draw), torch.randn(rows, 1, 64, generator=draw)
    weight[5] = 0  # a row without a largest
    wanted = x @ weight.T
    found = Matrix(weight, weights)(x)
    assert found.shape == wanted.shape and found.dtype == torch.float32 and not found[..., 5].any()
    assert float((found - wanted).norm() / wanted.norm()) < error
    if weights != "fp32":
        assert float((found - wanted).abs().max()) > 1e-4


@pytest.mark.parametrize(("weights", "error"), [("bf16", 0.01), ("int8", 0.03)])
def test_fewer_bits_change_states_a_little(weights: Weights, error: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix_file, "cpu_has_fast_bf16", lambda: True)  # slow ones compute it as well
    model, tokens = make(), ids(2, 60)
    decoder, wanted = Decoder(model, weights), reference(model, tokens)
    cache = decoder.new_cache(2, 60)
    parts = [decoder.read(decoder.embed(tokens[:, :40]), cache)]
    parts += [decoder.step(tokens[:, at].tolist(), cache)[:, None] for at in range(40, 60)]
    difference = torch.cat(parts, dim=1) - wanted
    assert 1e-4 < float(difference.norm() / wanted.norm()) < error


def test_weights_that_are_not_known_or_slow_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    with pytest.raises(UserError, match="not known"):
        Decoder(model, "int4")  # type: ignore[arg-type]
    monkeypatch.setattr(matrix_file, "cpu_has_fast_bf16", lambda: False)
    with pytest.raises(UserError, match="does not multiply bfloat16"):
        Decoder(model, "bf16")
    Decoder(model, "int8")


def test_a_step_that_cannot_be_recorded_is_taken_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise RuntimeError("no capture")

    monkeypatch.setattr(decoder_file, "StepGraph", refuse)
    model, tokens = make(), ids(1, 12)
    decoder = Decoder(model)
    decoder.graphs = True  # as on a GPU
    cache = decoder.new_cache(1, 12)
    decoder.read(decoder.embed(tokens[:, :4]), cache)
    with pytest.warns(UserWarning, match="no capture"):
        states = [decoder.step([int(tokens[0, 4])], cache)]
    states += [decoder.step([int(token)], cache) for token in tokens[0, 5:]]  # it does not try again
    close(torch.cat(states), reference(model, tokens)[0, 4:])


def test_norm_is_rms_norm_for_any_size_of_state() -> None:
    model = make()
    decoder = Decoder(model)
    for size in (0.0, 1e-4, 1e-2, 1.0, 1e3):
        x = size * torch.randn(1, 5, THINKER.d_model, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            close(decoder.normalise(x, decoder.norm), model.stack.norm(x), 1e-6)
    assert math.isfinite(float(decoder.normalise(torch.zeros(1, 1, THINKER.d_model), decoder.norm).sum()))
