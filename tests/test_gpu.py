"""What only a GPU does: recorded steps give what single operations give. Skipped where there is no GPU."""

import asyncio
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import THINKER
from small_models import small_thinker as make
from small_models import token_ids as ids
from torch import Tensor, nn

from muomni.conversation import Conversation
from muomni.decoder import Decoder
from muomni.device import pick_device
from muomni.linear_cross_entropy import linear_cross_entropy
from muomni.omni import Omni
from muomni.params import read_params
from muomni.sampling import Request, Sampling, answer_batch, answer_tokens
from muomni.serve.engine import Engine, Options, Sound
from muomni.tokenizer import Tokenizer
from muomni.train.a_thinker import ThinkerTask
from muomni.train.optim import Muon
from muomni.train.parts import EAGER_STEPS, Parts
from muomni.train.task import TrainConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
SMOKE = Path(__file__).parents[1] / "profiles" / "smoke.yaml"
CFG = TrainConfig(
    **dict(steps=9, batch_size=2, accumulate=1, lr=0.01, muon_lr=0.02, weight_decay=0.1, warmup=1, min_lr=0.1, clip=1),
    **dict(eval_every=9, save_every=9, checkpointing=False, max_bad_steps=0),
)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def split(answer: Iterator[tuple[int, Tensor]]) -> tuple[list[int], Tensor]:
    """Tokens and states ``[T, D]`` on the CPU."""
    made = list(answer)
    return [token for token, _ in made], torch.stack([state for _, state in made]).cpu()


@pytest.mark.parametrize("shape", [{}, {"tie_embeddings": True}, {"n_kv_heads": 1}])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, top_p=0.9)])
def test_recorded_writing_gives_the_tokens_of_the_cpu(shape: dict[str, Any], sampling: Sampling) -> None:
    model = make(**shape)
    plain, banned = Decoder(model), set(range(0, THINKER.vocab_size, 3))
    decoder = Decoder(make(**shape).cuda())
    for length, limit, forbidden in (
        (9, 40, set()),
        (1, 100, banned),
        (30, 1, set()),
        (9, 500, banned),
        (9, 60, set()),
    ):
        x = model.embed(ids(1, length)).detach()
        tokens, states = split(answer_tokens(plain, x, (), limit, sampling, rng(), forbidden))
        made, read = split(answer_tokens(decoder, x.cuda(), (), limit, sampling, rng(), forbidden))
        assert made == tokens and decoder.graphs
        torch.testing.assert_close(read, states, atol=1e-3, rtol=1e-3)
    assert all((cache.greedy if sampling.temperature == 0 else cache.graph) for cache in decoder.spare.values())


def test_an_answer_that_is_left_early_spoils_no_other() -> None:
    model = make()
    decoder, x = Decoder(make().cuda()), model.embed(ids(1, 9)).detach()
    wanted, _ = split(answer_tokens(model, x, (), 40, Sampling(), rng()))
    stopped, _ = split(answer_tokens(decoder, x.cuda(), {wanted[5]}, 40, Sampling(), rng()))
    assert stopped == wanted[: wanted.index(wanted[5]) + 1]
    one = answer_tokens(decoder, x.cuda(), (), 40, Sampling(), rng())
    begun = [next(one)[0] for _ in range(7)]
    other, _ = split(answer_tokens(decoder, x.cuda(), (), 40, Sampling(), rng()))  # meanwhile
    assert begun + [token for token, _ in one] == other == wanted
    cache = decoder.new_cache(1, THINKER.context)
    kept = answer_tokens(decoder, x.cuda(), (), 40, Sampling(), rng(), cache=cache)
    for _ in range(5):
        next(kept)
    kept.close()
    assert cache.lengths == [14]
    rest = decoder.embed(torch.tensor([[wanted[5]]], device="cuda"))
    again, _ = split(answer_tokens(decoder, rest, (), 34, Sampling(), rng(), cache=cache))
    assert again == wanted[6:]


def test_answers_together_are_those_alone() -> None:
    decoder = Decoder(make().cuda())
    prompts = [decoder.embed(ids(n, seed=n).cuda()) for n in (1, 20, 7)]
    together: list[list[int]] = [[], [], []]
    asked = [Request(x, (), 12 + n, Sampling(), rng(), {n}) for n, x in enumerate(prompts)]
    for index, token, _ in answer_batch(decoder, asked):
        together[index].append(token)
    for n, x in enumerate(prompts):
        alone, _ = split(answer_tokens(decoder, x[None], (), 12 + n, Sampling(), rng(), {n}))
        assert together[n] == alone


