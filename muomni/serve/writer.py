"""Continuous batching: prompts join the answers that are being written, and all go on by a token together.

The weights are read once a step for all rows, so sixteen answers take little longer than one. A row that ends gives its
place to the next prompt at once (Yu et al., 2022, "Orca").
"""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from muomni.conversation import Prompt
from muomni.decoder import Decoder
from muomni.drawing import NO_NUMBERS
from muomni.errors import UserError
from muomni.generate import TextStream
from muomni.sampling import choose, likeliest
from muomni.serve.reply import End, Given, Options, Reply, Text, Token, hand_over
from muomni.serve.rows import Rows
from muomni.serve.speaker import Known, Speaker, Speech
from muomni.stack_decoder import Cache
from muomni.tokenizer import Tokenizer

READ_AT_ONCE = 512  # positions of new prompts between two steps; more would keep the others waiting


class Held:
    """Text that is given once no stop can begin in it any more.

    Args:
        stops: texts that end the answer.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops, self.text = [stop for stop in stops if stop], ""

    def push(self, piece: str) -> tuple[str, bool]:
        """Take text; give what is certain, and whether a stop was reached."""
        self.text += piece
        found = [at for stop in self.stops if (at := self.text.find(stop)) >= 0]
        if found:
            given, self.text = self.text[: min(found)], ""
            return given, True
        keep = max((overlap(self.text, stop) for stop in self.stops), default=0)
        cut = len(self.text) - keep
        given, self.text = self.text[:cut], self.text[cut:]
        return given, False


def overlap(text: str, stop: str) -> int:
    """Characters at the end of a text that may be the beginning of a stop."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


class Writing:
    """An answer that waits or is being written.

    Attributes:
        length: positions that the Thinker has read.
        left: tokens that may still come.
        states: the Thinker's after each token of the text, ``[D]``; only of an answer that is spoken.
    """

    def __init__(self, prompt: Prompt, options: Options, reply: Reply, tokenizer: Tokenizer) -> None:
        self.prompt, self.options, self.reply, self.tokenizer = prompt, options, reply, tokenizer
        self.rng = torch.Generator().manual_seed(options.seed)
        self.text, self.held = TextStream(tokenizer), Held(options.stop)
        self.length, self.left, self.tokens = 0, min(options.max_tokens, prompt.plan.answer), 0
        self.states: list[Tensor] = []
        self.counts: Counter[int] = Counter()
        self.speech: Speech | None = None
        self.told = False  # whether the speaker knows of it
        self.given, self.stopped = 0, False  # characters of the text, and whether a stop ended it
        self.reason: Literal["stop", "length"] | None = None

    @property
    def plain(self) -> bool:
        """Whether the next token is the likeliest as it stands, so that nothing of this row has to be looked at."""
        o = self.options
        altered = o.bias or o.presence_penalty or o.frequency_penalty or o.logprobs is not None
        return o.sampling.temperature == 0 and not altered

    def alter(self, logits: Tensor) -> None:
        """Bias and penalties, on logits ``[V]``."""
        o = self.options
        if o.bias:
            ids = torch.tensor(list(o.bias), device=logits.device)
            amounts = torch.tensor(list(o.bias.values()), dtype=logits.dtype, device=logits.device)
            logits.index_add_(0, ids, amounts)
            if any(amount >= 100 for amount in o.bias.values()):  # these and no others
                forced = ids[amounts >= 100]
                kept = logits[forced]
                logits.fill_(-torch.inf)
                logits[forced] = kept
            logits[ids[amounts <= -100]] = -torch.inf
        if self.counts and (o.presence_penalty or o.frequency_penalty):
            ids = torch.tensor(list(self.counts), device=logits.device)
            times = torch.tensor(list(self.counts.values()), dtype=logits.dtype, device=logits.device)
            logits.index_add_(0, ids, -(o.presence_penalty + o.frequency_penalty * times))

    def token(self, id: int, ends: bool, logprobs: Tensor | None) -> Token:
        """A token was drawn; sets `reason` where the answer ends with it."""
        self.tokens, self.left = self.tokens + 1, self.left - 1
        self.counts[id] += 1
        piece = ""
        if ends:
            self.reason = "stop"
        else:
            piece, self.stopped = self.held.push(self.text.push(id))
            self.given += len(piece)
            if self.stopped:
                self.reason = "stop"
            elif self.left == 0:
                self.reason = "length"
        if logprobs is None:
            return Token(id, piece)
        values, ids = logprobs.topk(min(self.options.logprobs or 0, len(logprobs)))
        others = tuple((i, p) for i, p in zip(ids.tolist(), values.tolist(), strict=True) if p > -torch.inf)
        return Token(id, piece, float(logprobs[id]), others)

    def rest(self) -> str:
        """The text that was held back until the end."""
        return "" if self.stopped else self.held.text + self.text.finish()

    def spoken(self) -> int:
        """How many tokens of the text are spoken: those before a stop, whose states are known."""
        if not self.stopped:
            return len(self.states)
        spans = self.tokenizer.char_spans(self.text.ids[: len(self.states)])
        return sum(end <= self.given for _, end in spans)


