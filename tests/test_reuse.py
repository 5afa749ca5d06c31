"""The second question of a conversation does not have the first read again, and gets the same answer."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from muomni.decoder import Decoder
from muomni.generate import Answer, Session, TextEvent, last
from muomni.omni import Omni
from muomni.sampling import Sampling
from muomni.tokenizer import Tokenizer

Small = tuple[Omni, Tokenizer]
DRAWN = Sampling(temperature=1.0)


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (40, 30), colour)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(16000 * seconds)).astype(np.float32)


class Forgetful(Session):
    """Reads everything again."""

    def ask(self, *args: object, **options: object) -> object:
        self._read = None
        return super().ask(*args, **options)  # type: ignore[arg-type]


TURNS: list[dict] = [
    {"text": "What is it?", "images": [picture("red"), picture("blue")]},
    {"text": "Where is the cat?"},
    {"text": "Write down what you hear.", "audio": [noise(1)]},
    {"images": [picture("green")]},
    {"text": "How many dogs?"},
]


def talk(session: Session, turns: list[dict], **options: object) -> list[Answer]:
    given = {"sampling": DRAWN, "max_tokens": 8} | options
    return [last(session.ask(**turn, **given, seed=seed)) for seed, turn in enumerate(turns)]


def alike(session: Session, other: Session) -> None:
    """Both said the same, from the same states."""
    assert session._said[0] == other._said[0]
    torch.testing.assert_close(session._said[1], other._said[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sampling", [Sampling(), DRAWN])
@pytest.mark.parametrize("turns", [TURNS, TURNS[2:] + TURNS, TURNS * 3])
def test_answers_are_those_of_reading_everything_again(small: Small, sampling: Sampling, turns: list[dict]) -> None:
    session, other = Session(*small), Forgetful(*small)
    reused, dropped = [], 0
    for seed, turn in enumerate(turns):
        given = {"sampling": sampling, "max_tokens": 8, "seed": seed}
        one, two = last(session.ask(**turn, **given)), last(other.ask(**turn, **given))
        assert one.text == two.text and one.plan == two.plan and other.reused == 0
        alike(session, other)
        reused.append(session.reused)
        dropped += bool(one.plan.dropped_turns)
    assert reused[0] == 0 and sum(count > 20 for count in reused) >= 2
    if len(turns) > 12:
        assert dropped and any(count <= 1 for count in reused[1:])  # the oldest exchange went: another beginning


def counted(session: Session) -> Callable[[], int]:
    """How many positions the Thinker reads, the answers' own left out."""
    counts: list[int] = []
    read = session.decoder.read

    def counting(x: torch.Tensor, cache: object) -> torch.Tensor:
        counts.append(x.shape[1])
        return read(x, cache)

    session.decoder.read = counting  # type: ignore[method-assign, assignment]
    return lambda: counts[0] if counts else 0


def test_only_what_is_new_is_read(small: Small) -> None:
    session = Session(*small)
    first = last(session.ask(**TURNS[0], sampling=DRAWN, max_tokens=8))
    heard = counted(session)
    second = last(session.ask("Where is it?", sampling=DRAWN, max_tokens=8))
    before, now = (sum(answer.plan.positions.values()) for answer in (first, second))
    tokenizer = small[1]
    assert heard() == now - session.reused and session.reused >= before
    # All that was asked, and of the answer what reads the same when it stands in the template.
    assert heard() <= len(tokenizer.encode(first.text)) + len(tokenizer.encode("Where is it?")) + 5


def test_a_cut_answer_is_reused_up_to_its_end_and_one_that_ended_with_its_end(small: Small) -> None:
    """The template closes an answer that the limit cut; what was read of it stays, as far as the tokens agree."""
    model, tokenizer = small
    session = Session(model, tokenizer)
    last(session.ask("What is it?", sampling=DRAWN, max_tokens=8, seed=3))
    written = list(session._said[0])
    assert session._read is not None
    keys = session._read[1]
    assert keys[-len(written) :] == written and session._read[0].lengths == [len(keys)]


def test_a_new_beginning_is_read_from_there(small: Small) -> None:
    session, other = Session(*small), Forgetful(*small)
    talk(session, TURNS[:3])
    session.reset()
    talk(other, TURNS[:1])
    other.reset()
    assert talk(session, TURNS[3:])[1].text == talk(other, TURNS[3:])[1].text
    alike(session, other)


@pytest.mark.parametrize("change", ["text", "picture", "answer", "recording"])
def test_a_changed_turn_is_read_again(small: Small, change: str) -> None:
    """What stands in the conversation counts, not what stood there when it was read."""
    session, other = Session(*small), Forgetful(*small)
    for one in (session, other):
        talk(one, TURNS[:3])
        asked, answered = one.conversation.exchanges[0]
        exchange = {
            "text": {"text": "What was it?", "images": TURNS[0]["images"]},
            "picture": {"text": "What is it?", "images": [picture("red"), picture("green")]},
            "recording": {"text": "What is it?", "audio": [noise(1, seed=1)]},
        }.get(change)
        new = one.conversation.message(**exchange) if exchange else asked
        one.conversation.exchanges[0] = (new, "It is a pear." if change == "answer" else answered)
        last(one.ask("Sure?", sampling=DRAWN, max_tokens=8))
    alike(session, other)
    assert session.reused < 30


def test_the_same_picture_in_another_object_is_the_same(small: Small) -> None:
    session = Session(*small)
    turn = {"text": "What is it?", "images": [picture("red")]}
    first = talk(session, [turn])[0]
    session.conversation.exchanges.clear()
    again = talk(session, [turn])[0]
    assert session.reused == sum(first.plan.positions.values()) - 1 and again.text == first.text


def test_an_answer_that_nobody_waits_for_does_no_harm(small: Small) -> None:
    session, other = Session(*small), Forgetful(*small)
    for one in (session, other):
        talk(one, TURNS[:1])
        events = one.ask("Tell me more.", sampling=DRAWN, max_tokens=20)
        while not isinstance(next(events), TextEvent):
            pass
        events.close()
        assert len(one.conversation.exchanges) == 1
        talk(one, TURNS[1:2])
    assert session.reused > 10
    alike(session, other)


def test_two_answers_at_once_do_not_mix(small: Small) -> None:
    said = []
    for kind in (Session, Forgetful):
        session = kind(*small)
        talk(session, TURNS[:1])
        one = session.ask("Tell me more.", sampling=DRAWN, max_tokens=20, seed=1)
        for _ in range(4):
            next(one)
        other = last(session.ask("Where is it?", sampling=DRAWN, max_tokens=20, seed=2))
        said.append((last(one).text, other.text, talk(session, TURNS[1:2])[0].text))
    assert said[0] == said[1]


def test_sessions_share_a_decoder_and_its_weights(small: Small) -> None:
    model, tokenizer = small
    decoder = Decoder(model.thinker, "int8")
    one, two = Session(model, tokenizer, decoder=decoder), Session(model, tokenizer, weights="int8")
    assert one.decoder is decoder and two.decoder.weights == "int8" and Session(*small).decoder.weights == "fp32"
    for session in (one, two):
        talk(session, TURNS)
    alike(one, two)
