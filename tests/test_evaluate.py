"""Scores against hand-made references, the blind baseline, and swap tests that catch a model which does not look."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import MEL
from torch import Tensor

from muomni.audio_encoder import normalise
from muomni.codec import Codec
from muomni.data.dialogues import Dialogue, Dialogues
from muomni.data.files import write_jsonl
from muomni.data.packing import pack_corpus
from muomni.data.tokens import TokenDataset
from muomni.evaluate import swaps
from muomni.evaluate.answering import asked, score_answers, score_written
from muomni.evaluate.asking import Asker, Reply, question_of, with_media_of
from muomni.evaluate.blind import Asked, Blind
from muomni.evaluate.config import EvaluateConfig
from muomni.evaluate.held_out import held_out
from muomni.evaluate.language import score_language, thinker_logprobs
from muomni.evaluate.measure import character_errors, mean, nearer, ratio, share, word_errors
from muomni.evaluate.ngram import KneserNey, perplexity
from muomni.evaluate.speech import ended, say, score_codec
from muomni.evaluate.summary import HEADLINES, direction, summarise, table
from muomni.generate import Session, last
from muomni.omni import Omni
from muomni.tokenizer import Tokenizer

Small = tuple[Omni, Tokenizer]


def dialogue(task: str, kind: str, question: str, target: str, number: int, media: str = ".png") -> Dialogue:
    """A conversation about picture or recording `number`."""
    name = f"0{media}"
    content: list[dict[str, Any]] = [{"type": "image" if media == ".png" else "audio", "member": name}]
    content += [{"type": "text", "text": question}] if question else []
    messages = [{"role": "user", "content": content}]
    messages += [{"role": "assistant", "content": [{"type": "text", "text": f"It is a {target}."}]}]
    return Dialogue(task, kind, messages, [target], {name: f"{media[1:]}{number}"}, f"{task}-{number}")


class FakeAsker:
    """Answers by a function of question and media, instead of a model."""

    def __init__(self, answer: Callable[[str, str], str]) -> None:
        self.answer = answer

    def ask(self, dialogues: list[Dialogue]) -> list[Reply]:
        """The replies."""
        return [Reply(self.answer(question_of(d), next(iter(d.media.values()))), [], True) for d in dialogues]


def test_figures_hold_the_value_its_n_and_an_interval_around_it() -> None:
    figure = share([True] * 87 + [False] * 13)
    assert figure["value"] == 0.87 and figure["n"] == 100
    assert figure["interval"] == pytest.approx([0.790, 0.922], abs=0.001)  # Wilson's, from tables
    assert share([True] * 10)["interval"][0] == pytest.approx(0.722, abs=0.001), "ten right ones do not prove 100 %"
    rate = ratio([1, 0, 3], [10, 10, 20], seed=0)
    assert rate["value"] == 0.1 and rate["n"] == 3 and rate["interval"][0] <= 0.1 <= rate["interval"][1]
    assert rate == ratio([1, 0, 3], [10, 10, 20], seed=0)
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = mean(list(values), seed=3)["interval"]
    assert high - low == pytest.approx(2 * 1.96 * 2 / math.sqrt(400), rel=0.15)
    for nothing in (lambda: share([]), lambda: ratio([], [], 0), lambda: ratio([1], [0], 0)):
        with pytest.raises(ValueError):
            nothing()


def test_error_rates_are_of_all_texts_together() -> None:
    assert character_errors(["abcd", "abcdef"], ["abxd", "abcdef"], 0)["value"] == 0.1
    assert word_errors(["a dog", "two cats here"], ["a cat", "two cats"], 0)["value"] == 0.4
    assert nearer("a dog is here", "a dog is there", "two cats") == 1
    assert nearer("two cat", "a dog is there", "two cats") == -1 and nearer("x", "a", "b") == 0


def test_language_is_scored_on_the_same_targets_for_all_models(small: Small, tmp_path: Path) -> None:
    model, tokenizer = small
    for split, texts in (
        ("train", ["The quick brown fox."] * 9),
        ("valid", ["A dog."]),
        ("test", ["A red apple."] * 9),
    ):
        rows = [{"id": f"{split}{i}", "source": "test", "text": text} for i, text in enumerate(texts)]
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    pack_corpus(tmp_path, tokenizer, tmp_path)
    train, test = TokenDataset(tmp_path, "train"), TokenDataset(tmp_path, "test")
    options: dict[str, Any] = {"order": 3, "context": 16, "stride": 8, "seed": 0}
    found = score_language({"thinker": model.thinker}, train, test, tokenizer, most=0, **options)
    assert {figure["n"] for scores in found.values() for figure in scores.values()} == {len(test) - 1}
    stream = np.asarray(test.tokens)
    ngram = KneserNey(train.tokens, test.vocab_size, test.eot, 3).logprobs(stream)[1:]
    assert found["ngram"]["perplexity"]["value"] == pytest.approx(perplexity(ngram), rel=1e-5)
    text = "A red apple." * 9
    bits = -ngram.sum() / math.log(2) / len(text.encode())
    assert found["ngram"]["bits_per_byte"]["value"] == pytest.approx(bits, rel=1e-5)
    # The first window by hand: one pass, each target once.
    ids = torch.from_numpy(stream[:17].astype(np.int64))
    logits = model.thinker.logits(model.thinker(model.thinker.embed(ids[None, :-1])))[0]
    wanted = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
    got = thinker_logprobs(model.thinker, test, 16, 8)
    assert len(got) == len(test) - 1 and np.allclose(got[:16], wanted.detach().numpy(), atol=1e-4)
    assert np.array_equal(thinker_logprobs(model.thinker, test, 16, 8, most=11), got[:11])
    assert score_language({}, train, test, tokenizer, most=11, **options)["ngram"]["perplexity"]["n"] == 11


def test_blind_baseline_knows_training_answers_by_question_pattern_and_kind_and_sees_nothing() -> None:
    training = [Asked("scene", "above", "What is above the dog?", ("cat",))] * 3
    training += [Asked("scene", "above", "What is above the cow?", ("sheep",))] * 4
    training += [Asked("scene", "count", "How many dogs are there?", ("two",))]
    blind = Blind(training)
    seen, unseen = training[0], Asked("scene", "above", "What is above the horse?", ("pig",))
    assert blind.answer(seen, "kind") == blind.answer(seen, "pattern") == "sheep"
    assert blind.answer(seen, "question") == "cat"
    assert blind.answer(unseen, "question") == "sheep", "what was never asked falls back to its pattern"
    other = Asked("scene", "above", "Which thing is over the dog?", ("cat",))
    assert blind.answer(other, "question") == "sheep" and blind.answer(replace(other, task="name"), "question") == ""
    figure, level = blind.score([seen, seen, unseen, replace(unseen, targets=("sheep",))])
    assert figure["value"] == 0.75 and figure["n"] == 4 and level == "question"


def test_answers_are_scored_by_task_and_kind_beside_the_blind_ones() -> None:
    rows = [dialogue("scene", "what", "What is on the left?", name, i) for i, name in enumerate(["dog", "cat", "dog"])]
    rows += [dialogue("scene", "count", "How many dogs are there?", "two", 3)]
    replies = [Reply(text, [], True) for text in ("It is a dog.", "It is a dog.", "A dog.", "There are three dogs.")]
    blind = Blind([asked(row) for row in rows[:1]])
    scene = score_answers(list(zip(rows, replies, strict=True)), blind)["scene"]
    assert scene["accuracy"]["value"] == 0.5 and scene["accuracy"]["n"] == 4
    assert scene["kinds"]["what"]["value"] == pytest.approx(2 / 3, abs=1e-6) and scene["kinds"]["count"]["value"] == 0
    assert scene["blind"]["value"] == 0.5 and scene["above_blind"]["value"] == 0
    spoken = [dialogue("dictation", voice, "Write.", "dog", i, ".flac") for i, voice in enumerate(["hibari", "other"])]
    pairs = [(spoken[0], Reply("It is a dog", [], True)), (spoken[1], Reply("", [], True))]
    written = score_written(pairs, "hibari", 0)["dictation"]
    assert written["clear"]["cer"]["value"] == 0 and written["all"]["cer"]["value"] == 0.5


NAMES = ["dog", "cat", "apple", "car", "bus", "tree", "fish", "horse", "house", "banana"]


def test_picture_swap_passes_a_model_that_looks_and_fails_one_that_does_not() -> None:
    rows = [dialogue("name", "what", "What is this?", name, i) for i, name in enumerate(NAMES)]
    there = {f"png{i}": name for i, name in enumerate(NAMES)}

    def passed(answer: Callable[[str, str], str], task: str = "picture_name") -> dict[str, Any]:
        outcomes = swaps.swap_pictures(FakeAsker(answer), rows, "name", 60)  # type: ignore[arg-type]
        return swaps.verdict(task, outcomes)

    looks = passed(lambda question, picture: f"It is a {there[picture]}.")
    assert looks["pass"] and looks["n"] == looks["new"] == len(NAMES) and looks["follows"]["value"] == 1
    constant = passed(lambda question, picture: "It is a dog.")
    assert not constant["pass"] and constant["new"] == constant["old"] == 1 and constant["neither"] == 8
    assert not passed(lambda question, picture: "")["pass"], "no answer follows nothing"
    mostly_wrong = passed(lambda question, picture: "It is a dog." if there[picture] == "dog" else "It is a clock.")
    assert mostly_wrong["follows"]["value"] == 1 and not mostly_wrong["pass"], "one case in ten decides nothing"


def test_a_model_that_keeps_the_old_picture_fails() -> None:
    rows = [dialogue("name", "what", "What is this?", name, i) for i, name in enumerate(NAMES)]
    order = {name: i for i, name in enumerate(NAMES)}
    there = {f"png{i}": name for i, name in enumerate(NAMES)}
    pairs = swaps.same_question(rows, "name")
    before = {with_media_of(old, new, ".png").media["0.png"]: old.targets[0] for old, new in pairs}
    outcomes = swaps.swap_pictures(FakeAsker(lambda q, p: before[p]), rows, "name", 60)  # type: ignore[arg-type]
    assert outcomes == [-1] * len(order) and not swaps.verdict("picture_name", outcomes)["pass"]
    assert all(there[new.media["0.png"]] != old.targets[0] for old, new in pairs)


def test_question_swap_fails_a_model_that_ignores_the_question() -> None:
    rows = []
    for i, name in enumerate(NAMES):
        rows += [dialogue("name", "what", "What is this?", name, i)]
        rows += [dialogue("single", "background", "What color is the background?", "blue", i)]
    facts = {("What is this?", f"png{i}"): name for i, name in enumerate(NAMES)}
    good = FakeAsker(lambda q, p: facts.get((q, p), "It is blue."))
    assert swaps.verdict("question", swaps.swap_questions(good, rows, 60))["pass"]  # type: ignore[arg-type]
    deaf = FakeAsker(lambda q, p: facts["What is this?", p])
    found = swaps.verdict("question", swaps.swap_questions(deaf, rows, 60))  # type: ignore[arg-type]
    assert not found["pass"] and found["follows"]["value"] == 0.5


def test_recording_and_text_swaps_fail_what_ignores_its_input() -> None:
    rows = [dialogue("dictation", "hibari", "Write.", name, i, ".flac") for i, name in enumerate(NAMES)]
    heard = {f"flac{i}": f"it is a {name}" for i, name in enumerate(NAMES)}
    hears = swaps.swap_recordings(FakeAsker(lambda q, r: heard[r]), rows, 60)  # type: ignore[arg-type]
    assert swaps.verdict("audio", hears)["pass"]
    same = swaps.swap_recordings(FakeAsker(lambda q, r: "it is a dog"), rows, 60)  # type: ignore[arg-type]
    assert not swaps.verdict("audio", same)["pass"]
    texts = [f"There is a {name}." for name in NAMES]
    said = [normalise(text) for text in texts]
    assert swaps.verdict("text", swaps.swap_texts(texts, said))["pass"]
    assert not swaps.verdict("text", swaps.swap_texts(texts, [said[0]] * len(said)))["pass"]
    assert not swaps.verdict("text", swaps.swap_texts(texts, [*said[-1:], *said[:-1]]))["pass"]


def test_pairs_ask_the_same_words_about_facts_that_exclude_each_other() -> None:
    rows = [dialogue("scene", "count", "How many dogs are there?", t, i) for i, t in enumerate(["two", "two", "one"])]
    rows += [dialogue("scene", "count", "How many cats are there?", "three", 3)]
    pairs = swaps.same_question(rows, "scene")
    assert {(old.key, new.key) for old, new in pairs} == {
        ("scene-0", "scene-2"),
        ("scene-1", "scene-2"),
        ("scene-2", "scene-0"),
    }
    with pytest.raises(ValueError, match="has 1 of .png"):
        with_media_of(rows[0], dialogue("dictation", "hibari", "", "dog", 9, ".flac"), ".png")


@pytest.fixture
def conversations(small: Small) -> Dialogues:
    """Two pictures and two recordings of noise, asked about in several ways."""
    rng = torch.Generator().manual_seed(5)
    size = small[0].cfg.vision_encoder.image_size
    data = Dialogues.__new__(Dialogues)  # without shards
    data.pictures = {f"png{i}": torch.randint(256, (3, size, size), generator=rng).to(torch.uint8) for i in range(2)}
    data.mels = {f"flac{i}": torch.randn(60 + 40 * i, MEL.n_mels, generator=rng) - 5 for i in range(2)}
    data.items = [dialogue("name", "what", q, "dog", i) for i in range(2) for q in ("What is this?", "What is it now?")]
    data.items += [dialogue("dictation", "hibari", "Write it down.", "dog", i, ".flac") for i in range(2)]
    return data


def test_answers_in_batches_are_those_of_a_session(small: Small, conversations: Dialogues) -> None:
    model, tokenizer = small
    replies = Asker(model, tokenizer, conversations, limit=12).ask(conversations.items)
    alone = Asker(model, tokenizer, conversations, limit=12, batch=1).ask(conversations.items)
    assert [r.ids for r in replies] == [r.ids for r in alone] and all(len(r.ids) <= 12 for r in replies)
    assert len({reply.text for reply in replies}) > 2, "a model of large random weights answers each differently"
    session = Session(model, tokenizer)
    for item, reply in zip(conversations.items[:4], replies, strict=False):
        from PIL import Image

        picture = Image.fromarray(conversations.pictures[item.media["0.png"]].permute(1, 2, 0).numpy())
        session.reset()
        assert last(session.ask(question_of(item), images=[picture], max_tokens=12)).text == reply.text


def test_states_for_the_talker_are_those_after_each_token(small: Small, conversations: Dialogues) -> None:
    model, tokenizer = small
    asker = Asker(model, tokenizer, conversations, limit=12)
    item = conversations.items[0]
    asker.encode([item])
    ids = tokenizer.encode("There are three dogs.")
    states = asker.states(item, ids)
    assert states.shape == (len(ids), model.cfg.thinker.d_model)
    changed = asker.states(item, [*ids[:-1], ids[0]])
    assert torch.allclose(changed[:-1], states[:-1], atol=1e-5) and not torch.allclose(changed[-1], states[-1])


def test_codec_scores_tell_used_codes_and_that_the_books_differ(small: Small) -> None:
    codec: Codec = small[0].codec
    rng = torch.Generator().manual_seed(2)
    mels = [torch.randn(40, MEL.n_mels, generator=rng) * 2 - 4 for _ in range(3)]
    scores = score_codec(codec, mels, 0)
    codes = torch.cat([codec.encode(mel) for mel in mels])
    assert scores["used_0"]["value"] == pytest.approx(len(codes[:, 0].unique()) / codec.cfg.codes, abs=1e-5)
    assert scores["mel_error"]["n"] == 3 and 0 < scores["bits_1"]["value"] <= math.log2(codec.cfg.codes)
    own = [(codec.decode(codec.encode(mel)[None])[0] - mel).abs().mean() for mel in mels]
    assert scores["mel_error"]["value"] == pytest.approx(float(torch.stack(own).mean()), rel=1e-4)


def test_speech_that_is_held_up_or_cut_off_did_not_end_by_itself(small: Small) -> None:
    def positions(*stays: int) -> Tensor:
        return torch.repeat_interleave(torch.arange(len(stays)), torch.tensor(stays))

    assert ended(positions(3, 4, 2), 3, 200)
    assert not ended(positions(3, 4), 3, 200), "the last character was never reached"
    assert not ended(positions(3, 50, 2), 3, 200), "a second on one character is the limit, not a decision"
    assert not ended(positions(3, 4, 2), 3, 9), "all frames are used up"
    model, tokenizer = small
    one, other = (say(model.talker, model.thinker, tokenizer, "A red apple.", seed) for seed in (1, 1))
    assert torch.equal(one.codes, other.codes) and one.codes.shape[1] == model.cfg.talker.codebooks


def test_summary_leaves_out_what_was_not_measured_and_counts_swaps() -> None:
    figure = share([True, False])
    test = swaps.verdict("picture_name", [1] * 9 + [0])
    scores: dict[str, dict[str, Any]] = {
        "language": {"thinker": {"perplexity": figure}},
        "omni": {"swaps": {"picture_name": test, "audio": swaps.verdict("audio", [])}},
    }
    found = summarise(scores)
    assert found["thinker_perplexity"] == figure and "talker_cer" not in found
    assert len(figure["interval"]) == 2, "the interval comes along"
    assert found["swap_picture_name"] == test["follows"] | {"n": 10} and "swap_audio" not in found
    assert found["swaps_passed"] == {"value": 1, "n": 2}
    assert table(found).splitlines()[1].split() == ["thinker_perplexity", "0.5", "2"]


def test_every_headline_says_which_way_is_better() -> None:
    assert {direction(name) for name in HEADLINES} == {"higher", "lower", "neither"}
    assert [name for name in HEADLINES if name.endswith("accuracy") and direction(name) != "higher"] == []
    errors = [name for name in HEADLINES if "_cer" in name or "_wer" in name]
    assert [name for name in errors if direction(name) != "lower"] == ["recording_cer"], "that is the judge's"
    assert direction("swap_text") == direction("swaps_passed") == "higher" and direction("else") == "neither"


def test_held_out_hash_changes_with_the_data_and_with_how_it_is_used(small: Small, tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        write_jsonl(tmp_path / f"{split}.jsonl", [{"id": split, "source": "test", "text": f"A {split} text."}])
    pack_corpus(tmp_path, small[1], tmp_path)
    cfg = EvaluateConfig(
        **dict(seed=0, judge="off", speaker="hibari", ngram_order=5, context=16, stride=8, text_tokens=0, recordings=0),
        **dict(pictures=0, answers_per_task=0, dictation=0, answer_tokens=8, codec_sentences=1, talker_sentences=1),
        **dict(read_aloud=0, spoken_answers=0, swap_pairs=1),
    )
    one = held_out(tmp_path, [], cfg)
    assert one == held_out(tmp_path, [], cfg) and list(one["files"].values()) == [
        one["files"][next(iter(one["files"]))]
    ]
    assert held_out(tmp_path, [], cfg.model_copy(update={"stride": 4}))["sha256"] != one["sha256"]
    write_jsonl(tmp_path / "test.jsonl", [{"id": "test", "source": "test", "text": "Another text."}])
    pack_corpus(tmp_path, small[1], tmp_path)
    assert held_out(tmp_path, [], cfg)["sha256"] != one["sha256"]