class Writer:
    """The Thinker's work, a step at a time; `muomni.serve.engine` gives it a thread.

    Args:
        decoder: the Thinker laid out.
        tokenizer: its tokenizer.
        speaker: takes what is to be spoken.
        slots: answers that are written at the same time.
    """

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, speaker: Speaker, slots: int) -> None:
        self.decoder, self.tokenizer, self.speaker = decoder, tokenizer, speaker
        self.rows: Rows[Writing] = Rows(decoder, slots, decoder.cfg.context)
        self.state = torch.empty(0, decoder.cfg.d_model, device=decoder.device)  # [B, D], after what each row read
        self.stop = {tokenizer.end, tokenizer.eos}
        banned = sorted(tokenizer.controls - self.stop)
        self.banned = torch.tensor(banned, dtype=torch.int64, device=decoder.device)
        self.given: list[Given] = []
        self.written = 0  # tokens so far, of all answers

    def take(self, waiting: deque[Writing]) -> list[Writing]:
        """The answers that come next, as many as there is room for now."""
        new: list[Writing] = []
        longest = 0
        while waiting and len(new) < self.rows.room:
            longest = max(longest, waiting[0].prompt.x.shape[1])
            if new and longest * (len(new) + 1) > READ_AT_ONCE:
                break
            writing = waiting.popleft()
            if not writing.reply.over.is_set():
                new.append(writing)
        return new

    def admit(self, new: Sequence[Writing]) -> None:
        """Read prompts, all together; their answers go on with the others."""
        if not new:
            return
        first = len(self.rows.inside)
        self.rows.inside += new
        prompts = pad_sequence([writing.prompt.x[0] for writing in new], batch_first=True)  # [B, T, D]
        states = self.decoder.read(prompts, Cache(self.rows.view(first)))
        ends = torch.tensor([writing.prompt.x.shape[1] - 1 for writing in new], device=states.device)
        self.state = torch.cat((self.state, states[torch.arange(len(new), device=states.device), ends]))
        for writing in new:
            writing.length = writing.prompt.x.shape[1]
            if writing.options.speak:
                writing.speech = Speech(writing.reply, writing.options.seed, writing.options.voice)
            if writing.left <= 0:
                writing.reason = "length"
        self.check()
        self.leave()

    def step(self) -> None:
        """All answers go on by a token; those that end leave."""
        self.leave()
        if not self.rows.inside:
            return
        for writing, id, logprobs in self.choose():
            token = writing.token(id, id in self.stop, logprobs)
            self.given.append((writing.reply, token))
            self.written += 1
        # A token that ends the answer need not be read. The last of a limit is, where its state is to be spoken.
        self.leave(spoken_too=False)
        if not self.rows.inside:
            return
        device = self.decoder.device
        last = [writing.text.ids[-1] for writing in self.rows.inside]
        ids = torch.tensor(last, device=device)
        at = torch.tensor([writing.length for writing in self.rows.inside], device=device)
        longest = max(writing.length for writing in self.rows.inside) + 1
        self.state = self.decoder.step_at(ids, at, self.rows.view(0, longest))
        for row, writing in enumerate(self.rows.inside):
            writing.length += 1
            if writing.speech is not None:
                writing.states.append(self.state[row])
                if writing.reason is None and any(c.isspace() for c in str(self.tokenizer.spelled(last[row]))):
                    self.tell(writing, len(writing.states))  # another word is whole
        self.check()
        self.leave()

    def choose(self) -> list[tuple[Writing, int, Tensor | None]]:
        """The next token of each row, and the logarithms of all probabilities where they are asked for."""
        logits = self.decoder.logits(self.state).index_fill_(1, self.banned, -torch.inf)  # [B, V]
        rows = self.rows.inside
        for row, writing in enumerate(rows):
            if not writing.plain:
                writing.alter(logits[row])
        ids = likeliest(logits)
        found: list[tuple[Writing, int, Tensor | None]] = []
        for row, writing in enumerate(rows):
            if writing.options.sampling.temperature:
                ids[row] = choose(logits[row], writing.options.sampling, writing.rng)
            told = writing.options.logprobs is not None
            found.append((writing, ids[row], logits[row].float().log_softmax(-1).cpu() if told else None))
        return found

    def check(self) -> None:
        """Answers whose state is not finite end with an error: the likeliest of NaN would be some token."""
        for row in (~self.state.isfinite().all(-1)).nonzero()[:, 0].tolist():
            writing = self.rows.inside[row]
            self.given.append((writing.reply, UserError(NO_NUMBERS)))
            writing.reply.over.set()  # before it is handed over: the row leaves now

    def leave(self, spoken_too: bool = True) -> None:
        """Rows whose answers have ended, or that nobody wants, are given back.

        Args:
            spoken_too: also those that ended by their limit and are spoken, whose last token has been read.
        """
        order = list(range(len(self.rows.inside)))
        for place in reversed(range(len(order))):
            writing = self.rows.inside[place]
            waits = writing.speech is not None and writing.reason == "length" and not spoken_too
            if waits or (writing.reason is None and not writing.reply.over.is_set()):
                continue
            self.finish(writing)
            self.rows.leave(place)
            last = order.pop()
            if place < len(order):
                order[place] = last
        if len(order) < len(self.state):
            self.state = self.state[order]

    def finish(self, writing: Writing) -> None:
        """The last events of an answer, or what is left to be spoken of it."""
        if writing.reply.over.is_set() or writing.reason is None:
            return
        if rest := writing.rest():
            self.given.append((writing.reply, Text(rest)))
        end = End(writing.reason, writing.tokens)
        if writing.speech is None:
            self.given.append((writing.reply, end))
        else:
            self.tell(writing, writing.spoken(), end)

    def tell(self, writing: Writing, count: int, end: End | None = None) -> None:
        """Tell the speaker of the first tokens of an answer."""
        assert writing.speech is not None
        ids, states = tuple(writing.text.ids[:count]), tuple(writing.states[:count])
        self.speaker.news.append(Known(writing.speech, ids, states, end is not None, not writing.told, end))
        writing.told = True

    def fail(self, error: BaseException) -> None:
        """End all answers with an error."""
        self.given += [(writing.reply, error) for writing in self.rows.inside]
        while self.rows.inside:
            self.rows.leave(len(self.rows.inside) - 1)
        self.state = self.state[:0]
        self.deliver()

    def deliver(self) -> None:
        """Hand the events of a step over together."""
        given, self.given = self.given, []
        hand_over(given)
