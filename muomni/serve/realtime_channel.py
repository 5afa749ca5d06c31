"""What goes to a client of the realtime interface: events in order, and a clock of what it plays."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from fastapi import WebSocket


def new_id(kind: str) -> str:
    """A name that nothing else has, such as ``item_...``."""
    return f"{kind}_{uuid4().hex[:20]}"


class Outbox:
    """Events that wait for the client to take them, at most so many bytes.

    Attributes:
        overflowed: set once the client was too slow; nothing is taken any more.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self.waiting: deque[tuple[str, float]] = deque()  # with the seconds of sound in it
        self.filled, self.emptied, self.overflowed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def put(self, kind: str, sound: float = 0.0, **fields: Any) -> None:
        """Send an event.

        Args:
            kind: its type.
            sound: seconds of speech in it, for `drop_sound`.
            fields: whatever else is in it.
        """
        text = json.dumps({"type": kind, "event_id": new_id("event"), **fields}, separators=(",", ":"))
        if self.size + len(text) > self.limit:
            self.overflowed.set()
        if self.overflowed.is_set():
            return
        self.waiting.append((text, sound))
        self.size += len(text)
        self.emptied.clear()
        self.filled.set()

    def drop_sound(self) -> float:
        """Forget speech that was not sent yet; gives the seconds of it."""
        dropped = sum(sound for _, sound in self.waiting)
        self.waiting = deque(pair for pair in self.waiting if not pair[1])
        self.size = sum(len(text) for text, _ in self.waiting)
        return dropped

    async def run(self, websocket: WebSocket) -> None:
        """Send what comes, until cancelled."""
        while True:
            await self.filled.wait()
            while self.waiting:
                text, _ = self.waiting.popleft()
                self.size -= len(text)
                await websocket.send_text(text)
            self.filled.clear()
            self.emptied.set()


class Playback:
    """How far the client has played what it got, if it plays at once and without a pause.

    Sound is made several times faster than it is played, so that a client plays on long after the answer is complete.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.item: Any = None  # whose sound is played
        self.end = 0.0  # when all that was sent will have been played
        self.sent = 0.0  # seconds of the item's sound

    def add(self, item: Any, seconds: float) -> None:
        """More sound of an item was sent."""
        if item is not self.item:
            self.item, self.sent = item, 0.0
        self.sent += seconds
        self.end = max(self.end, self.clock()) + seconds

    @property
    def playing(self) -> bool:
        """Whether the client still plays."""
        return self.clock() < self.end

    @property
    def heard(self) -> float:
        """Seconds of the item that were played."""
        return max(0.0, self.sent - max(0.0, self.end - self.clock()))

    def stop(self) -> None:
        """The client forgot the rest."""
        self.end = 0.0
