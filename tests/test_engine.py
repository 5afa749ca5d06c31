"""Answers that are made together: equal to those made alone, in any company, whoever leaves."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from muomni.conversation import Conversation, Prompt
from muomni.generate import Session, TextStream, last
from muomni.omni import Omni
from muomni.reading_aloud import say
from muomni.sampling import Sampling
from muomni.serve.engine import Closed, End, Engine, Event, Full, Options, Reply, Sound, Text, Token
from muomni.serve.writer import Held, overlap
from muomni.tokenizer import Tokenizer

Small = tuple[Omni, Tokenizer]
QUESTIONS = ["Hi", "What is in the picture?", "How many dogs do you see? And how many cats, and why?", "Where is it?"]


@pytest.fixture
def engine(small: Small) -> Iterator[Engine]:
    engine = Engine(*small, slots=4)
    yield engine
    engine.close()


def prompt(small: Small, text: str, reserve: int = 40) -> Prompt:
    conversation = Conversation(*small)
    return conversation.prompt(conversation.message(text), reserve)


def text_of(events: list[Event]) -> str:
    return "".join(event.piece for event in events if isinstance(event, Token | Text))


def sound_of(events: list[Event]) -> torch.Tensor:
    return torch.cat([event.wave for event in events if isinstance(event, Sound)] or [torch.zeros(0)])


async def collect(reply: Reply) -> list[Event]:
    return [event async for event in reply]


def alone(small: Small, text: str, options: Options) -> tuple[str, torch.Tensor | None]:
    answer = last(
        Session(*small).ask(
            text, speak=options.speak, stream=True, sampling=options.sampling, max_tokens=options.max_tokens,
            seed=options.seed,
        )
    )  # fmt: skip
    return answer.text, answer.wave


@pytest.mark.parametrize("speak", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_answers_made_together_are_those_made_alone(
    small: Small, engine: Engine, temperature: float, speak: bool
) -> None:
    """More than there are slots, of different lengths, which come while others are being made."""
    draws = random.Random(5)
    wanted = [
        (text, Options(Sampling(temperature=temperature), max_tokens=draws.randint(1, 30), seed=seed, speak=speak))
        for seed, text in enumerate(QUESTIONS * 3)
    ]

    async def ask(text: str, options: Options) -> list[Event]:
        await asyncio.sleep(draws.random() * 0.05)
        return await collect(engine.ask(prompt(small, text), options))

    async def all_of_them() -> list[list[Event]]:
        return await asyncio.gather(*(ask(*one) for one in wanted))

    for (text, options), events in zip(wanted, asyncio.run(all_of_them()), strict=True):
        words, wave = alone(small, text, options)
        assert text_of(events) == words
        end = events[-1]
        assert isinstance(end, End) and end.tokens == sum(isinstance(event, Token) for event in events)
        assert end.reason == ("length" if end.tokens == options.max_tokens else "stop") or end.tokens == 0
        assert len(sound_of(events)) == (0 if wave is None else len(wave))
        if wave is not None:
            torch.testing.assert_close(sound_of(events), wave, atol=1e-3, rtol=0)
    assert engine.active == engine.queued == 0 and engine.written > 0


def test_texts_are_read_aloud_together_as_they_are_alone(small: Small, engine: Engine) -> None:
    texts = ["Good morning. How are you?", "A red apple lies on the table.", "Three dogs! Two cats. One."]

    async def all_of_them() -> list[list[Event]]:
        return await asyncio.gather(*(collect(engine.say(text, seed)) for seed, text in enumerate(texts)))

    for seed, (text, events) in enumerate(zip(texts, asyncio.run(all_of_them()), strict=True)):
        wave = torch.cat([event.wave for event in say(*small, text, seed, stream=True)])
        torch.testing.assert_close(sound_of(events), wave, atol=1e-3, rtol=0)
        assert events[-1] == End("stop", 0)


def test_who_leaves_gives_its_place_to_the_next_and_changes_no_answer(small: Small, engine: Engine) -> None:
    options = Options(Sampling(temperature=1.5), max_tokens=40, speak=True)

    async def leave(text: str, after: int) -> None:
        reply, seen = engine.ask(prompt(small, text), options), 0
        async for _ in reply:
            seen += 1
            if seen == after:
                reply.cancel()

    async def all_of_them() -> list[Event]:
        leaving = [leave(text, after) for after, text in enumerate(QUESTIONS * 2, 1)]
        found = await asyncio.gather(collect(engine.ask(prompt(small, "Stay"), options)), *leaving)
        return found[0]

    events = asyncio.run(all_of_them())
    assert text_of(events) == alone(small, "Stay", options)[0] and isinstance(events[-1], End)
    assert engine.active == engine.queued == 0
    assert not engine.writer.rows.inside


def test_a_full_queue_refuses_and_takes_again_once_there_is_room(small: Small) -> None:
    engine = Engine(*small, slots=1, waiting=2)

    async def main() -> None:
        replies = [engine.ask(prompt(small, "Hi"), Options(max_tokens=30)) for _ in range(3)]
        with pytest.raises(Full, match="queue is full") as caught:
            engine.ask(prompt(small, "Hi"), Options())
        with pytest.raises(Full):
            engine.say("Good morning.")
        assert caught.value.seconds >= 1
        replies[2].cancel()
        await asyncio.sleep(0)
        replies[2] = engine.ask(prompt(small, "Hi"), Options(max_tokens=2))
        found = [await collect(reply) for reply in replies]
        assert all(isinstance(events[-1], End) for events in found)

    asyncio.run(main())
    engine.close()


def test_draining_finishes_what_was_begun_and_closing_ends_the_rest(small: Small) -> None:
    engine = Engine(*small, slots=1)

    async def main() -> None:
        first = engine.ask(prompt(small, "Hi"), Options(max_tokens=5, speak=True))
        reading = asyncio.create_task(collect(first))
        assert await engine.drain(60)
        assert isinstance((await reading)[-1], End)
        with pytest.raises(Closed, match="stopping"):
            engine.ask(prompt(small, "Hi"), Options())

    asyncio.run(main())
    engine.close()
    other = Engine(*small, slots=1)

    async def closed() -> None:
        replies = [other.ask(prompt(small, "Hi"), Options(max_tokens=100, speak=True)) for _ in range(3)]
        assert not await other.drain(0.0)
        await asyncio.get_running_loop().run_in_executor(None, other.close)
        for reply in replies:
            with pytest.raises(Closed, match="stopped"):
                await collect(reply)

    asyncio.run(closed())


def test_stop_texts_end_the_answer_and_are_not_part_of_it(small: Small, engine: Engine) -> None:
    options = Options(Sampling(temperature=1.5), max_tokens=30, seed=3)
    whole = alone(small, "Hi", options)[0]
    for size in (1, 2, 5):
        stop = whole[6 : 6 + size]
        cut = whole[: whole.index(stop)]
        events = asyncio.run(collect_of(engine, small, replace(options, stop=("nowhere to be found", stop))))
        assert text_of(events) == cut
        assert isinstance(events[-1], End) and events[-1].reason == "stop"
    events = asyncio.run(collect_of(engine, small, replace(options, stop=(whole[-3:] + "never",))))
    assert text_of(events) == whole  # what looked like a stop is given in the end


async def collect_of(engine: Engine, small: Small, options: Options) -> list[Event]:
    return await collect(engine.ask(prompt(small, "Hi"), options))


def test_what_is_spoken_ends_before_a_stop(small: Small, engine: Engine) -> None:
    options = Options(Sampling(temperature=1.5), max_tokens=30, seed=3, speak=True)
    whole = asyncio.run(collect_of(engine, small, options))
    stopped = asyncio.run(collect_of(engine, small, replace(options, stop=(text_of(whole)[8:12],))))
    assert 0 < len(sound_of(stopped)) < len(sound_of(whole))


def test_log_probabilities_are_those_of_the_model(small: Small, engine: Engine) -> None:
    model, tokenizer = small
    asked = prompt(small, "Hi")
    events = asyncio.run(collect_of(engine, small, Options(max_tokens=8, logprobs=5)))
    tokens = [event for event in events if isinstance(event, Token)]
    x = torch.cat((asked.x, model.thinker.embed(torch.tensor([[token.id for token in tokens]]))), 1)
    with torch.no_grad():
        logits = model.thinker.head(model.thinker(x))[0, asked.x.shape[1] - 1 :]
    logits[:, sorted(tokenizer.controls - {tokenizer.end, tokenizer.eos})] = -torch.inf
    for token, row in zip(tokens, logits.log_softmax(-1), strict=False):
        assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
        assert [i for i, _ in token.alternatives] == row.topk(5).indices.tolist()
        assert token.alternatives[0] == (token.id, token.logprob)  # greedy


def test_bias_forces_and_bans_and_penalties_keep_from_repeating(small: Small, engine: Engine) -> None:
    def ids(options: Options) -> list[int]:
        events = asyncio.run(collect_of(engine, small, options))
        return [event.id for event in events if isinstance(event, Token)]

    plain = ids(Options(max_tokens=20))
    forced = ids(Options(max_tokens=20, bias={40: 100.0, 41: 100.0}))
    assert set(forced) <= {40, 41}
    assert plain[0] not in ids(Options(max_tokens=20, bias={plain[0]: -100.0}))
    assert (
        len(set(ids(Options(max_tokens=12, bias=dict.fromkeys(range(40, 60), 100.0), presence_penalty=2000.0)))) == 12
    )
    assert (
        len(set(ids(Options(max_tokens=12, bias=dict.fromkeys(range(40, 60), 100.0), frequency_penalty=2000.0)))) == 12
    )


def test_a_model_of_no_numbers_ends_its_answer_and_the_engine_goes_on(small: Small, engine: Engine) -> None:
    bad = prompt(small, "Hi")
    bad = replace(bad, x=torch.full_like(bad.x, torch.nan))

    async def main() -> tuple[object, list[Event]]:
        both = (collect(engine.ask(bad, Options())), collect(engine.ask(prompt(small, "Hi"), Options(max_tokens=5))))
        failed, good = await asyncio.gather(*both, return_exceptions=True)
        assert isinstance(good, list)
        return failed, good

    failed, good = asyncio.run(main())
    assert "not finite" in str(failed)
    assert text_of(good) == alone(small, "Hi", Options(max_tokens=5))[0]


def test_a_text_of_random_tokens_is_what_the_tokenizer_decodes(small: Small) -> None:
    tokenizer = small[1]
    draws = random.Random(11)
    for _ in range(300):
        ids = [draws.randrange(tokenizer.vocab_size) for _ in range(draws.randint(0, 12))]
        stream = TextStream(tokenizer)
        assert "".join(stream.push(i) for i in ids) + stream.finish() == tokenizer.decode(ids), ids


@pytest.mark.parametrize(
    ("text", "stop", "size"), [("abc", "cd", 1), ("abab", "abc", 2), ("abc", "x", 0), ("", "ab", 0), ("ab", "ab", 0)]
)
def test_overlap_is_how_much_of_a_stop_may_have_begun(text: str, stop: str, size: int) -> None:
    assert overlap(text, stop) == size


def test_text_is_held_only_while_a_stop_may_begin() -> None:
    held = Held(["END", "\n\n"])
    assert held.push("a E") == ("a ", False)
    assert held.push("N") == ("", False)
    assert held.push("Y\n") == ("ENY", False)
    assert held.push("b") == ("\nb", False)
    assert held.push("c\n\nd") == ("c", True)
