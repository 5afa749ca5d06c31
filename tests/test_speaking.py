"""Speaking: sentence after sentence or as it is written, from the right states, in the voice that was asked for."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from small_models import OMNI, small_omni

from muomni import speech
from muomni.checkpoint import load_checkpoint, save_checkpoint
from muomni.errors import UserError
from muomni.generate import Answer, AudioEvent, Session, TextEvent, last
from muomni.omni import Omni, load_omni
from muomni.prompts import read_aloud
from muomni.reading_aloud import say
from muomni.sampling import Sampling
from muomni.speech import sentences, speakable, spell_part
from muomni.tokenizer import Tokenizer

Small = tuple[Omni, Tokenizer]
DRAWN = Sampling(temperature=1.0)


def picture(colour: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_speech_that_is_streamed_is_the_same_but_for_its_phases_and_comes_earlier(small: Small) -> None:
    earlier = 0
    for seed in range(8):
        options = {"speak": True, "sampling": DRAWN, "max_tokens": 80, "seed": seed}
        events = list(Session(*small).ask("What is it?", [picture("red")], stream=True, **options))
        whole, answer = last(Session(*small).ask("What is it?", [picture("red")], **options)), events[-1]
        assert isinstance(answer, Answer) and answer.text == whole.text
        if whole.codes is None or whole.wave is None:  # nothing that can be spoken
            assert answer.codes is None and answer.wave is None
            continue
        assert answer.codes is not None and torch.equal(answer.codes, whole.codes), seed
        assert answer.wave is not None and len(answer.wave) == len(whole.wave)
        assert torch.equal(torch.cat([e.wave for e in events if isinstance(e, AudioEvent)]), answer.wave)
        kinds = [type(event) for event in events]
        earlier += kinds.index(AudioEvent) < len(kinds) - 1 - kinds[::-1].index(TextEvent)
    assert earlier >= 3, "it speaks while it writes"


def test_say_streams_what_it_says(small: Small) -> None:
    text = "Good morning. There are 3 dogs, and it is, as Dr. No said, a very long way to the green field!"
    whole, parts = list(say(*small, text)), list(say(*small, text, stream=True))
    assert len(parts) > len(whole) and sum(len(p.wave) for p in parts) == sum(len(w.wave) for w in whole)


def test_say_speaks_sentence_after_sentence_and_follows_the_text(small: Small) -> None:
    both = [event.wave for event in say(*small, "Good morning. How are you?")]
    assert len(both) == 2
    first = next(iter(say(*small, "Good morning."))).wave
    assert torch.equal(both[0], first)
    other = next(iter(say(*small, "Bad evening."))).wave
    assert len(other) != len(first) or not torch.allclose(other, first)
    assert torch.equal(next(iter(say(*small, "Good morning.", seed=0))).wave, first)
    assert not torch.equal(next(iter(say(*small, "Good morning.", seed=1))).wave, first)


def test_voices_are_told_apart_by_name(small: Small) -> None:
    model, tokenizer = small_omni(), small[1]
    with torch.no_grad():
        model.talker.condition.voice.weight.mul_(100)
    for stream in (False, True):
        default, named, other = (
            torch.cat([event.wave for event in say(model, tokenizer, "Good morning.", stream=stream, voice=voice)])
            for voice in ("", "hibari", "espeak:en+m3")
        )
        assert torch.equal(default, named)
        assert len(other) != len(default) or not torch.equal(other, default)
    with pytest.raises(UserError, match="voice 'nobody': not learned; there are hibari"):
        next(iter(say(model, tokenizer, "Good morning.", voice="nobody")))
    with pytest.raises(UserError, match="voice 'nobody'"):
        next(iter(Session(model, tokenizer).ask("What is it?", voice="nobody")))


def test_say_speaks_from_the_states_of_the_answer(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of each token is the Thinker's after reading the request and the answer up to that token."""
    model, tokenizer = small
    taken: list[tuple[list[int], torch.Tensor]] = []

    def record(
        model: Omni, tokenizer: Tokenizer, ids: list[int], states: torch.Tensor, *rest: object, voice: int
    ) -> list:
        taken.append((list(ids), states))
        return []

    monkeypatch.setattr("muomni.reading_aloud.speak", record)
    list(say(model, tokenizer, "Good morning."))
    ids = tokenizer.encode("Good morning.")
    head = [tokenizer.user, *tokenizer.encode(read_aloud("Good morning.")), tokenizer.end, tokenizer.assistant]
    with torch.no_grad():
        wanted = model.thinker(model.thinker.embed(torch.tensor([head + ids])))[0, len(head) :]
    assert taken[0][0] == ids
    torch.testing.assert_close(taken[0][1], wanted, atol=1e-5, rtol=1e-5)


