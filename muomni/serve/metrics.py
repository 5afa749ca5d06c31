"""What Prometheus reads at ``/metrics``: requests, queue, tokens, and the times that users feel."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
RATES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "muomni_requests", "requests that ended, by route and status", ["route", "status"], registry=registry
        )
        self.in_progress = Gauge("muomni_requests_in_progress", "requests that are being answered", registry=registry)
        self.duration = Histogram(
            "muomni_request_seconds",
            "from a request's first byte to its answer's last",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.active = Gauge("muomni_slots_active", "answers that are being made", registry=registry)
        self.slots = Gauge("muomni_slots", "answers that can be made at once", registry=registry)
        self.queued = Gauge("muomni_queue", "answers that wait for a slot", registry=registry)
        self.prompt = Counter("muomni_prompt_tokens", "positions that were read, by kind", ["kind"], registry=registry)
        self.completion = Counter(
            "muomni_completion_tokens",
            "tokens of text and frames of speech that were made",
            ["kind"],
            registry=registry,
        )
        self.first_token = Histogram(
            "muomni_first_token_seconds",
            "from a request to its first token",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.first_audio = Histogram(
            "muomni_first_audio_seconds",
            "from a request to its first sound",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.rate = Histogram(
            "muomni_tokens_per_second", "of one answer, from its first token on", buckets=RATES, registry=registry
        )
        self.changes = Gauge("muomni_model_changes", "times that another model took the place", registry=registry)
        self.model = Info("muomni_model", "the model that answers now", registry=registry)

    def text(self) -> bytes:
        """All of them in Prometheus' format."""
        return generate_latest(self.registry)


@dataclass
class Stopwatch:
    """Times of one request, told to the metrics once.

    Attributes:
        route: that was asked.
        begin: when, `time.perf_counter`.
        first_token, first_audio: seconds from then; None so far.
        last_token: likewise, of the newest token.
        tokens: of text, all choices together.
    """

    metrics: Metrics
    route: str
    begin: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    first_audio: float | None = None
    last_token: float = 0.0
    tokens: int = 0
    clock: Callable[[], float] = time.perf_counter

    def token(self) -> None:
        """A token came."""
        self.tokens += 1
        self.last_token = self.clock() - self.begin
        if self.first_token is None:
            self.first_token = self.clock() - self.begin
            self.metrics.first_token.labels(self.route).observe(self.first_token)

    def sound(self) -> None:
        """Sound came."""
        if self.first_audio is None:
            self.first_audio = self.clock() - self.begin
            self.metrics.first_audio.labels(self.route).observe(self.first_audio)

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens after the first one, by the time from it to the last; None of fewer than two."""
        if self.first_token is None or self.tokens < 2:
            return None
        return (self.tokens - 1) / max(1e-9, self.last_token - self.first_token)

    def done(self, prompt: dict[str, int], text: int, audio: int) -> None:
        """The answer is complete: positions by kind, tokens of text and frames of speech."""
        for kind, count in prompt.items():
            self.metrics.prompt.labels(kind).inc(count)
        self.metrics.completion.labels("text").inc(text)
        self.metrics.completion.labels("audio").inc(audio)
        if (rate := self.tokens_per_s) is not None:
            self.metrics.rate.observe(rate)
