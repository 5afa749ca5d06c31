"""Conversations through the official client, beside what the model says without a server."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import torch
from serving import Place, asked, audio_part, image_part, png, running, sound

from muomni.generate import Answer, Session, last
from muomni.omni import Omni
from muomni.serve.schema_answer import ChatAnswer, ChatChunk
from muomni.sound import load_audio
from muomni.tokenizer import Tokenizer

QUESTION = "Where is the cat?"


@pytest.fixture(scope="module")
def place(checkpoint: Path) -> Iterator[Place]:
    with running(checkpoint, slots=4) as place:
        yield place


def alone(small: tuple[Omni, Tokenizer], **question: Any) -> Answer:
    """What the model says without a server; as the server asks it, up to the whole context."""
    return last(Session(*small).ask(max_tokens=160, **question))


def create(place: Place, messages: Any, **more: Any) -> Any:
    return place.client().chat.completions.create(model="muomni", messages=messages, **more)


def test_text_is_answered_as_without_a_server(place: Place, small: tuple[Omni, Tokenizer]) -> None:
    answer = create(place, asked(QUESTION))
    wanted = alone(small, text=QUESTION)
    assert answer.choices[0].message.content == wanted.text and wanted.text
    assert answer.choices[0].finish_reason == ("stop" if wanted.ended else "length")
    assert answer.usage.prompt_tokens == sum(wanted.plan.positions.values())
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.system_fingerprint.startswith("fp_") and answer.id.startswith("chatcmpl-")
    assert [model.id for model in place.client().models.list()] == ["muomni"]
    assert place.client().models.retrieve("muomni").object == "model"


def test_pictures_and_recordings_are_seen_and_heard(place: Place, small: tuple[Omni, Tokenizer]) -> None:
    red, blue, noise = png("red"), png("blue"), sound()
    answer = create(place, asked(image_part(red), image_part(blue), audio_part(noise), QUESTION))
    wanted = alone(small, text=QUESTION, images=[red, blue], audio=[noise])
    assert answer.choices[0].message.content == wanted.text
    details = answer.usage.prompt_tokens_details
    assert details.audio_tokens == wanted.plan.positions["audio"] == 13
    assert details.model_extra["image_tokens"] == wanted.plan.positions["image"] == 10
    other = create(place, asked(image_part(blue), image_part(red), audio_part(noise), QUESTION))
    assert other.choices[0].message.content == alone(small, text=QUESTION, images=[blue, red], audio=[noise]).text


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3"])
def test_recordings_of_every_format(place: Place, small: tuple[Omni, Tokenizer], kind: str) -> None:
    data = sound(0.7, 24000, kind)
    answer = create(place, asked(audio_part(data, kind.lower())))
    assert answer.choices[0].message.content == alone(small, audio=[load_audio(data)]).text


def test_earlier_turns_are_read(place: Place, small: tuple[Omni, Tokenizer]) -> None:
    session, red = Session(*small), png("red")
    first = last(session.ask("What is it?", images=[red], max_tokens=160)).text
    second = last(session.ask(QUESTION, max_tokens=160)).text
    messages = asked(image_part(red), "What is it?")
    answer = create(place, messages)
    assert answer.choices[0].message.content == first
    messages += [answer.choices[0].message, *asked(QUESTION)]  # as it came, as clients send it back
    assert create(place, messages).choices[0].message.content == second
    ruled = [{"role": "system", "content": "Be short."}, {"role": "developer", "content": "Be kind."}, *asked("Where?")]
    assert create(place, ruled).choices[0].message.content == alone(small, text="Be short.\nBe kind.\nWhere?").text


def chunks(place: Place, messages: Any, **more: Any) -> list[Any]:
    found = list(create(place, messages, stream=True, **more))
    for chunk in found:
        ChatChunk.model_validate(chunk.model_dump(exclude_unset=True))
    return found


def test_a_stream_says_the_same(place: Place) -> None:
    whole = create(place, asked(QUESTION))
    found = chunks(place, asked(QUESTION), stream_options={"include_usage": True})
    assert found[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in found if chunk.choices)
    assert text == whole.choices[0].message.content
    assert found[-1].choices == [] and found[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in found[:-1])
    assert [chunk.choices[0].finish_reason for chunk in found if chunk.choices][-1] == whole.choices[0].finish_reason
    assert len({chunk.id for chunk in found}) == 1
    assert not any(chunk.usage for chunk in chunks(place, asked(QUESTION)))


def speech(seed: int = 7, **more: Any) -> dict[str, Any]:
    return {"modalities": ["text", "audio"], "audio": {"voice": "hibari", "format": "wav"} | more, "seed": seed}


def test_speech_is_what_the_model_says(place: Place, small: tuple[Omni, Tokenizer]) -> None:
    answer = create(place, asked(QUESTION), **speech())
    wanted = alone(small, text=QUESTION, speak=True, stream=True, seed=7)
    spoken = answer.choices[0].message.audio
    assert answer.choices[0].message.content is None and spoken.transcript == wanted.text
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(spoken.data)), dtype="float32")
    assert wanted.wave is not None and rate == 16000 and len(wave) == len(wanted.wave)
    assert np.abs(wave - wanted.wave.numpy()).max() < 2e-3
    assert answer.usage.completion_tokens_details.audio_tokens == round(len(wave) / 320)
    assert create(place, asked(QUESTION), **speech()).choices[0].message.audio.data == spoken.data
    other = create(place, asked(QUESTION), **speech(seed=8)).choices[0].message.audio
    assert other.data != spoken.data and other.transcript == spoken.transcript
    usual = create(place, asked(QUESTION), **speech(voice="alloy")).choices[0].message.audio
    assert usual.data == spoken.data  # a usual name means the first voice
    voice = create(place, asked(QUESTION), **speech(voice={"id": "espeak:en+m3"})).choices[0].message.audio
    assert voice.data != spoken.data


def test_spoken_answers_are_known_by_their_id(place: Place, small: tuple[Omni, Tokenizer]) -> None:
    first = create(place, asked("What is it?"), **speech())
    session = Session(*small)
    last(session.ask("What is it?", max_tokens=160))
    wanted = last(session.ask(QUESTION, max_tokens=160)).text
    by_name = {"role": "assistant", "audio": {"id": first.choices[0].message.audio.id}}
    for before in (by_name, first.choices[0].message):
        answer = create(place, [*asked("What is it?"), before, *asked(QUESTION)])
        assert answer.choices[0].message.content == wanted


@pytest.mark.parametrize("form", ["mp3", "flac", "opus", "aac", "pcm16"])
def test_speech_in_every_format(place: Place, form: str) -> None:
    wav = create(place, asked(QUESTION), **speech()).choices[0].message.audio.data
    seconds = len(load_audio(base64.b64decode(wav))) / 16000
    data = base64.b64decode(create(place, asked(QUESTION), **speech(format=form)).choices[0].message.audio.data)
    found = len(data) / 48000 if form == "pcm16" else len(load_audio(data)) / 16000
    assert found == pytest.approx(seconds, abs=0.15)


def test_a_stream_speaks_while_it_writes(place: Place) -> None:
    whole = create(place, asked(QUESTION), **speech(format="pcm16")).choices[0].message.audio
    found = chunks(place, asked(QUESTION), **speech(format="pcm16"))
    deltas = [chunk.choices[0].delta.model_extra.get("audio", {}) for chunk in found if chunk.choices]
    assert "".join(delta.get("transcript", "") for delta in deltas) == whole.transcript
    streamed = b"".join(base64.b64decode(delta.get("data", "")) for delta in deltas)
    assert streamed == base64.b64decode(whole.data)
    assert "expires_at" in deltas[-2] and len({delta["id"] for delta in deltas if delta}) == 1


def test_length_and_stop(place: Place) -> None:
    text = create(place, asked(QUESTION), max_tokens=12, temperature=1.5, seed=4).choices[0].message.content
    short = create(place, asked(QUESTION), max_completion_tokens=3, temperature=1.5, seed=4)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3
    assert text.startswith(short.choices[0].message.content.rstrip("\ufffd")) and len(text) > 4


def test_given_texts_end_an_answer(place: Place) -> None:
    drawn = {"temperature": 1.5, "seed": 4, "max_tokens": 40, "logit_bias": {"2": -100}}
    text = create(place, asked(QUESTION), **drawn).choices[0].message.content
    stop = text[10:13]
    ended = create(place, asked(QUESTION), **drawn, stop=["never said", stop]).choices[0]
    assert ended.message.content == text[: text.index(stop)] and ended.finish_reason == "stop"
    found = chunks(place, asked(QUESTION), **drawn, stop=stop)
    assert "".join(c.choices[0].delta.content or "" for c in found if c.choices) == ended.message.content
    assert create(place, asked(QUESTION), **drawn, stop="never said").choices[0].message.content == text


def test_tokens_can_be_forced_banned_and_made_less_likely(place: Place, small: tuple[Omni, Tokenizer]) -> None:
    dog = small[1].encode("dog")[-1]
    forced = create(place, asked(QUESTION), logit_bias={str(dog): 100}, max_tokens=5, logprobs=True).choices[0]
    assert forced.message.content == small[1].decode([dog] * 5) and forced.finish_reason == "length"
    again = create(
        place, asked(QUESTION), logit_bias={str(dog): 5}, frequency_penalty=2, presence_penalty=2, max_tokens=9
    )
    assert again.choices[0].message.content != create(
        place, asked(QUESTION), logit_bias={str(dog): 5}, max_tokens=9
    ).choices[0].message.content  # fmt: skip
    first = create(place, asked(QUESTION), logprobs=True, max_tokens=1).choices[0].logprobs.content[0].bytes
    (token,) = [
        i for i in range(small[1].vocab_size) if as_bytes(small[1].spelled(i)).removeprefix(b" ") == bytes(first)
    ][:1]
    other = create(place, asked(QUESTION), logit_bias={str(token): -100}, logprobs=True, max_tokens=1)
    assert other.choices[0].logprobs.content[0].bytes != first


def as_bytes(spelled: str | bytes) -> bytes:
    return spelled if isinstance(spelled, bytes) else spelled.encode()


def test_seeds_and_choices(place: Place) -> None:
    free = {"temperature": 1.5, "max_tokens": 12}

    def texts(**more: Any) -> list[str]:
        return [choice.message.content for choice in create(place, asked(QUESTION), **free, **more).choices]

    three = texts(n=3, seed=1)
    assert texts(n=3, seed=1) == three and len(set(three)) == 3
    assert texts(seed=1) == three[:1] and texts(seed=2) == three[1:2]  # a choice has the seed after the one before it
    assert len({texts()[0] for _ in range(4)}) > 1  # without a seed one is drawn
    found = chunks(place, asked(QUESTION), n=3, seed=1, **free)
    joined = ["", "", ""]
    for chunk in found:
        for choice in chunk.choices:
            joined[choice.index] += choice.delta.content or ""
    assert joined == three


def test_log_probabilities(place: Place) -> None:
    answer = create(place, asked(QUESTION), logprobs=True, top_logprobs=3, max_tokens=12)
    tokens = answer.choices[0].logprobs.content
    spelled = b"".join(bytes(token.bytes) for token in tokens)
    assert spelled.decode("utf-8", "replace") == answer.choices[0].message.content
    assert all(token.token == bytes(token.bytes).decode("utf-8", "backslashreplace") for token in tokens)
    found = chunks(place, asked(QUESTION), logprobs=True, top_logprobs=3, max_tokens=12)
    streamed = [t for chunk in found for choice in chunk.choices if choice.logprobs for t in choice.logprobs.content]
    assert streamed == tokens
    assert create(place, asked(QUESTION)).choices[0].logprobs is None


def test_what_the_model_read_is_told(place: Place) -> None:
    messages = asked(image_part(png()), audio_part(sound()), QUESTION)
    answer = create(place, messages, extra_body={"details": True})
    told = answer.model_extra["muomni"]
    image, heard = told["inputs"]
    assert told["positions"]["audio"] == heard["positions"] == 13 and heard["frames"] == 100 and heard["seconds"] == 1.0
    assert (image["size"], image["patch_size"], image["grid"], image["positions"]) == ([40, 30], 8, 2, 5)
    assert told["context"] == 160 and told["answer"] > 0 and told["first_token_s"] > 0
    from PIL import Image

    square = Image.open(io.BytesIO(base64.b64decode(image["png"].partition(",")[2])))
    assert square.size == (32, 32) and square.getpixel((16, 16)) == (255, 0, 0)
    mel = Image.open(io.BytesIO(base64.b64decode(heard["png"].partition(",")[2])))
    assert mel.size == (100, 128)
    found = chunks(place, messages, extra_body={"details": True})
    assert found[0].model_extra["muomni"]["inputs"] == told["inputs"]
    assert found[-1].usage and found[-1].model_extra["muomni"]["first_token_s"] > 0
    assert "muomni" not in create(place, messages).model_extra


def test_answers_have_the_documented_form(place: Place) -> None:
    body = {"model": "muomni", "messages": asked(QUESTION), "logprobs": True, "details": True}
    answer = httpx.post(f"{place.url}/v1/chat/completions", json=body)
    ChatAnswer.model_validate(answer.json())
    assert answer.headers["content-type"] == "application/json"


def test_threads_for_pictures_take_one_core(place: Place) -> None:
    assert place.run(place.hall.workers.run(torch.get_num_threads)) == 1
