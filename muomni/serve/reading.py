"""A text that is read aloud among other work: a sentence at a time, so that nobody waits for a long text."""

from collections import deque

import torch

from muomni.decoder import Decoder
from muomni.reading_aloud import Sentence
from muomni.serve.reply import End, Reply
from muomni.serve.speaker import Known, Speech


class Reading:
    """A text that is being read.

    Attributes:
        sentences: those that the Thinker has not read yet.
    """

    def __init__(self, sentences: list[Sentence], reply: Reply, seed: int, voice: int) -> None:
        self.sentences, self.reply = deque(sentences), reply
        self.speech = Speech(reply, seed, voice)

    def next(self, decoder: Decoder) -> Known:
        """Have the Thinker read the next sentence; what the speaker has to know of it."""
        sentence = self.sentences.popleft()
        states = decoder(decoder.embed(torch.tensor([sentence.ids], device=decoder.device)))[0]
        end = None if self.sentences else End("stop", 0)
        return Known(self.speech, sentence.answer, list(states[sentence.places]), True, True, end)
