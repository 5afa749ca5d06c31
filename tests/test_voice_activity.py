"""The voice activity detector on recordings of two kinds of voice, on noise, hum, clicks and silence."""

from collections.abc import Callable

import numpy as np
import pytest

from muomni.data.voices import Hibari, clean, espeak
from muomni.serve.voice_activity import RATE, Change, VoiceActivity

TEXTS = ("What is above the cat?", "Stop, that is enough.", "She found seven blue shoes under the table.", "No.")
BEFORE = 2 * RATE
SEED = 3


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    """float32 at 16 kHz, without silence around, of a usual loudness."""
    hibari = Hibari()
    waves = [clean(hibari.say(text, 1.0, 0), 24000, RATE) for text in TEXTS]
    waves += [clean(wave, rate, RATE) for wave, rate in espeak("en-us+f2", [(text, 160) for text in TEXTS])]
    return [0.3 * wave for wave in waves]


def white(samples: int) -> np.ndarray:
    return np.random.default_rng(SEED).standard_normal(samples)


def pink(samples: int) -> np.ndarray:
    spectrum = np.fft.rfft(white(samples))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), samples)


def hum(samples: int) -> np.ndarray:
    time = np.arange(samples) / RATE
    return np.sum([np.sin(2 * np.pi * 50 * k * time) / k for k in range(1, 8)], 0)


NOISES = (white, pink, hum)


def noisy(wave: np.ndarray, noise: Callable[[int], np.ndarray], decibels: float) -> np.ndarray:
    """With silence of two seconds before and one after, and noise so far below the speech's mean."""
    wave = np.concatenate((np.zeros(BEFORE), wave, np.zeros(RATE)))
    sound = noise(len(wave))
    level = np.sqrt((wave[BEFORE:-RATE] ** 2).mean() / (sound**2).mean()) * 10 ** (-decibels / 20)
    return (wave + level * sound).clip(-1, 1).astype(np.float32)


def first_loud(wave: np.ndarray) -> int:
    """The first sample of the first 5 ms that are at most 30 dB below the loudest."""
    blocks = np.sqrt((wave[: len(wave) // 80 * 80].reshape(-1, 80) ** 2).mean(1))
    return int(np.flatnonzero(blocks > blocks.max() * 10**-1.5)[0]) * 80


def found(wave: np.ndarray, piece: int = 320, threshold: float = 0.5) -> list[tuple[Change, int]]:
    """What changes, and how many samples had been heard when it was found."""
    activity, changes = VoiceActivity(threshold), []
    for at in range(0, len(wave), piece):
        changes += [(change, activity.heard) for change in activity.push(wave[at : at + piece])]
    return changes


def delays(recordings: list[np.ndarray], noise: Callable[[int], np.ndarray], decibels: float) -> list[float]:
    """Seconds until each recording's beginning was found; infinite where it was not, or something before it."""
    seconds = []
    for wave in recordings:
        begin = BEFORE + first_loud(wave)
        times = [heard for change, heard in found(noisy(wave, noise, decibels)) if change.kind == "started"]
        seconds.append((times[0] - begin) / RATE if times and times[0] > begin else np.inf)
    return seconds


@pytest.mark.parametrize("noise", NOISES)
def test_speech_is_found_quickly(recordings: list[np.ndarray], noise: Callable[[int], np.ndarray]) -> None:
    clean_speech, usual, loud = (delays(recordings, noise, decibels) for decibels in (40, 20, 10))
    assert max(clean_speech) <= 0.12 and np.median(clean_speech) <= 0.08
    assert max(usual) <= 0.25 and np.median(usual) <= 0.1
    assert max(loud) <= 0.35 and np.median(loud) <= 0.15


@pytest.mark.parametrize("noise", NOISES)
def test_speech_as_loud_as_the_noise_is_still_found(
    recordings: list[np.ndarray], noise: Callable[[int], np.ndarray]
) -> None:
    assert max(delays(recordings, noise, 0)) < 0.8


def test_its_beginning_and_end(recordings: list[np.ndarray]) -> None:
    for wave in recordings:
        (start, _), (stop, heard) = found(noisy(wave, white, 40))
        assert abs(start.at - BEFORE - first_loud(wave)) < 0.06 * RATE
        last = BEFORE + len(wave) - first_loud(wave[::-1])
        assert abs(stop.at - last) < 0.1 * RATE and heard - stop.at < 0.55 * RATE


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("level", [0.3, 0.03, 0.001])
def test_steady_noise_and_hum_are_no_speech(noise: Callable[[int], np.ndarray], level: float) -> None:
    sound = noise(20 * RATE)
    assert not found((level * sound / sound.std()).clip(-1, 1).astype(np.float32), threshold=0.3)


def test_silence_and_clicks_are_no_speech() -> None:
    assert not found(np.zeros(5 * RATE, np.float32))
    wave = 0.0005 * white(10 * RATE)
    for at in range(RATE // 2, len(wave), RATE // 2):
        wave[at : at + 160] += 0.8 * white(160) * np.exp(-np.arange(160) / 40)
    assert not found(wave.astype(np.float32))


def test_noise_that_begins_is_taken_for_speech_for_two_seconds() -> None:
    """What it cannot do; it gets used to it."""
    wave = np.concatenate((np.zeros(RATE), 0.05 * white(8 * RATE))).astype(np.float32)
    (start, _), (stop, _) = found(wave)
    assert abs(start.at - RATE) < 0.05 * RATE and 1.5 * RATE < stop.at - start.at < 2.5 * RATE


def test_a_higher_threshold_wants_louder_speech(recordings: list[np.ndarray]) -> None:
    wave = noisy(recordings[0], white, 5)
    low, high = ([c for c, _ in found(wave, threshold=t) if c.kind == "started"] for t in (0.2, 1.0))
    assert low and (not high or high[0].at > low[0].at)


def test_pieces_of_any_size_give_the_same(recordings: list[np.ndarray]) -> None:
    wave = noisy(recordings[2], pink, 10)
    expected = [change for change, _ in found(wave, 160)]
    assert expected
    for piece in (1, 7, 333, 4800, len(wave)):
        assert [change for change, _ in found(wave, piece)] == expected
