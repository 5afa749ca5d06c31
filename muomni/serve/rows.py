"""Rows of a cache that are taken and given back while others are in use."""

from typing import Generic, Protocol, TypeVar

from torch import Tensor

from muomni.stack_decoder import StackDecoder


class Lengthy(Protocol):
    """Has positions in a cache."""

    @property
    def length(self) -> int:
        """How many are filled."""
        ...


Row = TypeVar("Row", bound=Lengthy)


class Rows(Generic[Row]):
    """Who has which row of a cache. The rows in use are always the first, so that a step reads them without a copy.

    Args:
        decoder: whose cache it is.
        rows: at most.
        positions: of each row.

    Attributes:
        inside: who has the rows, in order.
    """

    def __init__(self, decoder: StackDecoder, rows: int, positions: int) -> None:
        self.kv = decoder.new_cache(rows, positions).kv  # [L, rows, P, 2, K, h]
        self.inside: list[Row] = []

    @property
    def room(self) -> int:
        """Rows that are not in use."""
        return self.kv.shape[1] - len(self.inside)

    def view(self, first: int = 0, positions: int | None = None) -> Tensor:
        """Keys and values of the rows in use from ``first`` on, ``[L, B, positions, 2, K, h]``."""
        return self.kv[:, first : len(self.inside), :positions]

    def leave(self, place: int) -> None:
        """Give a row back; the last one moves to its place."""
        last = self.inside.pop()
        if place < len(self.inside):
            self.kv[:, place, : last.length] = self.kv[:, len(self.inside), : last.length]
            self.inside[place] = last
