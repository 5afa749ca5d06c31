"""What all routes share, and one request to the model on its way through it."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fastapi import Request

from muomni.serve.conversing import Fetch, Said
from muomni.serve.engine import Reply
from muomni.serve.errors import ApiError, invalid
from muomni.serve.house import House, Served
from muomni.serve.metrics import Metrics, Stopwatch
from muomni.serve.remote import fetch
from muomni.serve.schema import VoiceId
from muomni.serve.settings import Settings
from muomni.serve.workers import Workers

# Names that clients of OpenAI's API know; here they all mean the first voice.
USUAL_VOICES = (
    *("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer"),
    "verse",
)
FETCHERS = 4  # threads that wait for pictures from elsewhere


@dataclass(eq=False)
class Hall:
    """What all routes share.

    Attributes:
        house: the model.
        settings: limits, and what is allowed.
        metrics: for Prometheus.
        workers: threads for pictures and sound.
        fetchers: threads that wait for other machines.
        said: words of spoken answers.
        fetch: gets a picture from elsewhere.
    """

    house: House
    settings: Settings
    metrics: Metrics = field(default_factory=Metrics)
    said: Said = field(default_factory=Said)
    fetch: Fetch = fetch

    def __post_init__(self) -> None:
        self.workers, self.fetchers = Workers(self.settings.workers), Workers(FETCHERS)

    def close(self) -> None:
        """End the threads."""
        self.workers.close()
        self.fetchers.close()


def hall_of(request: Request) -> Hall:
    """The hall of the server that got a request."""
    hall: Hall = request.app.state.hall
    return hall


class Job:
    """One request to the model: it holds the model open, and its replies until they are read.

    Args:
        hall: what it is in.
        route: that was asked, for the metrics.
        model: that was asked for.

    Attributes:
        served: the model.
        replies: that are being made.
        deadline: by the event loop's clock.

    Raises:
        ApiError: if there is no such model.
        Closed: if the server stops.
    """

    def __init__(self, hall: Hall, route: str, model: str) -> None:
        self.hall, self.watch = hall, Stopwatch(hall.metrics, route)
        if model != hall.house.name:
            message = f"the model '{model[:80]}' does not exist; /v1/models lists what does"
            raise ApiError(404, message, "model", "model_not_found")
        self.held = contextlib.ExitStack()
        self.served: Served = self.held.enter_context(hall.house.lease())
        self.replies: list[Reply] = []
        self.deadline = asyncio.get_running_loop().time() + hall.settings.limits.request_s

    def begin(self, makers: Sequence[Callable[[], Reply]]) -> None:
        """Have replies begun: all or none. Raises `Full` and `Closed` as the engine does."""
        for make in makers:
            self.replies.append(make())

    def close(self) -> None:
        """Forget the replies, and let the model go; may be called twice."""
        for reply in self.replies:
            reply.cancel()
        self.held.close()

    def voice(self, asked: str | VoiceId, param: str) -> int:
        """The index of a voice; raises `ApiError` if there is none of that name."""
        name, known = asked.id if isinstance(asked, VoiceId) else asked, self.served.engine.model.talker.cfg.voices
        if name in known:
            return known.index(name)
        if name in USUAL_VOICES:
            return 0
        raise invalid(f"{param}: no voice '{name[:80]}'; there are {', '.join(known)}", param)
