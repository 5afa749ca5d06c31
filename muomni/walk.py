"""Speaking frame by frame: one utterance, or several at once, each on its own way through its characters."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from muomni.drawing import draw
from muomni.stack_decoder import StackDecoder

if TYPE_CHECKING:
    from muomni.talker import Talker

LONGEST_STAY = 50  # frames: one second on a character, by then a gap or a fault
ROOM = 64  # frames by which a cache that turns out too small grows at least


class Walk:
    """An utterance on its way through its characters, of which more may become known as it goes.

    The way is deterministic: the model gives at each frame the chance to go on, and the Talker goes on once the chance
    of still staying falls below one half, the median of the stay's length.

    Args:
        talker: gives what is not said otherwise.
        rng: source of the codes, on the CPU.
        temperature: of the codes, by default the configured one; 0 takes the likeliest.
        frames: at most; by default as many as the Talker can make.
        voice: index into the Talker's voices, each of which may have codes of its own.

    Attributes:
        at: the character of the next frame.
        stay: frames since that character began.
        codes: of the frames so far, each Q numbers.
        positions, stays: the character of each frame so far, and what `stay` was.
    """

    def __init__(
        self,
        talker: "Talker",
        rng: torch.Generator,
        temperature: float | None = None,
        frames: int | None = None,
        voice: int = 0,
    ) -> None:
        self.rng, self.range = rng, talker.cfg.codes_of(voice)
        self.temperature = talker.cfg.temperature if temperature is None else temperature
        self.limit = talker.cfg.frames if frames is None else frames
        self.none = [talker.cfg.codes] * talker.cfg.codebooks  # what stands for the frame before the first
        self.codes: list[list[int]] = []
        self.positions: list[int] = []
        self.stays: list[int] = []
        self.at, self.stay, self.still = 0, 0, 1.0

    @property
    def previous(self) -> list[int]:
        """The codes that the next frame follows."""
        return self.codes[-1] if self.codes else self.none

    def goes_on(self, end: int) -> bool:
        """Whether there is a frame to make before character ``end``."""
        return self.at < end and len(self.codes) < self.limit

    def take(self, codes: list[int], chance: float) -> None:
        """A frame was made.

        Args:
            codes: of the frame, Q.
            chance: that the next frame is on the next character.
        """
        self.codes.append(codes)
        self.positions.append(self.at)
        self.stays.append(self.stay)
        self.still *= 1 - chance
        if self.still < 0.5 or self.stay + 1 >= LONGEST_STAY:
            self.at, self.stay, self.still = self.at + 1, 0, 1.0
        else:
            self.stay += 1


class TalkerDecoder:
    """A Talker laid out for speaking; `muomni.talker.Talker.forward` is the reference.

    Args:
        talker: in eval mode; its weights must not change meanwhile.
    """

    def __init__(self, talker: "Talker") -> None:
        self.talker = talker
        self.stack = StackDecoder(talker.stack)

    @torch.no_grad()
    def frames(
        self, walks: Sequence[Walk], characters: Tensor, kv: Tensor, moving: Sequence[int] | None = None
    ) -> Tensor:
        """Make the next frame of each utterance; the walks take theirs.

        Args:
            walks: B utterances.
            characters: the state of the character that each is on, ``[B, D]``, see `Talker.condition`.
            kv: keys and values of the frames before, ``[L, B, P, 2, K, h]`` with a row for each walk; takes the new.
            moving: which of them go on, by default all. The others stay where they are, and their next frame is
                written over what this one left.

        Returns:
            Codes ``[B, Q]`` int64 of those that go on, on the CPU.

        Raises:
            UserError: if what the model computes is not finite.
        """
        device = characters.device
        numbers = torch.tensor([(*walk.previous, walk.stay, len(walk.codes)) for walk in walks], device=device)
        stay, at = numbers[:, -2], numbers[:, -1]
        x = self.talker.embed_codes(numbers[:, :-2]) + characters
        x = x + self.talker.condition.stay(stay.clamp_max(LONGEST_STAY - 1))
        end = max(len(walk.codes) for walk in walks) + 1
        states = self.stack.step_rows(x, at, kv[:, :, :end])
        if moving is None:
            return self.choose(walks, states)
        return self.choose([walks[row] for row in moving], states[list(moving)])

    def choose(self, walks: Sequence[Walk], states: Tensor) -> Tensor:
        """Draw the codes of frames from states ``[B, D]``, and tell the walks; returns ``[B, Q]`` int64 on the CPU."""
        chances = self.talker.advance(states)[:, 0].float().sigmoid().tolist()
        chosen: list[list[int]] = []
        for head, table in zip(self.talker.code_heads, self.talker.code_embedding, strict=True):
            codes = pick(head(states), [(walk.temperature, walk.rng, walk.range) for walk in walks])
            chosen.append(codes)
            states = states + table(torch.tensor(codes, device=states.device))
        frames = [list(codes) for codes in zip(*chosen, strict=True)]
        for walk, codes, chance in zip(walks, frames, chances, strict=True):
            walk.take(codes, chance)
        return torch.tensor(frames)


def pick(logits: Tensor, draws: Sequence[tuple[float, torch.Generator, tuple[int, int]]]) -> list[int]:
    """Draw an index from each row of logits ``[B, V]``, at a temperature from a source, between the first and the last.

    At temperature 0 it is the likeliest. The last index is not drawn.
    """
    drawn = []
    for row, (temperature, rng, (first, last)) in zip(logits.float().cpu(), draws, strict=True):
        likelihoods = (row[first:last] / max(temperature, 1e-6)).softmax(-1)
        drawn.append(first + int(likelihoods.argmax() if temperature <= 0 else draw(likelihoods, rng)))
    return drawn


class Speaker:
    """One utterance made with a cache of its own.

    Args:
        decoder: the Talker laid out.
        walk: its way, at its beginning.
    """

    def __init__(self, decoder: TalkerDecoder, walk: Walk) -> None:
        self.decoder, self.walk = decoder, walk
        self.kv = decoder.stack.new_cache(1, min(walk.limit, ROOM)).kv

    def to(self, states: Tensor, end: int) -> Iterator[Tensor]:
        """Speak until a character is reached.

        Args:
            states: of the characters so far, ``[1, N, D]``, as `Talker.condition` gives them.
            end: the character that is not spoken yet, N at most.

        Yields:
            The codes ``[Q]`` int64 of each frame.
        """
        while self.walk.goes_on(end):
            if len(self.walk.codes) == self.kv.shape[2]:
                self.kv = F.pad(self.kv, (0, 0, 0, 0, 0, 0, 0, self.kv.shape[2]))
            yield self.decoder.frames([self.walk], states[:, self.walk.at], self.kv)[0]


@torch.no_grad()
def speak_uncached(talker: "Talker", walk: Walk, states: Tensor) -> None:
    """Walk through characters ``[1, N, D]`` with all frames computed again at each step, to check the cache against."""
    decoder, device = TalkerDecoder(talker), states.device
    while walk.goes_on(states.shape[1]):
        previous = torch.tensor([[walk.none, *walk.codes]], device=device)
        position, stay = ([[*so_far, now]] for so_far, now in ((walk.positions, walk.at), (walk.stays, walk.stay)))
        rows = (torch.tensor(numbers, device=device) for numbers in (position, stay))
        decoder.choose([walk], talker(previous, states, *rows)[:, -1])
