"""Reading a text aloud: the Thinker reads each sentence as its own answer, and the Talker says it from those states."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from muomni.errors import UserError
from muomni.fusion import lay_out
from muomni.generate import AudioEvent
from muomni.omni import Omni
from muomni.prompts import read_aloud
from muomni.speech import SpeechStream, longest_sentence, sentences, speak, speakable
from muomni.tokenizer import Tokenizer, render_chat


@dataclass(frozen=True)
class Sentence:
    """A sentence to be read aloud, as the Thinker reads it: as its own answer to a request.

    Attributes:
        ids: of the whole exchange.
        places: where in it the sentence is.
        answer: the sentence's own ids.
    """

    ids: list[int]
    places: list[int]
    answer: list[int]


def sentences_to_read(model: Omni, tokenizer: Tokenizer, text: str) -> list[Sentence]:
    """The sentences of a text that are heard.

    Raises:
        UserError: if there is nothing to say, or a sentence does not fit the context.
    """
    parts = [text[a:b] for a, b in sentences(text, longest_sentence(model.talker))]
    parts = [part for part in parts if speakable(part)]
    if not parts:
        raise UserError(f"{text[:40]!r}: no letter or digit to say; give a text with words")
    found, context = [], model.cfg.thinker.context
    for part in parts:
        messages = [{"role": "user", "content": read_aloud(part)}, {"role": "assistant", "content": part}]
        layout = lay_out(render_chat(messages, tokenizer), tokenizer, [])
        if len(layout.ids) > context:
            raise UserError(
                f"{part[:40]!r}: takes {len(layout.ids)} positions with its request, the context holds {context}; "
                "shorten the sentence"
            )
        places = [place for place, mine in enumerate(layout.answer) if mine][:-1]  # all but <|end|>
        found.append(Sentence(layout.ids, places, [layout.ids[place] for place in places]))
    return found


@torch.no_grad()
def say(
    model: Omni, tokenizer: Tokenizer, text: str, seed: int = 0, stream: bool = False, voice: str = ""
) -> Iterator[AudioEvent]:
    """Read a text aloud, sentence after sentence.

    The Thinker reads each sentence as its own answer to a request to read it aloud, in one pass, and the Talker says
    it from the states of that.

    Args:
        model: in eval mode.
        tokenizer: its tokenizer.
        text: any text; what is neither letter nor digit is not heard.
        seed: of the codes.
        stream: give pieces of a fifth of a second as they are made, not whole sentences.
        voice: one of those that the Talker learned, by default the first.

    Yields:
        The speech.

    Raises:
        UserError: if there is nothing to say, a sentence does not fit the context, or there is no such voice.
    """
    speaker = model.talker.cfg.voice(voice)
    device, rng = model.audio_projector.weight.device, torch.Generator().manual_seed(seed)
    for sentence in sentences_to_read(model, tokenizer, text):
        states = model.thinker(model.thinker.embed(torch.tensor([sentence.ids], device=device)))[0][sentence.places]
        if stream:
            pieces = SpeechStream(model, tokenizer, rng, voice=speaker).more(sentence.answer, list(states), last=True)
        else:
            pieces = speak(model, tokenizer, sentence.answer, states, rng, voice=speaker)
        for spoken in pieces:
            yield AudioEvent(spoken.wave)