class Text:
    """The part of stage A that `Parts` uses."""

    same_shapes = True
    loss = ThinkerTask.loss

    def __init__(self) -> None:
        self.thinker, self.checkpointing = make().cuda().train(), False
        self.modules = {"thinker": self.thinker}


def test_a_recorded_gradient_is_that_of_single_operations() -> None:
    device = pick_device(read_params(SMOKE).device.model_copy(update={"name": "cuda", "precision": "fp32"}))
    found: list[list[Tensor]] = []
    for recording in (True, False):
        task = Text()
        parameters = list(task.thinker.parameters())
        parts = Parts("text", task, CFG, 0, device, {"parts": 1, "checkpointing": False}, parameters)  # type: ignore[arg-type]
        assert parts.recording
        parts.recording, optimiser = recording, torch.optim.SGD(parameters, lr=0.1)
        steps: list[Tensor] = []
        for step in range(EAGER_STEPS + 4):
            optimiser.zero_grad()
            tokens = ids(2, 13, seed=step)
            loss, values = parts.backward(step, 0, (tokens[:, :-1], tokens[:, 1:]))
            optimiser.step()
            assert values["tokens"] == 24
            steps += [loss.clone(), *(p.grad.clone() for p in parameters if p.grad is not None)]
        assert (parts.recorded is not None) == recording
        found.append(steps)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert not torch.equal(found[0][0], found[0][-len(parameters) - 1])


def test_muon_recorded_is_muon() -> None:
    ends = []
    for recording in (True, False):
        torch.manual_seed(1)
        matrices = [nn.Parameter(torch.randn(shape, device="cuda")) for shape in ((24, 8), (8, 24), (24, 8), (3, 8, 8))]
        optimiser = Muon(matrices, lr=0.02, weight_decay=0.1)
        optimiser.recording = recording
        for step in range(8):
            for number, p in enumerate(matrices):  # some have a gradient now and then only
                p.grad = torch.randn_like(p) if number < 2 or step % 3 == 0 else None
            optimiser.param_groups[0]["lr"] = 0.02 / (1 + step)
            optimiser.step()
        assert len(optimiser.recorded) == 2 * recording
        ends.append([p.detach() for p in matrices])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_loss_is_that_of_the_cpu() -> None:
    torch.manual_seed(0)
    states, weight, targets = torch.randn(300, 32), torch.randn(500, 32), torch.randint(500, (300,))
    targets[::7] = -100
    found = []
    for place in ("cpu", "cuda"):
        h, w = (x.to(place).requires_grad_() for x in (states.clone(), weight.clone()))
        total = linear_cross_entropy(h, w, targets.to(place))
        total.backward()
        found.append([total.detach().cpu(), *(x.grad.cpu() for x in (h, w) if x.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_answers_made_together_are_those_of_the_cpu(small: tuple[Omni, Tokenizer]) -> None:
    """Written and spoken by the engine of `muomni serve`."""
    model, tokenizer = small
    gpu = copy.deepcopy(model).cuda()
    questions = ["Hi", "What is in the picture?", "How many dogs do you see?"]

    async def ask(engine: Engine, where: Omni) -> list[tuple[str, int]]:
        async def one(text: str) -> tuple[str, int]:
            conversation = Conversation(where, tokenizer)
            prompt = conversation.prompt(conversation.message(text), 30)
            events = [event async for event in engine.ask(prompt, Options(max_tokens=30, speak=True))]
            text = "".join(getattr(event, "piece", "") for event in events)
            return text, sum(len(event.wave) for event in events if isinstance(event, Sound))

        return list(await asyncio.gather(*(one(text) for text in questions)))

    found = []
    for where in (model, gpu):
        engine = Engine(where, tokenizer, slots=2)
        found.append(asyncio.run(ask(engine, where)))
        engine.close()
    (words, sounds), (words_gpu, sounds_gpu) = (zip(*one, strict=True) for one in found)
    assert words == words_gpu and any(sounds)
    assert all(sounds_gpu[n] > 0 for n, length in enumerate(sounds) if length)
