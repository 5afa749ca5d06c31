"""From the engine's events to the choices of an answer."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from muomni.conversation import Prompt
from muomni.serve.engine import End, Event, Sound, Text, Token
from muomni.serve.metrics import Stopwatch
from muomni.serve.schema import CompletionDetails, PromptDetails, Usage
from muomni.serve.schema_answer import Likely, Logprobs, TokenLogprob
from muomni.tokenizer import Tokenizer

FRAMES = 50  # of speech, a second


@dataclass
class Made:
    """What came of one choice so far.

    Attributes:
        text: pieces.
        logprobs: of each token that spells something.
        waves: pieces of speech, float32 ``[samples]``.
        reason: why it ended; None until it did.
        tokens: that were drawn.
    """

    tokenizer: Tokenizer
    watch: Stopwatch
    rate: int
    logprobs: list[TokenLogprob] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    waves: list[Tensor] = field(default_factory=list)
    reason: Literal["stop", "length"] | None = None
    tokens: int = 0

    def take(self, event: Event) -> tuple[str, TokenLogprob | None]:
        """Take an event; the text and the log probability that it adds."""
        if isinstance(event, Sound):
            self.watch.sound()
            self.waves.append(event.wave)
            return "", None
        if isinstance(event, End):
            self.reason, self.tokens = event.reason, event.tokens
            return "", None
        if isinstance(event, Text):
            self.text.append(event.piece)
            return event.piece, None
        self.watch.token()
        self.text.append(event.piece)
        told = self.told(event)
        if told is not None:
            self.logprobs.append(told)
        return event.piece, told

    def told(self, token: Token) -> TokenLogprob | None:
        """A token with its log probability, if that was asked for and it spells something."""
        if token.logprob is None or not self.tokenizer.spelled(token.id):
            return None
        first = not self.logprobs
        alternatives = [self.likely(other, logprob, first) for other, logprob in token.alternatives]
        return TokenLogprob(**self.likely(token.id, token.logprob, first).model_dump(), top_logprobs=alternatives)

    def likely(self, token: int, logprob: float, first: bool) -> Likely:
        """A token as the API tells it; an answer begins without the space that is part of its first token."""
        text = self.tokenizer.spelled(token)
        spelled = text if isinstance(text, bytes) else text.encode()
        if first:
            spelled = spelled.removeprefix(b" ")
        return Likely(
            token=spelled.decode("utf-8", "backslashreplace"), logprob=max(-9999.0, logprob), bytes=[*spelled]
        )

    @property
    def frames(self) -> int:
        """Of speech."""
        return round(sum(len(wave) for wave in self.waves) * FRAMES / self.rate)

    def whole_text(self) -> str:
        """All of it."""
        return "".join(self.text)

    def all_logprobs(self) -> Logprobs:
        """Of all tokens."""
        return Logprobs(content=self.logprobs)


def usage_of(prompt: Prompt, made: list[Made]) -> Usage:
    """What an answer took: the prompt once, all choices."""
    positions = prompt.plan.positions
    text, audio, total = sum(one.tokens for one in made), sum(one.frames for one in made), sum(positions.values())
    return Usage(
        prompt_tokens=total,
        completion_tokens=text + audio,
        total_tokens=total + text + audio,
        prompt_tokens_details=PromptDetails(
            text_tokens=positions["text"], image_tokens=positions["image"], audio_tokens=positions["audio"]
        ),
        completion_tokens_details=CompletionDetails(text_tokens=text, audio_tokens=audio),
    )
