"""Asking, streaming, speaking, dictation and reading aloud, with a small model of random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from muomni.conversation import Conversation
from muomni.errors import UserError
from muomni.generate import (
    Answer,
    AudioEvent,
    PlanEvent,
    Session,
    TextEvent,
    TextStream,
    last,
    transcribe,
)
from muomni.omni import Omni, load_omni
from muomni.prompts import DICTATION, read_aloud
from muomni.sampling import Sampling
from muomni.tokenizer import Tokenizer

Small = tuple[Omni, Tokenizer]
DRAWN = Sampling(temperature=1.0)


def picture(colour: str, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new("RGB", size, colour)


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, int(16000 * seconds)).astype(np.float32)


def ask(small: Small, *args: object, **options: object) -> Answer:
    return last(Session(*small).ask(*args, **({"sampling": DRAWN, "max_tokens": 16} | options)))


def test_events_come_in_order_and_join_to_the_answer(small: Small) -> None:
    options = {"speak": True, "sampling": DRAWN, "max_tokens": 24, "seed": 1}
    events = list(Session(*small).ask("What is it?", [picture("red")], audio=[noise(1)], **options))
    assert isinstance(events[0], PlanEvent) and isinstance(events[-1], Answer)
    answer = events[-1]
    text = [e.piece for e in events if isinstance(e, TextEvent)]
    sound = [e.wave for e in events if isinstance(e, AudioEvent)]
    assert len(text) > 3 and all(text) and "".join(text) == answer.text
    assert sound and answer.wave is not None and torch.equal(torch.cat(sound), answer.wave)
    assert answer.codes is not None and answer.codes.shape == (len(answer.wave) // 320, 2)
    assert answer.wave.dtype == torch.float32 and answer.wave.abs().max() <= 1
    assert answer.plan.positions["image"] == 5 and answer.plan.positions["audio"] == 13


def test_an_answer_is_the_seeds_and_nobody_elses(small: Small) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = ask(small, "What is it?", speak=True, seed=1)
    assert torch.equal(torch.get_rng_state(), state)  # the global state is neither read nor moved
    torch.manual_seed(2)
    again = ask(small, "What is it?", speak=True, seed=1)
    other = ask(small, "What is it?", speak=True, seed=2)
    assert first.text == again.text and first.codes is not None and torch.equal(first.codes, again.codes)
    assert torch.equal(first.wave, again.wave) and other.text != first.text
    assert ask(small, "What is it?", seed=1).text == first.text  # speaking does not change what is written


@pytest.mark.parametrize("what", ["text", "image", "audio", "order of images"])
def test_every_input_reaches_the_prompt(small: Small, what: str) -> None:
    given = {"text": "What is it?", "images": [picture("red"), picture("blue")], "audio": [noise(1)]}
    other = dict(given)
    other |= {
        "text": {"text": "Where is it?"},
        "image": {"images": [picture("red"), picture("green")]},
        "audio": {"audio": [noise(1, seed=1)]},
        "order of images": {"images": given["images"][::-1]},
    }[what]
    states = []
    for inputs in (given, other):
        talk = Conversation(*small)
        x = talk.prompt(talk.message(**inputs), 16).x
        with torch.no_grad():
            states.append(small[0].thinker(x)[0, -1])
    assert (states[0] - states[1]).abs().max() > 1e-4


def test_inputs_stand_in_the_order_of_the_training_data(small: Small) -> None:
    """Pictures, then recordings, then text, as in the conversation shards."""
    talk = Conversation(*small)
    message = talk.message("What is it?", [picture("red")], audio=[noise(0.5)])
    assert [part["type"] for part in message["content"]] == ["image", "audio", "text"]


def test_prompt_equals_the_layout_of_stage_e(small: Small) -> None:
    """The sequence that is asked is the one that training lays out, up to where the answer begins."""
    from muomni.fusion import fuse, lay_out
    from muomni.tokenizer import render_chat

    model, tokenizer = small
    talk = Conversation(model, tokenizer)
    question = talk.message("What is it?", [picture("red")])
    x = talk.prompt(question, 16).x
    dialogue = [
        {"role": "user", "content": [{"type": "image", "member": "0.png"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A dog."},
    ]
    layout = lay_out(render_chat(dialogue, tokenizer), tokenizer, [model.image_positions])
    states = question["content"][0]["member"].states
    with torch.no_grad():
        trained = fuse(model, torch.tensor([layout.ids]), tokenizer, states)
    torch.testing.assert_close(x, trained[:, : layout.answer.index(True)])


def test_a_long_recording_is_cut_to_the_encoder_and_the_plan_says_so(small: Small) -> None:
    model = small[0]
    assert model.cfg.audio_encoder.positions == 64  # 5.12 s
    plan = ask(small, audio=[noise(8)], max_tokens=8).plan
    assert plan.positions["audio"] == 64 and plan.dropped_audio == 100 - 64
    assert "2.9 s of audio cut" in str(plan)
    exact = ask(small, audio=[noise(5.12)], max_tokens=8).plan
    assert exact.positions["audio"] == 64 and exact.dropped_audio == 0


def test_recordings_are_cut_to_the_context_and_the_plan_says_so(small: Small) -> None:
    plan = ask(small, audio=[noise(5), noise(5), noise(5)], max_tokens=40).plan  # 189 positions in a context of 160
    assert plan.dropped_audio == 189 - plan.positions["audio"] > 0
    assert sum(plan.positions.values()) + 40 == 160 and plan.answer == 40


def test_the_conversation_is_remembered_until_it_is_reset_or_too_long(small: Small) -> None:
    session = Session(*small)
    first = last(session.ask("What is it?", [picture("red")], sampling=DRAWN, max_tokens=8))
    second = last(session.ask("Where is it?", sampling=DRAWN, max_tokens=8))
    assert second.plan.positions["image"] == 5 and len(session.conversation.exchanges) == 2
    assert second.plan.positions["text"] > first.plan.positions["text"]
    for seed in range(8):
        answer = last(session.ask("How many dogs?", sampling=DRAWN, max_tokens=8, seed=seed))
    assert answer.plan.dropped_turns >= 2 and answer.plan.positions["image"] == 0
    session.reset()
    alone = last(session.ask("Where is it?", sampling=DRAWN, max_tokens=8))
    assert alone.plan.positions["text"] == first.plan.positions["text"] and alone.plan.dropped_turns == 0


def test_an_earlier_turn_changes_the_next_answers_prompt(small: Small) -> None:
    prompts = []
    for colour in ("red", "blue"):
        talk = Conversation(*small)
        talk.exchanges.append((talk.message("What is it?", [picture(colour)]), "It is red."))
        prompts.append(talk.prompt(talk.message("Sure?"), 16).x)
    assert prompts[0].shape == prompts[1].shape and not torch.equal(*prompts)


def test_an_answer_without_text_does_not_break_the_next_question(small: Small) -> None:
    model, tokenizer = small
    session = Session(model, tokenizer)
    original = session.decoder.logits
    silent = torch.nn.functional.one_hot(torch.tensor([tokenizer.end]), model.cfg.thinker.vocab_size).float()
    session.decoder.logits = lambda states: silent  # type: ignore[method-assign]
    answer = last(session.ask("What is it?", speak=True))
    session.decoder.logits = original  # type: ignore[method-assign]
    assert (answer.text, answer.ended, answer.wave, answer.codes) == ("", True, None, None)
    assert last(session.ask("And now?", sampling=DRAWN, max_tokens=4)).text
    with pytest.raises(UserError, match="no answer"):
        Session(model, tokenizer).say_again()


def test_a_recording_is_heard_alike_however_loud_and_with_whatever_silence_around_it(small: Small) -> None:
    """The encoder has learned from one loudness and hardly any silence."""
    conversation = Conversation(*small)
    tone = np.sin(np.arange(9600) * 0.2).astype(np.float32) * np.hanning(9600).astype(np.float32)
    tone = np.pad(tone, 960)
    heard = conversation.encode_recording(tone).states
    for changed in (0.02 * tone, np.pad(tone, (8000, 12000)), 0.1 * np.pad(tone, (160, 0))):
        found = conversation.encode_recording(changed.astype(np.float32)).states
        assert found.shape == heard.shape
        torch.testing.assert_close(found, heard, atol=2e-2, rtol=0)
    silence = conversation.encode_recording(np.zeros(16000, np.float32)).states  # nothing to find, nothing to divide by
    assert len(silence) == 13 and bool(silence.isfinite().all())


def test_control_tokens_are_never_written(small: Small) -> None:
    model, tokenizer = small
    for seed in range(3):
        events = list(Session(*small).ask("Hi", sampling=Sampling(temperature=8.0), max_tokens=60, seed=seed))
        assert "<|" not in events[-1].text
    written: list[int] = []
    original = TextStream.push
    try:
        TextStream.push = lambda self, token: (written.append(token), original(self, token))[1]  # type: ignore
        ask(small, "Hi", sampling=Sampling(temperature=8.0), max_tokens=60)
    finally:
        TextStream.push = original  # type: ignore[method-assign]
    assert written and not set(written) & tokenizer.controls


@pytest.mark.parametrize("text", ["naïve 日本語 🎉!", "🎉", "plain words", "  two  spaces", "a\nb"])
def test_text_stream_holds_back_incomplete_characters(small: Small, text: str) -> None:
    tokenizer = small[1]
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) == text and stream.finish() == ""


def test_text_stream_gives_broken_bytes_in_the_end(small: Small) -> None:
    tokenizer = small[1]
    ids = tokenizer.encode("🎉")[:-1]
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in ids]
    assert "".join(pieces) == "" and stream.finish() == tokenizer.decode(ids) == "\ufffd"
    stream = TextStream(tokenizer)
    pieces = [stream.push(token) for token in [*ids, *tokenizer.encode("dog")]]
    assert "".join(pieces) + stream.finish() == tokenizer.decode(stream.ids)


def test_nothing_to_ask_and_too_much_to_ask_are_user_errors(small: Small) -> None:
    for text in (None, "", "  \n"):
        with pytest.raises(UserError, match="empty"):
            ask(small, text)
    with pytest.raises(UserError, match="has room for"):
        ask(small, "dog " * 500)
    with pytest.raises(UserError, match="fewer pictures"):
        ask(small, "What?", [picture("red")] * 40)


def test_more_tokens_than_the_context_are_cut_to_what_is_left(small: Small) -> None:
    session = Session(*small)
    answer = last(session.ask("Hi", sampling=DRAWN, max_tokens=5000))
    assert answer.plan.answer == 160 - sum(answer.plan.positions.values())
    assert len(session._said[0]) == answer.plan.answer and not answer.ended


def test_pictures_of_any_mode_and_size(small: Small) -> None:
    talk = Conversation(*small)
    modes = [Image.new(mode, (3, 50)) for mode in ("L", "RGBA", "P", "1", "CMYK")]
    assert [tuple(e.states.shape) for e in talk.encode_pictures(modes)] == [(5, 24)] * 5
    many = talk.encode_pictures([picture("red"), picture("blue")] * 20)  # more than go in at once
    torch.testing.assert_close(many[0].states, many[38].states, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(many[1].states, talk.encode_pictures([picture("blue")])[0].states, atol=1e-5, rtol=1e-5)


def test_video_is_one_picture_a_second(small: Small, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(12):  # 3 s, another colour each second
            colour = ["red", "green", "blue"][number // 4]
            container.mux(stream.encode(av.VideoFrame.from_image(picture(colour, (32, 32)))))
        container.mux(stream.encode())
    answer = ask(small, "What happens?", video=path, max_tokens=4)
    assert answer.plan.positions["image"] == 3 * 5
    frames = Conversation(*small).message(video=path)["content"][0]["frames"]
    still = Conversation(*small).encode_pictures([picture(c, (32, 32)) for c in ("red", "green", "blue")])
    for number in range(3):  # each frame is nearest to the picture of its second
        distance = [float((frames[number].states - other.states).norm()) for other in still]
        assert distance.index(min(distance)) == number


def test_transcribe_asks_for_dictation_as_training_did(small: Small) -> None:
    wave = noise(1)
    text = transcribe(*small, wave, max_tokens=12).text
    assert text == last(Session(*small).ask(DICTATION, audio=[wave], max_tokens=12)).text
    assert DICTATION == "Write down what you hear." and read_aloud("Hi.") == "Read this aloud: Hi."


def test_a_checkpoint_gives_the_same_answers_as_the_model_it_was_made_from(small: Small, checkpoint: Path) -> None:
    model, tokenizer, card = load_omni(checkpoint)
    assert card["component"] == "omni" and not model.training
    options = {"images": [picture("red")], "audio": [noise(1)], "speak": True, "seed": 3}
    one, other = ask(small, "What is it?", **options), ask((model, tokenizer), "What is it?", **options)
    assert one.text == other.text and torch.equal(one.wave, other.wave)
