"""Characters that dictation gets wrong where a recording is softer, has silence around it, or noise; plain and mended.

    python benchmarks/loudness.py --checkpoint checkpoints/omni

The voice is the training data's. Mended is what `muomni.recording` makes of it, as for every recording that is given.
"""

import argparse
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from muomni.data.voices import Hibari, clean
from muomni.decoder import Decoder
from muomni.evaluate.text_scores import character_error_rate
from muomni.generate import Session, last
from muomni.omni import load_omni
from muomni.prompts import DICTATION
from muomni.serve.voice_activity import RATE

TEXTS = (
    "What is above the cat?",
    "Is a dog an animal?",
    "There are two dogs.",
    "The green circle is above the cat.",
    "How many things are there?",
    "Which is bigger, a mountain or a microphone?",
    "It is a red square.",
    "The cat is to the left of the dog.",
    "What is in the picture?",
    "A parrot can fly.",
)
# Loudness, seconds of silence before, and decibels from the speech down to white noise.
CASES = [(1.0, 0.0, 99), (0.5, 0.0, 99), (0.2, 0.0, 99), (0.05, 0.0, 99), (1.0, 0.24, 99), (0.1, 0.3, 60)]
CASES += [(0.1, 0.3, 40), (0.1, 0.3, 30), (0.1, 0.3, 20)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="checkpoints/omni")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer, _ = load_omni(Path(options.checkpoint), "cpu")
    decoder, voice = Decoder(model.thinker), Hibari()
    waves = [clean(voice.say(text, 1.0, 0), voice.rate, RATE) for text in TEXTS]

    def wrong(recordings: list[np.ndarray]) -> float:
        session = [Session(model, tokenizer, decoder=decoder) for _ in recordings]
        asked = [s.ask(DICTATION, audio=[wave], max_tokens=40) for s, wave in zip(session, recordings, strict=True)]
        return character_error_rate([text.lower() for text in TEXTS], [last(one).text.lower() for one in asked])

    for loudness, before, decibels in CASES:
        rng = np.random.default_rng(options.seed)
        heard = []
        for wave in waves:
            padded = np.concatenate((np.zeros(int(before * RATE)), wave))
            level = np.sqrt((wave**2).mean()) * 10 ** (-decibels / 20)
            heard.append((loudness * (padded + level * rng.standard_normal(len(padded)))).astype(np.float32))
        with patch("muomni.conversation.as_learned", lambda wave, rate: wave):
            plain = wrong(heard)
        mended = wrong(heard)
        print(f"loudness {loudness:4}  {before:4} s before  noise -{decibels} dB: {plain:.3f}, mended {mended:.3f}")


if __name__ == "__main__":
    main()