def test_answers_are_spoken_from_the_states_that_wrote_them(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = small
    taken: list[tuple[list[int], torch.Tensor]] = []

    def record(
        model: Omni, tokenizer: Tokenizer, ids: list[int], states: torch.Tensor, *rest: object, voice: int
    ) -> list:
        taken.append((list(ids), states))
        return []

    monkeypatch.setattr("muomni.generate.speak", record)
    session = Session(model, tokenizer)
    question = session.conversation.message("What is it?", [picture("red")])
    x = session.conversation.prompt(question, 16).x
    answer = last(session.ask("What is it?", [picture("red")], speak=True, max_tokens=10))
    ids, states = taken[0]
    assert tokenizer.decode(ids) == answer.text and answer.wave is None
    with torch.no_grad():
        whole = torch.cat((x, model.thinker.embed(torch.tensor([ids]))), dim=1)
        torch.testing.assert_close(states, model.thinker(whole)[0, x.shape[1] :], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("text", ["", "  ", "?!", "日本語", "''"])
def test_say_refuses_a_text_without_words(small: Small, text: str) -> None:
    with pytest.raises(UserError, match="no letter or digit"):
        list(say(*small, text))


def test_say_refuses_what_the_context_cannot_hold(small: Small) -> None:
    with pytest.raises(UserError, match="the context holds 160"):
        list(say(*small, "日本" * 15 + " a"))


@pytest.mark.parametrize(
    ("text", "longest", "parts"),
    [
        ("One. Two! Three? Four", 80, ["One.", "Two!", "Three?", "Four"]),
        ("It is 3.5 m. Really.", 80, ["It is 3.5 m.", "Really."]),
        ('He said "Go." Then he went.', 80, ['He said "Go."', "Then he went."]),
        ("Mr. Smith met Dr. Who.", 80, ["Mr. Smith met Dr. Who."]),
        ("first line\nsecond", 80, ["first line\nsecond"]),
        ("aa bb cc dd", 6, ["aa bb", "cc dd"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("77 77", 11, ["7", "7", "7", "7"]),  # seven seven: too long for one
        ("", 10, []),
        (" \n ", 10, []),
    ],
)
def test_sentences(text: str, longest: int, parts: list[str]) -> None:
    assert [text[a:b] for a, b in sentences(text, longest)] == parts


def test_sentences_lose_nothing_that_is_heard() -> None:
    text = "On 4.5.2026, e.g. at 10:30, Mr. X said: 'No!' (twice) … and 1234567890123 more words followed. End"
    for longest in (8, 20, 60, 200):
        parts = [text[a:b] for a, b in sentences(text, longest)]
        assert "".join("".join(parts).split()) == "".join(text.split()), longest


def test_spell_part_counts_tokens_in_the_whole_text(small: Small) -> None:
    tokenizer = small[1]
    text = "Good morning. How are you?"
    ids = tokenizer.encode(text)
    spans = tokenizer.char_spans(ids)
    characters, tokens = spell_part(text, spans, 14, 26)
    alone, _ = spell_part("How are you?", [(a - 14, b - 14) for a, b in spans if b > 14], 0, 12)
    assert characters == alone and len(tokens) == len(characters)
    assert min(tokens) == next(i for i, (a, b) in enumerate(spans) if b > 14) and max(tokens) == len(ids) - 1


def test_longest_sentence_fits_the_talkers_frames(small: Small) -> None:
    longest = speech.longest_sentence(small[0].talker)
    assert 16 <= longest <= speech.LONGEST and longest * speech.FRAMES_A_CHARACTER <= small[0].cfg.talker.frames
    assert speakable("7") and not speakable("...")


def trained_vocoder(seed: int = 0) -> Omni:
    """The small model with a vocoder of the kind that is trained; what it says is noise, but always the same."""
    model = small_omni(seed)
    cfg = OMNI.model_copy(update={"vocoder": OMNI.vocoder.model_copy(update={"kind": "istft"})})
    torch.manual_seed(seed)
    other = Omni(cfg).eval()
    other.load_state_dict(model.state_dict(), strict=False)
    with torch.no_grad():
        other.vocoder.get_parameter("head.weight").mul_(5)
    return other


def test_with_a_trained_vocoder_streamed_speech_is_the_very_same(small: Small) -> None:
    model, tokenizer = trained_vocoder(), small[1]
    heard = 0
    for seed in range(4):
        options = {"speak": True, "sampling": DRAWN, "max_tokens": 60, "seed": seed}
        events = list(Session(model, tokenizer).ask("What is it?", stream=True, **options))
        whole = last(Session(model, tokenizer).ask("What is it?", **options))
        answer = events[-1]
        assert isinstance(answer, Answer) and answer.text == whole.text
        if whole.wave is None:
            continue
        heard += 1
        pieces = torch.cat([event.wave for event in events if isinstance(event, AudioEvent)])
        torch.testing.assert_close(pieces, whole.wave, atol=1e-4, rtol=1e-4)
    assert heard >= 2


def test_a_trained_vocoder_comes_with_the_checkpoint(small: Small, checkpoint: Path, tmp_path: Path) -> None:
    model, found = trained_vocoder(), load_checkpoint(checkpoint)
    config = found.config | {"vocoder": model.cfg.vocoder.model_dump(mode="json")}
    files = {"tokenizer.model": checkpoint / "tokenizer.model"}
    save_checkpoint(tmp_path / "omni", model.state_dict(), config, found.card, files)
    again, tokenizer, _ = load_omni(tmp_path / "omni")
    one, other = (next(iter(say(m, tokenizer, "Good morning."))).wave for m in (model, again))
    assert torch.equal(one, other)
    save_checkpoint(tmp_path / "omni", small[0].state_dict(), config, found.card, files)
    with pytest.raises(UserError, match="missing tensors.*vocoder"):  # never one that was not trained
        load_omni(tmp_path / "omni")
