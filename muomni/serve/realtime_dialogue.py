"""The items of a realtime session: what was said, in order, and what the model reads of it."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from muomni.conversation import Conversation, Prompt
from muomni.errors import UserError
from muomni.prompts import DICTATION
from muomni.serve.engine import End, Options, Text, Token
from muomni.serve.errors import ApiError, as_api_error, error_body
from muomni.serve.hall import Hall
from muomni.serve.house import Served
from muomni.serve.realtime_channel import Outbox
from muomni.serve.realtime_items import Item, Part, message, turns
from muomni.serve.realtime_schema import BadEvent
from muomni.serve.voice_activity import RATE

DICTATED = 128  # tokens of a transcript at most


@dataclass(frozen=True)
class Limits:
    """Bounds of a session.

    Attributes:
        event: characters of one event.
        turn_s: seconds of sound in the buffer, and of a turn.
        items, pictures: of a conversation; the oldest items leave.
        sound_s: seconds of sound in a conversation; the oldest items leave.
        idle_s: seconds without an event after which it is closed.
        session_s: seconds that it lasts.
        unsent: characters that wait for a slow client.
        connections: sessions at a time.
    """

    event: int = 12_000_000
    turn_s: float = 60.0
    items: int = 128
    pictures: int = 16
    sound_s: float = 300.0
    idle_s: float = 600.0
    session_s: float = 3600.0
    unsent: int = 8_000_000
    connections: int = 64


class Dialogue:
    """A conversation's items.

    Args:
        hall: the model, and threads.
        outbox: takes what the client is told.
        limits: of it.

    Attributes:
        items: in order.
        arriving: what decodes an item's pictures and sound, until it is done.
    """

    def __init__(self, hall: Hall, outbox: Outbox, limits: Limits) -> None:
        self.hall, self.outbox, self.limits = hall, outbox, limits
        self.items: list[Item] = []
        self.arriving: dict[Item, asyncio.Task[None]] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something beside the events."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def close(self) -> None:
        """Stop what is done beside the events."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def find(self, name: str, param: str = "item_id") -> int:
        """The place of an item.

        Raises:
            BadEvent: if there is none of that name.
        """
        for place, item in enumerate(self.items):
            if item.id == name:
                return place
        raise BadEvent(f"{param}: no item {name!r:.80} in the conversation", "item_not_found", param)

    def before(self, item: Item) -> str | None:
        """The name of the item before one."""
        place = self.items.index(item)
        return self.items[place - 1].id if place else None

    def insert(self, item: Item, place: int | None = None) -> None:
        """Put an item into the conversation, by default at its end; the oldest leave where there are too many."""
        self.items.insert(len(self.items) if place is None else place, item)
        while self.full():
            self.remove(0)

    def full(self) -> bool:
        """Whether there is more than the limits allow, beside the newest item."""
        parts = [part for item in self.items for part in item.parts]
        sound = sum(len(part.sound) for part in parts if part.sound is not None)
        return len(self.items) > 1 and (
            len(self.items) > self.limits.items
            or sum(part.kind == "image" for part in parts) > self.limits.pictures
            or sound > self.limits.sound_s * RATE
        )

    def remove(self, place: int) -> None:
        """Take an item out, and tell."""
        item = self.items.pop(place)
        self.outbox.put("conversation.item.deleted", item_id=item.id)

    def announce(self, item: Item) -> None:
        """Tell of a new item that is complete."""
        shown, before = item.wire(), self.before(item)
        self.outbox.put("conversation.item.added", item=shown, previous_item_id=before)
        self.outbox.put("conversation.item.done", item=shown, previous_item_id=before)

    def admit(self, item: Item, place: int, refuse: Callable[[ApiError], None]) -> None:
        """Put in an item that a client made; it is announced once its pictures and sound are decoded."""
        self.insert(item, place)
        if all(part.kind == "text" for part in item.parts):
            self.announce(item)
        else:
            self.arriving[item] = self.spawn(self.decode(item, refuse))

    async def decode(self, item: Item, refuse: Callable[[ApiError], None]) -> None:
        """Decode an item's pictures and sound; one that cannot be is taken out again."""
        try:
            for part in item.parts:
                await self.hall.workers.run(part.decode, self.hall.settings.limits)
            if item in self.items:
                self.announce(item)
                while self.full():
                    self.remove(0)
        except Exception as error:
            if item in self.items:
                self.items.remove(item)
            refuse(as_api_error(error))
        finally:
            self.arriving.pop(item, None)

    async def prompt(self, served: Served, items: Sequence[Item], instructions: str, limit: int | None) -> Prompt:
        """What a model reads of items.

        Args:
            served: the model.
            items: that were there when an answer was asked for.
            instructions: put before the question's text.
            limit: tokens of the answer at most.

        Raises:
            UserError: if there is no question, or it does not fit.
        """
        coming = [self.arriving[item] for item in items if item in self.arriving]
        if coming:
            await asyncio.wait(coming)
        there = [item for item in items if all(part.decoded for part in item.parts)]
        conversation = Conversation(served.engine.model, served.engine.tokenizer)
        context = conversation.model.cfg.thinker.context
        reserve = min(limit or context, context // 4)
        return await self.hall.workers.run(make_prompt, conversation, there, instructions, reserve)

    async def transcribe(self, item: Item) -> None:
        """Write down what the user said, and tell."""
        place: dict[str, Any] = {"item_id": item.id, "content_index": 0}
        kind = "conversation.item.input_audio_transcription"
        try:
            text, read, written = await self.dictate(item.parts[0])
        except Exception as error:  # it comes beside the answer, which it must not end
            told = as_api_error(error)
            fault = error_body(told.status_code, str(told.detail), told.param, told.code)
            self.outbox.put(f"{kind}.failed", **place, **fault)
            return
        item.parts[0].text = text
        usage = {
            "type": "tokens",
            "input_tokens": sum(read.values()),
            "output_tokens": written,
            "total_tokens": sum(read.values()) + written,
            "input_token_details": {"text_tokens": read["text"], "audio_tokens": read["audio"]},
        }
        self.outbox.put(f"{kind}.completed", **place, transcript=text, usage=usage)

    async def dictate(self, part: Part) -> tuple[str, dict[str, int], int]:
        """The words of a recording, the positions that were read, and the tokens that were written."""
        with self.hall.house.lease() as served:
            conversation = Conversation(served.engine.model, served.engine.tokenizer)
            reserve = min(DICTATED, conversation.model.cfg.thinker.context // 4)
            question = [part, Part("text", text=DICTATION)]
            prompt = await self.hall.workers.run(make_prompt, conversation, [Item("user", question)], "", reserve)
            reply, text, count = served.engine.ask(prompt, Options(max_tokens=DICTATED)), "", 0
            try:
                async for event in reply:
                    text += event.piece if isinstance(event, Token | Text) else ""
                    count = event.tokens if isinstance(event, End) else count
            finally:
                reply.cancel()
            return text.strip(), prompt.plan.positions, count


def make_prompt(conversation: Conversation, items: Sequence[Item], instructions: str, reserve: int) -> Prompt:
    """Encode items and lay them out. Takes a while.

    Raises:
        UserError: if there is no question.
    """
    answered, question = turns(items)
    conversation.exchanges = [(message(parts, conversation), text) for parts, text in answered]
    asked = message(question, conversation, instructions)
    if not asked["content"]:
        raise UserError("there is no question to answer; say or send something first")
    return conversation.prompt(asked, reserve)
