"""A realtime session: a client's events are followed here, and the turns of a spoken conversation kept."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from muomni.conversation import Prompt
from muomni.serve.errors import ApiError
from muomni.serve.hall import USUAL_VOICES, Hall
from muomni.serve.house import Served
from muomni.serve.realtime_channel import Outbox, Playback, new_id
from muomni.serve.realtime_dialogue import Dialogue, Limits
from muomni.serve.realtime_items import Item, Part, new_item, pcm_samples
from muomni.serve.realtime_listening import Listening, Samples, Started, Stopped
from muomni.serve.realtime_response import Response, Wanted
from muomni.serve.realtime_schema import (
    AudioAppend,
    AudioClear,
    AudioCommit,
    BadEvent,
    ClientEvent,
    ItemCreate,
    ItemDelete,
    ItemRetrieve,
    ItemTruncate,
    ResponseCancel,
    ResponseCreate,
    ResponseParams,
    SessionConfig,
    SessionUpdate,
    read_event,
    read_json,
    updated,
)

log = logging.getLogger("muomni.serve")
LONG = 100_000  # characters of an event that is read in a thread, so that other clients do not wait


class Session:
    """One client's session.

    Args:
        hall: the model, threads and metrics.
        outbox: takes what the client is told.
        limits: of it.
    """

    def __init__(self, hall: Hall, outbox: Outbox, limits: Limits) -> None:
        self.hall, self.outbox, self.limits = hall, outbox, limits
        self.name = new_id("conv")
        self.dialogue = Dialogue(hall, outbox, limits)
        self.response: Response | None = None
        self.playback = Playback()
        self.listening = Listening(limits.turn_s)
        served, end = hall.house.current, int(time.time() + limits.session_s)
        self.config = SessionConfig(id=new_id("sess"), model=served.name, expires_at=end)
        self.config.audio.output.voice = served.engine.model.talker.cfg.voices[0]
        self.listening.detect(self.config.audio.input.turn_detection)
        self.handlers: dict[type[ClientEvent], Callable[[Any], Any]] = {
            SessionUpdate: self.update,
            AudioAppend: self.append,
            AudioCommit: self.commit,
            AudioClear: self.clear,
            ItemCreate: self.create,
            ItemDelete: self.delete,
            ItemRetrieve: self.retrieve,
            ItemTruncate: self.truncate,
            ResponseCreate: self.respond,
            ResponseCancel: self.cancel,
        }

    @property
    def answering(self) -> bool:
        """Whether an answer is being made."""
        return self.response is not None and self.response.active

    def begin(self) -> None:
        """Tell of the session."""
        self.outbox.put("session.created", session=self.config.model_dump())

    async def follow(self, text: str | bytes) -> None:
        """Follow an event; what is wrong with it is told."""
        found: dict[str, Any] = {}
        try:
            if len(text) > self.limits.event:
                raise BadEvent(f"the event has more than {self.limits.event:,} characters; send less at a time")
            found = await self.hall.workers.run(read_json, text) if len(text) > LONG else read_json(text)
            event = read_event(found)
            done = self.handlers[type(event)](event)
            if asyncio.iscoroutine(done):
                await done
        except (BadEvent, ApiError) as error:
            self.refuse(error, found.get("event_id"))
        except Exception as error:  # a fault of this server; the connection stays
            log.error("a realtime event failed", exc_info=error)
            message = "the server failed at this event; its log has more"
            self.tell("server_error", message, "internal_error", None, found.get("event_id"))

    def refuse(self, error: BadEvent | ApiError, event: Any = None) -> None:
        """Send an error about an event of the client."""
        message = error.message if isinstance(error, BadEvent) else str(error.detail)
        self.tell("invalid_request_error", message, error.code, error.param, event)

    def tell(self, kind: str, message: str, code: str | None, param: str | None = None, event: Any = None) -> None:
        """Send an error.

        Args:
            kind: ``invalid_request_error`` or ``server_error``.
            message: what is wrong and what to do.
            code: short name for programs.
            param: the field that is meant.
            event: ``event_id`` of the client's event; cut to 512 characters, and left out if it is no text.
        """
        event = event[:512] if isinstance(event, str) else None
        error = {"type": kind, "code": code, "message": message, "param": param, "event_id": event}
        self.outbox.put("error", error=error)

    async def finish(self) -> None:
        """Wait until the answer that is being made is complete."""
        if self.response:
            await self.response.finished.wait()

    # The session and its sound

    def update(self, event: SessionUpdate) -> None:
        """Change the configuration.

        Raises:
            BadEvent: if the voice is changed after something was said.
        """
        config = updated(self.config, event.session)
        voice, param = config.audio.output.voice, "session.audio.output.voice"
        self.check_voice(voice, param)
        if voice != self.config.audio.output.voice and self.playback.item:
            raise BadEvent(f"{param}: stays as it is once something was said", "cannot_update_voice", param)
        self.config = config
        self.listening.detect(config.audio.input.turn_detection)
        self.outbox.put("session.updated", session=config.model_dump())

    def check_voice(self, voice: str, param: str) -> None:
        """Raise `BadEvent` unless the model has a voice, or the API a voice of that name."""
        voices = self.hall.house.current.engine.model.talker.cfg.voices
        if voice not in (*voices, *USUAL_VOICES):
            raise BadEvent(f"{param}: no voice {voice!r} here; there are {', '.join(voices)}", param=param)

    async def append(self, event: AudioAppend) -> None:
        """Hear more."""
        if len(event.audio) > LONG:
            found = await self.hall.workers.run(lambda: self.listening.add(pcm_samples(event.audio)))
        else:
            found = self.listening.add(pcm_samples(event.audio))
        for change in found:
            if isinstance(change, Started):
                self.started(change)
            else:
                self.stopped(change)

    def started(self, change: Started) -> None:
        """The user began to speak: an answer that is being made or played ends."""
        self.outbox.put("input_audio_buffer.speech_started", audio_start_ms=change.ms, item_id=change.item)
        if not (self.listening.vad and self.listening.vad.interrupt_response):
            return
        if self.response and self.response.wanted.kept:
            self.response.hush()
            self.response.cancel("turn_detected")
        if self.playback.playing:
            item, heard = self.playback.item, self.playback.heard
            self.playback.stop()
            if item in self.dialogue.items:
                self.cut(item, heard)

    def stopped(self, change: Stopped) -> None:
        """The user has finished: it is the model's turn."""
        self.outbox.put("input_audio_buffer.speech_stopped", audio_end_ms=change.ms, item_id=change.item)
        self.commit_sound(change.item, change.sound)
        if self.listening.vad and self.listening.vad.create_response:
            try:
                self.start(ResponseParams())
            except BadEvent as error:
                self.refuse(error)

    def commit(self, event: AudioCommit) -> None:
        """What is in the buffer becomes an item."""
        self.commit_sound(*self.listening.take())

    def commit_sound(self, name: str, sound: Samples) -> None:
        """Sound becomes an item."""
        item = Item("user", [Part("audio", sound=sound)], id=name)
        self.dialogue.insert(item)
        before = self.dialogue.before(item)
        self.outbox.put("input_audio_buffer.committed", item_id=item.id, previous_item_id=before)
        self.dialogue.announce(item)
        if self.config.audio.input.transcription:
            self.dialogue.spawn(self.dialogue.transcribe(item))

    def clear(self, event: AudioClear) -> None:
        """Forget what is in the buffer."""
        self.listening.clear()
        self.outbox.put("input_audio_buffer.cleared")

    # Items

    def create(self, event: ItemCreate) -> None:
        """Put an item into the conversation.

        Raises:
            BadEvent: if an item of this id is there.
        """
        item = new_item(event.item, "item")
        if any(item.id == other.id for other in self.dialogue.items):
            raise BadEvent(f"item.id: {item.id!r} is there already; give another", "item_exists", "item.id")
        place = len(self.dialogue.items)
        if event.previous_item_id is not None:
            root = event.previous_item_id == "root"
            place = 0 if root else 1 + self.dialogue.find(event.previous_item_id, "previous_item_id")
        self.dialogue.admit(item, place, lambda error: self.refuse(error, event.event_id))

    def delete(self, event: ItemDelete) -> None:
        """Take an item out of the conversation."""
        place = self.dialogue.find(event.item_id)
        self.check_done(self.dialogue.items[place])
        self.dialogue.remove(place)

    def retrieve(self, event: ItemRetrieve) -> None:
        """Show an item."""
        item = self.dialogue.items[self.dialogue.find(event.item_id)]
        self.outbox.put("conversation.item.retrieved", item=item.wire())

    def truncate(self, event: ItemTruncate) -> None:
        """Cut an answer to what was heard of it.

        Raises:
            BadEvent: if it is no spoken answer, or shorter than that.
        """
        item = self.dialogue.items[self.dialogue.find(event.item_id)]
        if item.role != "assistant" or event.content_index or item.parts[0].kind != "audio":
            raise BadEvent("item_id: only the spoken part 0 of an answer can be truncated", param="item_id")
        self.check_done(item)
        if event.audio_end_ms > round(item.sent * 1000):
            message = f"audio_end_ms: the answer has {item.sent * 1000:.0f} ms"
            raise BadEvent(message, "invalid_value", "audio_end_ms")
        if item is self.playback.item:
            self.playback.stop()
        self.cut(item, event.audio_end_ms / 1000)

    def check_done(self, item: Item) -> None:
        """Raise `BadEvent` if an item is still being made."""
        if item.status == "in_progress":
            raise BadEvent("item_id: this answer is still being made; cancel it first", "item_in_progress", "item_id")

    def cut(self, item: Item, seconds: float) -> None:
        """Cut an answer, and tell."""
        item.cut(seconds)
        ms = round(seconds * 1000)
        self.outbox.put("conversation.item.truncated", item_id=item.id, content_index=0, audio_end_ms=ms)

    # Answers

    def respond(self, event: ResponseCreate) -> None:
        """Answer."""
        self.start(event.response or ResponseParams())

    def start(self, params: ResponseParams) -> None:
        """Begin an answer.

        Raises:
            BadEvent: if one is being made, or something in ``params`` cannot be had.
        """
        if self.answering:
            raise BadEvent("an answer is being made; cancel it first", "conversation_already_has_active_response")
        wanted = self.wanted(params)
        if params.input is None:
            items = list(self.dialogue.items)
        else:
            items = [new_item(given, f"response.input[{number}]") for number, given in enumerate(params.input)]
        response = Response(wanted, self.name, self.outbox, self.playback, self.hall)
        last = self.dialogue.items[-1] if self.dialogue.items else None

        async def prompt(served: Served) -> Prompt:
            for part in (part for item in items for part in item.parts if params.input is not None):
                await self.hall.workers.run(part.decode, self.hall.settings.limits)
            return await self.dialogue.prompt(served, items, wanted.instructions, wanted.max_tokens)

        def add(item: Item) -> None:
            there = last in self.dialogue.items
            self.dialogue.insert(item, self.dialogue.items.index(last) + 1 if last and there else None)
            before = self.dialogue.before(item)
            shown = item.wire() | {"content": []}
            self.outbox.put("conversation.item.added", item=shown, previous_item_id=before)

        self.response = response
        self.dialogue.spawn(response.run(prompt, add))

    def wanted(self, params: ResponseParams) -> Wanted:
        """How an answer is to be, of the session's configuration and its own."""
        config = self.config
        voice = (params.audio.output.voice if params.audio else None) or config.audio.output.voice
        self.check_voice(voice, "response.audio.output.voice")
        tokens = params.max_output_tokens or config.max_output_tokens
        instructions = config.instructions if params.instructions is None else params.instructions
        return Wanted(
            speak=(params.output_modalities or config.output_modalities) == ["audio"],
            voice=voice,
            max_tokens=None if tokens == "inf" else int(tokens),
            instructions=instructions,
            kept=params.conversation == "auto",
            metadata=params.metadata,
        )

    def cancel(self, event: ResponseCancel) -> None:
        """End the answer that is being made.

        Raises:
            BadEvent: if there is no such answer being made.
        """
        response = self.response
        if not (response and response.active) or event.response_id not in (None, response.id):
            raise BadEvent("there is no such answer being made", "response_cancel_not_active", "response_id")
        response.cancel("client_cancelled")
