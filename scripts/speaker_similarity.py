"""How often the speaker encoder of `muomni voice` is wrong, on voices whose names are known.

Pairs of recordings of different sentences by one voice, and by two: hibari's and voices of eSpeak NG. Prints the means
of both and the equal error rate, for all pairs and for eSpeak NG's alone, which are more alike than people are.

    python scripts/speaker_similarity.py
"""

from itertools import combinations

import torch
from torch import Tensor

from muomni.data.voices import Hibari, clean, espeak
from muomni.evaluate.similarity import RATE, SpeakerEncoder, equal_error_rate
from muomni.voice.making import sentences

VOICES = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt4", "croak")
SENTENCES, PACE = 8, 160


def recorded(texts: list[str]) -> dict[str, list[Tensor]]:
    """Every voice's recordings of the sentences, at 16 kHz."""
    hibari = Hibari()
    found = {"hibari": [clean(hibari.say(text, 1.0, 0), hibari.rate, RATE) for text in texts]}
    for name in VOICES:
        found[name] = [clean(*heard, RATE) for heard in espeak(f"en-us+{name}", [(text, PACE) for text in texts])]
    return {name: [torch.from_numpy(wave) for wave in waves] for name, waves in found.items()}


def told(what: str, pairs: list[tuple[str, str, float]]) -> None:
    """Print the figures of some pairs."""
    same = [score for one, other, score in pairs if one == other]
    different = [score for one, other, score in pairs if one != other]
    rate, threshold = equal_error_rate(same, different)
    means = f"one voice {sum(same) / len(same):.3f} (n {len(same)}), two {sum(different) / len(different):.3f}"
    print(f"{what}: {means} (n {len(different)}); equal error rate {rate:.3f} at {threshold:.3f}")


def main() -> None:
    """Measure."""
    encoder = SpeakerEncoder()
    waves = recorded(sentences("valid", SENTENCES, 0))
    items = [(name, number, encoder(wave)) for name, some in waves.items() for number, wave in enumerate(some)]
    single = [(a, b, float(x @ y)) for (a, i, x), (b, j, y) in combinations(items, 2) if i != j]
    told("single recordings", single)
    told("of eSpeak NG alone", [pair for pair in single if "hibari" not in pair[:2]])
    half = SENTENCES // 2
    known = {name: encoder.voice(some[:half]) for name, some in waves.items()}
    told(
        f"a recording with a voice of {half} others",
        [(name, other, float(x @ voice)) for name, i, x in items if i >= half for other, voice in known.items()],
    )


if __name__ == "__main__":
    main()
