"""How soon the voice activity detector finds that somebody speaks, and what it misses, in noise of several loudnesses.

    python benchmarks/voice_activity.py --count 40 --json voice-activity.json

Sentences of the text corpus' grammar in a neural and two robotic voices, each after two seconds of noise alone. A
sentence counts as missed if nothing was found by its end, as early if something was before it began.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np

from muomni.data.voices import Hibari, clean, espeak
from muomni.serve.voice_activity import RATE, VoiceActivity

SUBJECTS = ("The cat", "A green circle", "Five frogs", "My brother", "Nobody", "She", "The old teacher", "It")
VERBS = ("sat on", "went over to", "is above", "found", "has never seen", "stops before", "put", "keeps")
OBJECTS = ("the table.", "a bicycle.", "the red house.", "seven shoes.", "a chair.", "the fish.", "it.", "the window.")
VOICES = ("hibari", "en-us+f2", "en-us+m3")
BEFORE, PIECE = 2 * RATE, RATE // 50  # samples
LEVEL = 0.3  # of the speech's peak


def white(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Noise of equal energy at all frequencies."""
    return rng.standard_normal(samples)


def pink(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Noise of equal energy in all octaves."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), samples)


def hum(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Mains: 50 Hz and its overtones."""
    time = np.arange(samples) / RATE
    return np.sum([np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) / k for k in range(1, 8)], 0)


def recordings(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Sentences, float32 at 16 kHz."""
    texts = [" ".join(str(rng.choice(words)) for words in (SUBJECTS, VERBS, OBJECTS)) for _ in range(count)]
    hibari, waves = Hibari(), list[np.ndarray]()
    for number, voice in enumerate(VOICES):
        mine = texts[number :: len(VOICES)]
        if voice == "hibari":
            waves += [clean(hibari.say(text, 1.0, 0), hibari.rate, RATE) for text in mine]
        else:
            waves += [clean(wave, rate, RATE) for wave, rate in espeak(voice, [(text, 160) for text in mine])]
    return [LEVEL * wave for wave in waves]


def found(wave: np.ndarray, noise: np.ndarray, decibels: float) -> tuple[float | None, bool]:
    """Seconds from the first loud sample until speech was found; and whether it was found before."""
    blocks = np.sqrt((wave[: len(wave) // 80 * 80].reshape(-1, 80) ** 2).mean(1))
    begin = BEFORE + int(np.flatnonzero(blocks > blocks.max() * 10**-1.5)[0]) * 80
    sound = noise * np.sqrt((wave**2).mean() / (noise**2).mean()) * 10 ** (-decibels / 20)
    sound[BEFORE : BEFORE + len(wave)] += wave
    activity, early = VoiceActivity(), False
    for at in range(0, BEFORE + len(wave), PIECE):
        for change in activity.push(sound[at : at + PIECE].clip(-1, 1).astype(np.float32)):
            if change.kind == "started" and activity.heard > begin:
                return (activity.heard - begin) / RATE, early
            early = True
    return None, early


def measure(
    waves: list[np.ndarray],
    make: Callable[[np.random.Generator, int], np.ndarray],
    decibels: float,
    rng: np.random.Generator,
) -> dict[str, float]:
    """One line of the table."""
    results = [found(wave, make(rng, BEFORE + len(wave) + RATE), decibels) for wave in waves]
    ms = sorted(1000 * seconds for seconds, _ in results if seconds is not None)
    return {
        "n": len(results),
        "missed": sum(seconds is None for seconds, _ in results),
        "early": sum(early for _, early in results),
        "median ms": round(statistics.median(ms)),
        "p95 ms": round(ms[min(len(ms) - 1, int(0.95 * len(ms)))]),
        "max ms": round(ms[-1]),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=40, help="sentences")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    waves = recordings(options.count, rng)
    table = {
        f"{make.__name__}, {decibels} dB": measure(waves, make, decibels, rng)
        for make in (white, pink, hum)
        for decibels in (40, 20, 10, 5, 0)
    }
    for name, line in table.items():
        print(f"{name:14}", *(f"{key} {value:g}" for key, value in line.items()), sep="  ")
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, **table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
