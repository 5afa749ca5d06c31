"""What users bring: good files of many kinds load alike, bad ones give one clear line."""

import io
import math
import random
import struct
import zlib
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from muomni import media, sound
from muomni.errors import UserError
from muomni.media import image_to_tensor, load_audio, load_image, load_video, save_audio
from muomni.sound import GrowingSound


def sine(seconds: float = 1.0, rate: int = 16000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def wav_bytes(wave: np.ndarray, rate: int = 16000, form: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def png_bytes(size: tuple[int, int] = (32, 20), mode: str = "RGB", form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(buffer, form)
    return buffer.getvalue()


def movie_bytes(seconds: float = 3.0, pictures: bool = True, sound: bool = True, form: str = "mp4") -> bytes:
    """A video of 10 frames a second whose grey level tells the time, with a tone beside it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as out:
        packets = []
        if pictures:
            video = out.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for index in range(int(seconds * 10)):
                grey = np.full((48, 64, 3), 8 * index, np.uint8)
                packets += video.encode(av.VideoFrame.from_ndarray(grey, format="rgb24"))
            packets += video.encode(None)
        if sound:
            audio = out.add_stream("aac", rate=44100, layout="stereo")
            wave = np.stack([sine(seconds, 44100)] * 2)
            for start in range(0, wave.shape[1], 1024):
                part = np.ascontiguousarray(wave[:, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="stereo")
                frame.rate, frame.pts, frame.time_base = 44100, start, Fraction(1, 44100)
                packets += audio.encode(frame)
            packets += audio.encode(None)
        out.mux(packets)  # only now: the header is written once every encoder is open
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 10 000 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


NAN = sine(0.1)
NAN[7] = np.nan
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"></svg>'
BAD: list[tuple[str, Callable[..., object], bytes, str]] = [
    ("image-empty", load_image, b"", "empty"),
    ("image-text", load_image, b"hello, I am a text", "not a picture"),
    ("image-svg", load_image, SVG, "not a picture"),
    ("image-sound", load_image, wav_bytes(sine()), "not a picture"),
    ("image-cut", load_image, png_bytes((64, 64))[:2000], "damaged or cut off"),
    ("image-jpeg-cut", load_image, png_bytes((64, 64), form="JPEG")[:1500], "damaged or cut off"),
    ("image-header-only", load_image, png_bytes()[:20], "not a picture"),
    ("image-bomb", load_image, bomb(), "million pixels"),
    ("audio-empty", load_audio, b"", "empty"),
    ("audio-text", load_audio, b"hello, I am a text" * 50, "no audio"),
    ("audio-picture", load_audio, png_bytes(), "no audio"),
    ("audio-playlist", load_audio, PLAYLIST, "no audio"),
    ("audio-no-samples", load_audio, wav_bytes(sine(0)), "no samples"),
    ("audio-nan", load_audio, wav_bytes(NAN, subtype="FLOAT"), "NaN"),
    ("audio-cut", load_audio, wav_bytes(sine())[:9000], "cut off"),
    ("audio-header-cut", load_audio, wav_bytes(sine())[:20], "damaged or cut off"),
    ("audio-flac-cut", load_audio, wav_bytes(sine(), form="FLAC")[:3000], "cut off"),
    ("audio-long", load_audio, wav_bytes(np.zeros(8000 * 601, np.int16), 8000), "over the limit"),
    ("audio-silent-film", load_audio, movie_bytes(1, sound=False), "no sound"),
    ("video-empty", load_video, b"", "empty"),
    ("video-text", load_video, b"hello, I am a text" * 50, "no video"),
    ("video-picture", load_video, png_bytes(), "no video"),
    ("video-playlist", load_video, PLAYLIST, "no video"),
    ("video-sound", load_video, movie_bytes(1, pictures=False), "no pictures"),
    ("video-cut", load_video, movie_bytes()[:3000], "damaged"),
]


@pytest.mark.parametrize("as_file", [True, False], ids=["file", "bytes"])
@pytest.mark.parametrize(("load", "data", "reason"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_content_is_one_line(
    load: Callable[..., object], data: bytes, reason: str, as_file: bool, tmp_path: Path
) -> None:
    path = tmp_path / "thing"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        load(path if as_file else data)
    message = str(error.value)
    assert reason in message and "\n" not in message and len(message) < 400
    assert (str(path) if as_file else "uploaded") in message


@pytest.mark.parametrize("load", [load_image, load_audio, load_video])
def test_bad_paths_are_one_line(load: Callable[..., object], tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "none", "no such file"),
        (tmp_path, "is a folder"),
        (Path("/dev/null"), "not a regular file"),
        ("a\0b", "no such file|cannot be read"),
        ("x" * 5000, "cannot be read"),
    ]:
        with pytest.raises(UserError, match=reason) as error:
            load(path)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.wav"
    with path.open("wb") as file:
        file.truncate(sound.MAX_FILE_BYTES + 1)  # sparse: takes no space
    with pytest.raises(UserError, match="larger than"):
        load_audio(path)


def test_too_many_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_PIXELS", 600)
    with pytest.raises(UserError, match="32 x 20 pixels"):
        load_image(png_bytes())


# Pictures


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I", "I;16", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    if mode == "I;16":
        Image.fromarray(np.full((6, 8), 32768, np.uint16)).save(buffer, "PNG")
    else:
        Image.new(mode, (8, 6)).save(buffer, "TIFF")
    image = load_image(buffer.getvalue())
    assert image.mode == "RGB" and image.size == (8, 6)
    if mode == "I;16":
        assert abs(image.getpixel((0, 0))[0] - 128) <= 1  # type: ignore[index]


def test_transparent_is_white_and_photographs_stand_upright() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(buffer, "PNG")
    assert load_image(buffer.getvalue()).getpixel((1, 1)) == (255, 255, 255)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif)
    assert load_image(buffer.getvalue()).size == (20, 40)


@pytest.mark.parametrize("size", [(10, 10), (100, 50), (1, 300), (300, 1), (3, 1)])
def test_square_keeps_proportions(size: tuple[int, int]) -> None:
    tensor = image_to_tensor(Image.new("RGB", size, (255, 0, 0)), 32)
    assert tensor.shape == (3, 32, 32) and tensor.dtype == torch.float32
    red = (tensor[1] < 0.5).sum().item()
    assert red == pytest.approx(32 * max(1, round(32 * min(size) / max(size))), abs=1)
    assert tensor.min() >= 0 and tensor.max() <= 1


# Sounds


@pytest.mark.parametrize(
    ("form", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None)],
)
def test_formats_and_rates_give_the_same_sound(form: str, subtype: str | None) -> None:
    wave = load_audio(wav_bytes(np.stack([sine(1, 48000)] * 2, 1), 48000, form, subtype))
    assert wave.dtype == np.float32 and wave.ndim == 1
    assert len(wave) == pytest.approx(16000, abs=0 if form != "MP3" else 2000)
    assert np.abs(wave[4000:12000]).max() == pytest.approx(0.5, abs=0.05)
    crossings = np.sum(np.diff(wave[4000:12000] >= 0))
    assert crossings == pytest.approx(440, abs=4)


def test_m4a_through_the_second_decoder() -> None:
    wave = load_audio(movie_bytes(2.0, pictures=False))
    assert len(wave) == pytest.approx(32000, abs=1600)
    assert np.sqrt(np.mean(wave[4000:28000] ** 2)) == pytest.approx(0.5 / math.sqrt(2), rel=0.1)


def test_one_sample_loads_even_when_resampled() -> None:
    assert len(load_audio(wav_bytes(sine(1)[:1]))) == 1
    assert len(load_audio(wav_bytes(sine(1)[:1], 48000))) == 1


def test_saved_sound_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sound.wav"
    save_audio(path, torch.from_numpy(sine()), 16000)
    assert np.abs(load_audio(path) - sine()).max() < 1e-4
    assert [p.name for p in path.parent.iterdir()] == ["sound.wav"]


def test_bad_sound_leaves_no_file(tmp_path: Path) -> None:
    for wave, name, reason in [
        (NAN, "a.wav", "NaN"),
        (sine(0), "b.wav", "no samples"),
        (sine(), "c.mp3", "wav"),
        (sine(), "", "ends in .wav|is a folder"),
    ]:
        with pytest.raises(UserError, match=reason):
            save_audio(tmp_path / name, wave, 16000)
    assert list(tmp_path.iterdir()) == []


# Videos


@pytest.mark.parametrize(("fps", "expected"), [(1.0, [0, 1, 2]), (2.0, [0, 0.5, 1, 1.5, 2, 2.5]), (1 / 3, [0])])
def test_frames_are_taken_at_their_times(fps: float, expected: list[float]) -> None:
    video = load_video(movie_bytes(), fps)
    assert video.times == pytest.approx(expected, abs=0.01)
    for image, time in zip(video.frames, video.times, strict=True):
        assert image.mode == "RGB" and image.size == (64, 48)
        assert np.asarray(image).mean() == pytest.approx(80 * time, abs=6)
    assert video.audio is not None and len(video.audio) == pytest.approx(48000, abs=1600)


def test_silent_film_and_fast_sampling() -> None:
    video = load_video(movie_bytes(1.0, sound=False, form="matroska"), 100)
    assert video.audio is None and len(video.frames) == 10


def test_phone_video_stands_upright() -> None:
    data = bytearray(movie_bytes(1.0, sound=False))
    unity = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    place = data.index(unity, data.index(b"tkhd"))
    # turned by 90 degrees clockwise: (x, y) goes to (height - y, x)
    data[place : place + 36] = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    assert load_video(bytes(data)).frames[0].size == (48, 64)


def test_too_long_or_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_FRAMES", 2)
    with pytest.raises(UserError, match="more than 2 frames"):
        load_video(movie_bytes())
    monkeypatch.setattr(sound, "MAX_SECONDS", 1.0)
    with pytest.raises(UserError, match="over the limit"):
        load_video(movie_bytes())
    for fps in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(UserError, match="frames a second"):
            load_video(movie_bytes(0.3), fps)


def test_a_growing_sound_can_be_read_at_any_time(tmp_path: Path) -> None:
    path, wave = tmp_path / "grows.wav", sine()[:4000]
    with closing(GrowingSound(path, 16000)) as sound:
        assert not path.exists(), "nothing was said yet"
        for end in (1000, 1500, 4000):
            sound.write(wave[sound.samples : end])
            assert len(load_audio(path)) == end
    assert np.abs(load_audio(path) - wave).max() < 1e-4
    with pytest.raises(UserError, match="cannot be written"):
        GrowingSound(tmp_path / "nowhere" / "a.wav", 16000).write(wave)


def test_channels_and_rates_that_would_fill_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sound, "MAX_SAMPLES", 20_000)
    assert len(load_audio(wav_bytes(sine(1.0)))) == 16000
    with pytest.raises(UserError, match="fewer channels or a lower rate"):
        load_audio(wav_bytes(np.stack([sine(1.0)] * 2, 1)))
    with pytest.raises(UserError, match="fewer channels or a lower rate"):
        load_audio(movie_bytes(1.0, pictures=False))  # 44,100 samples through the other decoder


def test_a_damaged_mp3_is_sound_or_one_line_whatever_its_decoder_counts() -> None:
    """libmpg123 looks for the next frame, and may then give more samples than there were to be (found by fuzzing)."""
    seed = random.randrange(1000)
    print("seed", seed)
    rng, whole, refused = random.Random(seed), wav_bytes(sine(0.2), form="MP3"), set()
    for cut in range(976, 1012):
        for data in (whole[:cut] + whole[cut + 200 :], whole[:cut] + rng.randbytes(4) + whole[cut:]):
            try:
                assert 0 < len(load_audio(data)) <= 3200
            except UserError as error:
                refused.add(str(error).split(";")[0].partition(": ")[2].split()[0])
    assert refused == {"cut", "more"}


def test_large_frames_of_a_film_are_made_smaller_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "MAX_SIDE", 32)
    assert {frame.size for frame in load_video(movie_bytes(1.0)).frames} == {(32, 24)}
