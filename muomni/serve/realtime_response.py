"""One answer of a realtime session, as the events that tell of it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from muomni.conversation import Prompt
from muomni.serve.engine import End, Event, Options, Reply, Sound, Text, Token
from muomni.serve.errors import as_api_error, error_body
from muomni.serve.hall import Hall
from muomni.serve.house import Served
from muomni.serve.metrics import Stopwatch
from muomni.serve.realtime_channel import Outbox, Playback, new_id
from muomni.serve.realtime_items import Item, Part, heard_text
from muomni.serve.sounds import WIRE_RATE, Wire, text

ROUTE = "/v1/realtime"  # in the metrics
Status = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]
FRAMES = 50  # of the Talker a second; what counts as a token of sound


@dataclass(frozen=True)
class Wanted:
    """How an answer is to be.

    Attributes:
        speak: in speech, with a transcript; else in text.
        voice: its name; one that the model does not have means the first.
        max_tokens: of its text; None: as many as there is room for.
        instructions: put before the question's text.
        kept: whether it becomes part of the conversation.
        metadata: of the client, for the client.
    """

    speak: bool
    voice: str
    max_tokens: int | None
    instructions: str
    kept: bool = True
    metadata: dict[str, str] | None = None


MakePrompt = Callable[[Served], Awaitable[Prompt]]


class Response:
    """An answer that is being made.

    Args:
        wanted: how it is to be.
        conversation: its name.
        outbox: takes the events.
        playback: is told of the sound that was sent.
        hall: the model, and metrics.

    Attributes:
        item: the message that it becomes; None before there is anything of it.
        status: how far it is.
    """

    def __init__(self, wanted: Wanted, conversation: str, outbox: Outbox, playback: Playback, hall: Hall) -> None:
        self.wanted, self.conversation = wanted, conversation
        self.outbox, self.playback, self.hall = outbox, playback, hall
        self.watch = Stopwatch(hall.metrics, ROUTE)
        self.id = new_id("resp")
        self.item: Item | None = None
        self.status: Status = "in_progress"
        self.details: dict[str, Any] | None = None
        self.reply: Reply | None = None
        self.prompt: Prompt | None = None
        self.tokens = 0
        self.finished = asyncio.Event()

    @property
    def active(self) -> bool:
        """Whether it is still being made."""
        return self.status == "in_progress"

    async def run(self, make_prompt: MakePrompt, add: Callable[[Item], None]) -> None:
        """Make the answer and send it.

        Args:
            make_prompt: what the model reads.
            add: puts the item into the conversation, once there is one.
        """
        self.add = add
        self.outbox.put("response.created", response=self.wire())
        try:
            with self.hall.house.lease() as served:
                await self.make(served, make_prompt)
        except Exception as error:  # whatever goes wrong, the connection stays
            self.fail(error)
        finally:
            if self.reply:
                self.reply.cancel()
            self.finished.set()

    async def make(self, served: Served, make_prompt: MakePrompt) -> None:
        """Ask the model and pass on what comes."""
        self.prompt = await make_prompt(served)
        if not self.active:  # cancelled meanwhile
            return
        model = served.engine.model
        self.wire_sound = Wire(model.cfg.mel.sample_rate)
        limit = self.wanted.max_tokens or model.cfg.thinker.context
        voices, name = model.talker.cfg.voices, self.wanted.voice
        voice = voices.index(name) if name in voices else 0
        options = Options(max_tokens=limit, speak=self.wanted.speak, voice=voice)
        self.reply = served.engine.ask(self.prompt, options)
        self.begin()
        async for event in self.reply:
            self.take(event)

    def begin(self) -> None:
        """Tell of the item that is coming."""
        self.item = Item("assistant", [Part("audio" if self.wanted.speak else "text")], status="in_progress")
        self.send("response.output_item.added", item=self.item.wire() | {"content": []})
        if self.wanted.kept:
            self.add(self.item)
        self.send("response.content_part.added", content_index=0, item_id=self.item.id, part=self.part())

    def take(self, event: Event) -> None:
        """Pass on an event of the engine."""
        assert self.item is not None
        if not self.active:
            return
        if isinstance(event, Token | Text):
            if isinstance(event, Token):
                self.tokens += 1
                self.watch.token()
            self.write(event.piece)
        elif isinstance(event, Sound):
            self.sound(self.wire_sound.push(event.wave))
        elif isinstance(event, End):
            self.tokens = event.tokens
            self.ended(event)

    def write(self, piece: str) -> None:
        """More text."""
        assert self.item is not None
        if piece:
            self.item.whole += piece
            self.item.parts[0].text += piece
            kind = "output_audio_transcript" if self.wanted.speak else "output_text"
            self.delta(f"response.{kind}.delta", delta=piece)

    def sound(self, pcm: bytes) -> None:
        """More speech, as it goes over the wire."""
        assert self.item is not None
        if pcm:
            seconds = len(pcm) / 2 / WIRE_RATE
            self.watch.sound()
            self.item.sent += seconds
            self.delta("response.output_audio.delta", seconds, delta=text(pcm))
            self.playback.add(self.item, seconds)

    def ended(self, event: End) -> None:
        """The model has finished."""
        assert self.item is not None
        if self.wanted.speak:
            self.sound(self.wire_sound.finish())
            self.item.spoken = True
        if event.reason == "stop":
            self.close("completed", None)
        else:
            self.close("incomplete", {"type": "incomplete", "reason": "max_output_tokens"})

    def cancel(self, reason: Literal["turn_detected", "client_cancelled"]) -> None:
        """End it now: no more sound of it goes out, and the model stops at its next step."""
        if not self.active:
            return
        if self.reply:
            self.reply.cancel()
        self.hush()
        if self.item and self.wanted.speak:  # text is written sooner than said
            self.item.parts[0].text = heard_text(self.item.whole, self.item.sent, None)
        self.close("cancelled", {"type": "cancelled", "reason": reason})

    def hush(self) -> None:
        """Forget sound that was not sent yet."""
        unsent = self.outbox.drop_sound()
        if self.item and unsent:
            self.item.sent -= unsent
            self.playback.add(self.item, -unsent)

    def fail(self, error: Exception) -> None:
        """Tell what went wrong; only what a user can mend is told in words."""
        if not self.active:
            return
        told = as_api_error(error)
        fault = error_body(told.status_code, str(told.detail), told.param, told.code)["error"]
        self.close("failed", {"type": "failed", "error": fault})

    def close(self, status: Status, details: dict[str, Any] | None) -> None:
        """Send the last events."""
        self.status, self.details = status, details
        if self.prompt:
            self.watch.done(self.prompt.plan.positions, self.tokens, self.frames)
        if self.item:
            self.item.status = "completed" if status == "completed" else "incomplete"
            words = self.item.parts[0].text
            if self.wanted.speak:
                self.delta("response.output_audio.done")
                self.delta("response.output_audio_transcript.done", transcript=words)
            else:
                self.delta("response.output_text.done", text=words)
            self.delta("response.content_part.done", part=self.part())
            if self.wanted.kept:
                self.outbox.put("conversation.item.done", item=self.item.wire())
            self.send("response.output_item.done", item=self.item.wire())
        self.outbox.put("response.done", response=self.wire())

    def delta(self, kind: str, sound: float = 0.0, **fields: Any) -> None:
        """An event about the one part of the item."""
        assert self.item is not None
        self.send(kind, sound, item_id=self.item.id, content_index=0, **fields)

    def send(self, kind: str, sound: float = 0.0, **fields: Any) -> None:
        """An event about the item."""
        self.outbox.put(kind, sound, response_id=self.id, output_index=0, **fields)

    def part(self) -> dict[str, Any]:
        """The part of the item so far."""
        assert self.item is not None
        words = self.item.parts[0].text
        return {"type": "audio", "transcript": words} if self.wanted.speak else {"type": "text", "text": words}

    def wire(self) -> dict[str, Any]:
        """The response as the API shows it."""
        wanted = self.wanted
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": self.status,
            "status_details": self.details,
            "output": [self.item.wire()] if self.item and not self.active else [],
            "conversation_id": self.conversation if wanted.kept else None,
            "output_modalities": ["audio" if wanted.speak else "text"],
            "max_output_tokens": wanted.max_tokens or "inf",
            "audio": {"output": {"format": {"type": "audio/pcm", "rate": WIRE_RATE}, "voice": wanted.voice}},
            "metadata": wanted.metadata,
            "usage": None if self.active else self.usage(),
        }

    @property
    def frames(self) -> int:
        """Of speech that was sent, as the Talker counts them."""
        return round(self.item.sent * FRAMES) if self.item else 0

    def usage(self) -> dict[str, Any]:
        """Positions that were read; tokens that were written, and frames that were spoken."""
        read = self.prompt.plan.positions if self.prompt else {"text": 0, "audio": 0, "image": 0}
        given, spoken = sum(read.values()), self.frames
        kinds = {f"{kind}_tokens": count for kind, count in read.items()}
        return {
            "input_tokens": given,
            "output_tokens": self.tokens + spoken,
            "total_tokens": given + self.tokens + spoken,
            "input_token_details": {**kinds, "cached_tokens": 0},
            "output_token_details": {"text_tokens": self.tokens, "audio_tokens": spoken},
        }
