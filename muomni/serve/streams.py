"""Answers that come in pieces, and clients that leave."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from muomni.serve.engine import Closed, End, Event, Reply
from muomni.serve.errors import ApiError, as_api_error, error_body
from muomni.serve.gate import GONE

T = TypeVar("T")


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Do something for a client that waits; it is cancelled when the client leaves.

    Args:
        request: whose body was read.
        work: what to do.

    Raises:
        ApiError: if the client has left; nobody hears of it.
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.create_task(work), asyncio.create_task(left())
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(GONE, "the client has left", None, "client_gone")
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


class ModelFailed(Exception):
    """The model could not go on; no fault of who asked."""


async def merged(replies: Sequence[Reply], deadline: float) -> AsyncIterator[tuple[int, Event]]:
    """The events of several replies as they come, each with the number of its reply.

    Args:
        replies: that were begun.
        deadline: by the event loop's clock.

    Raises:
        TimeoutError: at the deadline.
        Closed: if the engine ended before a reply did.
        ModelFailed: if something else went wrong.
    """
    queue: asyncio.Queue[tuple[int, Event | Exception]] = asyncio.Queue()

    async def feed(number: int, reply: Reply) -> None:
        ended = False
        try:
            async for event in reply:
                ended = isinstance(event, End)
                queue.put_nowait((number, event))
            if not ended:
                raise Closed("the server stopped before the answer was complete")
        except Exception as error:
            queue.put_nowait((number, error))

    feeding = [asyncio.create_task(feed(number, reply)) for number, reply in enumerate(replies)]
    try:
        waiting = len(replies)
        while waiting:
            async with asyncio.timeout_at(deadline):
                number, event = await queue.get()
            if isinstance(event, Closed):
                raise event
            if isinstance(event, Exception):
                raise ModelFailed from event
            waiting -= isinstance(event, End)
            yield number, event
    finally:
        for task in feeding:
            task.cancel()


class Stream(StreamingResponse):
    """A body in pieces, which ends when the client leaves; what made it is told in any case that it is over.

    Args:
        pieces: of the body.
        media_type: of it.
        close: called once, at the end; forgets what nobody waits for any more.
        seconds: that all of it may take, a slow reader included.
    """

    def __init__(
        self, pieces: AsyncIterator[bytes], media_type: str, close: Callable[[], None], seconds: float
    ) -> None:
        # Proxies such as nginx would collect the pieces.
        super().__init__(
            pieces, media_type=media_type, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        self.close, self.seconds = close, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            async with asyncio.timeout(self.seconds):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            pass  # the reader was too slow: the connection ends here, without the last piece
        finally:
            self.close()


def sse(data: dict[str, Any] | str) -> bytes:
    """A server-sent event."""
    text = (
        data if isinstance(data, str) else json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    )
    return f"data: {text}\n\n".encode()


async def told(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Events, and if they fail an event that says so: the status was sent long ago."""
    try:
        async for event in events:
            yield event
    except Exception as error:
        known = as_api_error(error)
        yield sse(error_body(known.status_code, str(known.detail), known.param, known.code))
