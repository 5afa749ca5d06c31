"""Reading aloud and writing down through the official client, beside what the model does without a server."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import torch
from serving import Place, running, sound

from muomni.generate import transcribe
from muomni.omni import Omni
from muomni.reading_aloud import say
from muomni.serve.inputs import recording
from muomni.serve.pauses import in_parts
from muomni.serve.schema_audio import SpeechEvent, Transcription, TranscriptionEvent, VerboseTranscription
from muomni.serve.settings import Limits
from muomni.serve.sounds import Wire, Writer, to_file
from muomni.sound import load_audio
from muomni.tokenizer import Tokenizer

TEXT = "There are two dogs. How many?"


@pytest.fixture(scope="module")
def place(checkpoint: Path) -> Iterator[Place]:
    with running(checkpoint, slots=4) as place:
        yield place


def test_a_text_is_read_aloud_as_without_a_server(place: Place, small: tuple[Omni, Tokenizer]) -> None:
    wanted = torch.cat([event.wave for event in say(*small, TEXT, stream=True)]).numpy()
    data = place.client().audio.speech.create(model="muomni", voice="hibari", input=TEXT, response_format="wav").content
    wave = load_audio(data)
    assert len(wave) == len(wanted) and np.abs(wave - wanted).max() < 2e-3
    voice = {"id": "espeak:en+m3"}
    other = place.client().audio.speech.create(model="muomni", voice=voice, input=TEXT, response_format="wav").content
    assert other != data
    usual = place.client().audio.speech.create(model="muomni", voice="alloy", input=TEXT, response_format="wav").content
    assert usual == data


@pytest.mark.parametrize("form", ["mp3", "flac", "opus", "aac", "pcm"])
def test_speech_comes_in_every_format(place: Place, form: str) -> None:
    client = place.client().audio.speech
    whole = client.create(model="muomni", voice="hibari", input=TEXT, response_format="wav").content
    seconds = len(load_audio(whole)) / 16000
    with client.with_streaming_response.create(
        model="muomni", voice="hibari", input=TEXT, response_format=form
    ) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        pieces = list(answer.iter_bytes())
    data = b"".join(pieces)
    found = len(data) / 48000 if form == "pcm" else len(recording(data, Limits(), "file", 16000)) / 16000
    assert found == pytest.approx(seconds, abs=0.15)
    assert answer.headers["content-type"].startswith("audio/")


def events(answer: httpx.Response) -> list[dict]:
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]


def test_speech_comes_as_events(place: Place) -> None:
    body = {"model": "muomni", "voice": "hibari", "input": TEXT, "response_format": "pcm"}
    whole = httpx.post(f"{place.url}/v1/audio/speech", json=body).content
    found = events(httpx.post(f"{place.url}/v1/audio/speech", json=body | {"stream_format": "sse"}))
    for event in found:
        SpeechEvent.model_validate(event)
    assert b"".join(base64.b64decode(event["audio"]) for event in found[:-1]) == whole
    assert found[-1]["type"] == "speech.audio.done" and found[-1]["usage"]["output_tokens"] == round(len(whole) / 960)


def test_nothing_to_say_and_voices_that_there_are_not(place: Place) -> None:
    client = place.client().audio.speech
    for text, voice, param in ((" ... ", "hibari", "input"), ("Hello", "nobody", "voice"), ("", "hibari", "input")):
        with pytest.raises(openai.BadRequestError) as caught:
            client.create(model="muomni", voice=voice, input=text)
        assert caught.value.param == param
    with pytest.raises(openai.BadRequestError) as caught:
        client.create(model="muomni", voice="hibari", input="Hello", instructions="Sing.")
    assert caught.value.param == "instructions"
    with pytest.raises(openai.NotFoundError):
        client.create(model="tts-1", voice="hibari", input="Hello")


def test_a_recording_is_written_down_as_without_a_server(place: Place, small: tuple[Omni, Tokenizer]) -> None:
    data = sound(2.0)
    wanted = transcribe(*small, data)
    client = place.client().audio.transcriptions
    answer = client.create(model="muomni", file=("speech.wav", data))
    assert answer.text == wanted.text and wanted.text
    assert answer.usage.input_token_details.audio_tokens == wanted.plan.positions["audio"]
    assert client.create(model="muomni", file=("a.wav", data), response_format="text") == wanted.text + "\n"
    verbose = client.create(model="muomni", file=("a.wav", data), response_format="verbose_json", language="en")
    assert (verbose.text, verbose.duration, verbose.language) == (wanted.text, 2.0, "english")
    VerboseTranscription.model_validate(verbose.model_dump(exclude_unset=True))
    Transcription.model_validate(answer.model_dump(exclude_unset=True))
    streamed = list(client.create(model="muomni", file=("a.wav", data), stream=True))
    for event in streamed:
        TranscriptionEvent.model_validate(event.model_dump(exclude_unset=True))
    assert "".join(event.delta for event in streamed[:-1]) == streamed[-1].text == wanted.text


def test_a_longer_recording_is_heard_in_parts(place: Place, small: tuple[Omni, Tokenizer]) -> None:
    first, second = (load_audio(sound(4.0, seed=seed)) for seed in (1, 2))
    pause = np.zeros(4000, np.float32)
    whole = np.concatenate([first, pause, second])
    parts = in_parts(whole, 16000, 5.12)
    assert [len(part) for part in parts] == [len(parts[0]), len(whole) - len(parts[0])]
    assert len(first) <= len(parts[0]) <= len(first) + len(pause)
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, whole, 16000, "FLOAT", format="WAV")
    answer = place.client().audio.transcriptions.create(model="muomni", file=("a.wav", file.getvalue()))
    texts = [transcribe(*small, part).text for part in parts]
    assert answer.text == " ".join(texts)


def test_parts_of_a_recording() -> None:
    rng = np.random.default_rng(5)
    loud = rng.normal(0, 0.1, 16000 * 3).astype(np.float32)
    for pause, count in ((0.3, 2), (0.1, 1)):  # a pause, and one that is too short for it
        quiet = np.zeros(int(16000 * pause), np.float32)
        assert len(in_parts(np.concatenate([quiet, loud, quiet, loud, quiet]), 16000, 12.0)) == count
    assert len(in_parts(np.concatenate([loud[:20000], np.zeros(8000, np.float32), loud[:20000]]), 16000, 12.0)) == 1
    for samples in (np.concatenate([loud] * 20), np.zeros(16000 * 30, np.float32), loud[:1]):
        parts = in_parts(samples, 16000, 5.0)
        assert np.array_equal(np.concatenate(parts), samples) and max(len(part) for part in parts) <= 5 * 16000


def test_what_a_transcription_cannot_do(place: Place) -> None:
    client = place.client().audio.transcriptions
    for more, param in (
        ({"language": "de"}, "language"),
        ({"response_format": "srt"}, "response_format"),
        ({"prompt": "Names: Ada"}, "prompt"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities[]"),
        ({"stream": True, "response_format": "text"}, "response_format"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            client.create(model="muomni", file=("a.wav", sound(0.1)), **more)
        assert caught.value.param == param
    for data in (b"hello", b"", sound(0.2)[:2000]):
        with pytest.raises(openai.BadRequestError) as caught:
            client.create(model="muomni", file=("a.wav", data))
        assert caught.value.param == "file"
    missing = httpx.post(f"{place.url}/v1/audio/transcriptions", files={"other": b"x"})
    assert missing.status_code == 400 and missing.json()["error"]["type"] == "invalid_request_error"


def test_sound_is_the_same_in_any_pieces() -> None:
    wave = torch.sin(torch.arange(16000) * 0.1) * 0.5
    whole = Wire(16000)
    wanted = whole.push(wave) + whole.finish()
    rng = np.random.default_rng(3)
    for _ in range(5):
        cuts = sorted(rng.integers(0, 16000, 9).tolist())
        pieces = torch.tensor_split(wave, cuts)
        wire = Wire(16000)
        found = b"".join(wire.push(piece) for piece in pieces) + wire.finish()
        assert found == wanted, cuts
        writer = Writer("mp3", 16000)
        joined = b"".join(writer.push(piece) for piece in pieces if len(piece)) + writer.finish()
        assert len(load_audio(joined)) == len(load_audio(to_file([wave], "mp3", 16000)))
    assert len(wanted) == 2 * 24000


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "opus", "aac", "pcm"])
def test_an_empty_sound_is_a_file_too(form: str) -> None:
    assert isinstance(to_file([], form, 16000), bytes)
