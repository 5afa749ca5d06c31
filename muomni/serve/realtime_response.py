"""One answer of a realtime session, as the events that tell of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soxr

from muomni.conversation import Prompt
from muomni.errors import UserError
from muomni.serve.engine import Closed, End, Event, Full, Options, Reply, Sound, Text, Token
from muomni.serve.house import House, Served
from muomni.serve.realtime_channel import Outbox, Playback, new_id
from muomni.serve.realtime_items import WIRE_RATE, Item, Part, heard_text, pcm_base64

log = logging.getLogger("muomni.serve")
Status = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]
FRAMES = 50  # of the Talker a second; what counts as a token of sound


@dataclass(frozen=True)
class Wanted:
    """How an answer is to be.

    Attributes:
        speak: in speech, with a transcript; else in text.
        voice: by which name.
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
        house: the model.

    Attributes:
        item: the message that it becomes; None before there is anything of it.
        status: how far it is.
    """

    def __init__(self, wanted: Wanted, conversation: str, outbox: Outbox, playback: Playback, house: House) -> None:
        self.wanted, self.conversation = wanted, conversation
        self.outbox, self.playback, self.house = outbox, playback, house
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
            with self.house.lease() as served:
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
        self.rate = model.cfg.mel.sample_rate
        self.resampler = soxr.ResampleStream(self.rate, WIRE_RATE, 1, "float32")
        limit = self.wanted.max_tokens or model.cfg.thinker.context
        speak, voice = self.wanted.speak, model.talker.cfg.voice(self.wanted.voice)
        self.reply = served.engine.ask(self.prompt, Options(max_tokens=limit, speak=speak, voice=voice))
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
            self.tokens += isinstance(event, Token)
            self.write(event.piece)
        elif isinstance(event, Sound):
            self.sound(event.wave.numpy(), last=False)
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

    def sound(self, wave: Any, last: bool) -> None:
        """More speech, ``[n]`` float32 at the model's rate."""
        assert self.item is not None
        wave = self.resampler.resample_chunk(wave, last)
        if len(wave):
            seconds = len(wave) / WIRE_RATE
            self.item.sent += seconds
            self.delta("response.output_audio.delta", seconds, delta=pcm_base64(wave))
            self.playback.add(self.item, seconds)

    def ended(self, event: End) -> None:
        """The model has finished."""
        assert self.item is not None
        if self.wanted.speak:
            self.sound(np.zeros(0, np.float32), last=True)
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
        kind, code = ("server_error", "internal_error")
        message = "the server failed; its log has more"
        if isinstance(error, UserError):
            kind, code, message = "invalid_request_error", "invalid_value", str(error)
        if isinstance(error, Full):
            kind, code = "rate_limit_error", "queue_full"
        if isinstance(error, Closed):
            kind, code = "server_error", "stopping"
        if not isinstance(error, UserError):
            log.error("a realtime response failed", exc_info=error)
        self.close("failed", {"type": "failed", "error": {"type": kind, "code": code, "message": message}})

    def close(self, status: Status, details: dict[str, Any] | None) -> None:
        """Send the last events."""
        self.status, self.details = status, details
        if self.item:
            self.item.status = "completed" if status == "completed" else "incomplete"
            text = self.item.parts[0].text
            if self.wanted.speak:
                self.delta("response.output_audio.done")
                self.delta("response.output_audio_transcript.done", transcript=text)
            else:
                self.delta("response.output_text.done", text=text)
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
        text = self.item.parts[0].text
        return {"type": "audio", "transcript": text} if self.wanted.speak else {"type": "text", "text": text}

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

    def usage(self) -> dict[str, Any]:
        """Positions that were read; tokens that were written, and frames that were spoken."""
        read = self.prompt.plan.positions if self.prompt else {"text": 0, "audio": 0, "image": 0}
        given, spoken = sum(read.values()), round(self.item.sent * FRAMES) if self.item else 0
        kinds = {f"{kind}_tokens": count for kind, count in read.items()}
        return {
            "input_tokens": given,
            "output_tokens": self.tokens + spoken,
            "total_tokens": given + self.tokens + spoken,
            "input_token_details": {**kinds, "cached_tokens": 0},
            "output_token_details": {"text_tokens": self.tokens, "audio_tokens": spoken},
        }
