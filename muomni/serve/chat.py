"""``POST /v1/chat/completions``."""

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from muomni.sampling import Sampling
from muomni.serve import sounds
from muomni.serve.choices import Made, usage_of
from muomni.serve.conversing import Asked, Read, fetched, in_turns, read
from muomni.serve.details import details_of, times_of
from muomni.serve.documents import JSON_BODY, chat_answer, failures
from muomni.serve.engine import End, Event, Options, Sound
from muomni.serve.errors import Json, invalid
from muomni.serve.hall import Hall, Job, hall_of
from muomni.serve.inputs import over_limit
from muomni.serve.schema import SEED
from muomni.serve.schema_answer import (
    AnswerMessage,
    AudioDelta,
    ChatAnswer,
    ChatChunk,
    Choice,
    ChunkChoice,
    Delta,
    Details,
    Logprobs,
    Spoken,
    TokenLogprob,
)
from muomni.serve.schema_chat import ChatRequest
from muomni.serve.streams import Stream, merged, sse, told, unless_gone

router = APIRouter()
LEAST_TOP_P = 1e-6  # what a nucleus of nothing means: the likeliest token


def check(asked: ChatRequest, hall: Hall) -> None:
    """Raise `ApiError` where parameters do not go together, or are over a limit."""
    limit = hall.settings.limits.choices
    if (asked.n or 1) > limit:
        raise over_limit(f"n: {asked.n}, at most {limit} (--choices)", "n")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise invalid("top_logprobs: needs logprobs to be true", "top_logprobs")
    if asked.stream_options is not None and not asked.stream:
        raise invalid("stream_options: only goes with stream", "stream_options")
    speak = "audio" in (asked.modalities or ())
    if speak and asked.audio is None:
        raise invalid("audio: give voice and format of the speech", "audio", "missing_required_parameter")
    if asked.audio is not None and not speak:
        raise invalid("audio: no speech is asked for; add 'audio' to modalities", "modalities")
    if asked.audio is not None and asked.stream and asked.audio.format != "pcm16":
        raise invalid("audio.format: a stream has pcm16 only", "audio.format")
    if asked.max_tokens and asked.max_completion_tokens and asked.max_tokens != asked.max_completion_tokens:
        raise invalid("max_tokens: differs from max_completion_tokens; give one of them", "max_tokens")


def options_of(asked: ChatRequest, job: Job) -> Options:
    """What the engine is told; raises `ApiError` for voices and tokens that there are not."""
    vocabulary = job.served.engine.tokenizer.vocab_size
    bias = {int(token): value for token, value in (asked.logit_bias or {}).items()}
    if beyond := [token for token in bias if token >= vocabulary]:
        raise invalid(f"logit_bias: no token {beyond[0]}; there are {vocabulary:,}, from 0", "logit_bias")
    top_p = 1.0 if asked.top_p is None else max(LEAST_TOP_P, asked.top_p)
    return Options(
        sampling=Sampling(temperature=float(asked.temperature or 0.0), top_p=float(top_p)),
        max_tokens=asked.max_completion_tokens or asked.max_tokens or job.served.engine.model.cfg.thinker.context,
        seed=secrets.randbelow(SEED) if asked.seed is None else asked.seed & SEED,
        stop=(asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ()),
        logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        bias=bias,
        presence_penalty=asked.presence_penalty or 0.0,
        frequency_penalty=asked.frequency_penalty or 0.0,
        speak=asked.audio is not None,
        voice=0 if asked.audio is None else job.voice(asked.audio.voice, "audio.voice"),
    )


class ChatJob(Job):
    """One request for an answer.

    Args:
        hall: what it is in.
        asked: the request.
    """

    def __init__(self, hall: Hall, asked: ChatRequest) -> None:
        super().__init__(hall, "/v1/chat/completions", asked.model)
        self.asked, self.name, self.created = asked, f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self.audio_names = [f"audio_{secrets.token_hex(12)}" for _ in range(asked.n or 1)]
        self.details: Details | None = None
        self.rate = self.served.engine.model.cfg.mel.sample_rate
        self.made = [Made(self.served.engine.tokenizer, self.watch, self.rate) for _ in range(asked.n or 1)]

    async def start(self) -> None:
        """Read the conversation, and have the answers begun; raises `ApiError`, `Full` and `Closed`."""
        hall, engine = self.hall, self.served.engine
        options = options_of(self.asked, self)
        conversation: Asked = in_turns(self.asked.messages, hall.said, hall.settings.limits)
        remote = await fetched(conversation, hall.settings, hall.fetchers.run, hall.fetch)
        reserve = min(options.max_tokens, engine.model.cfg.thinker.context // 4)
        limits = hall.settings.limits
        self.read: Read = await hall.workers.run(read, self.served, conversation, remote, limits, reserve)
        if self.asked.details:
            self.details = await hall.workers.run(details_of, self.read, engine.model)
        each = [replace(options, seed=(options.seed + number) & SEED) for number in range(len(self.made))]
        self.begin([partial(engine.ask, self.read.prompt, one) for one in each])

    def over(self) -> None:
        """Count the answer."""
        positions = self.read.prompt.plan.positions
        self.watch.done(positions, sum(one.tokens for one in self.made), sum(one.frames for one in self.made))

    # All at once

    async def whole(self) -> dict[str, Any]:
        """The answer."""
        async for number, event in merged(self.replies, self.deadline):
            self.made[number].take(event)
        self.over()
        choices = [await self.choice(number, made) for number, made in enumerate(self.made)]
        answer = ChatAnswer(
            id=self.name,
            created=self.created,
            model=self.served.name,
            system_fingerprint=self.served.fingerprint,
            choices=choices,
            usage=usage_of(self.read.prompt, self.made),
        )
        if self.details is None:
            return answer.model_dump(exclude={"muomni"})
        times = times_of(self.watch).model_dump(exclude_none=True)
        return answer.model_dump(exclude={"muomni"}) | {"muomni": self.details.model_dump(exclude_none=True) | times}

    async def choice(self, number: int, made: Made) -> Choice:
        """One of the answers."""
        assert made.reason is not None
        text, spoken = made.whole_text(), None
        if self.asked.audio is not None:
            name = self.audio_names[number]
            data = await self.hall.workers.run(sounds.to_file, made.waves, self.asked.audio.format, self.rate)
            end = self.hall.said.keep(name, text)
            spoken = Spoken(id=name, data=sounds.text(data), expires_at=end, transcript=text)
        return Choice(
            index=number,
            message=AnswerMessage(content=None if spoken else text, audio=spoken),
            logprobs=made.all_logprobs() if self.asked.logprobs else None,
            finish_reason=made.reason,
        )

    # As it comes

    def chunk(self, choices: list[ChunkChoice], **more: Any) -> bytes:
        """One event."""
        chunk = ChatChunk(
            id=self.name,
            created=self.created,
            model=self.served.name,
            system_fingerprint=self.served.fingerprint,
            choices=choices,
        )
        data = chunk.model_dump(exclude={"usage", "muomni"})
        for choice, whole in zip(data["choices"], choices, strict=True):
            choice["delta"] = whole.delta.model_dump(exclude_none=True)
        if self.asked.stream_options is not None and self.asked.stream_options.include_usage:
            data["usage"] = None
        return sse(data | more)

    def delta(self, number: int, delta: Delta, logprob: TokenLogprob | None = None, **more: Any) -> bytes:
        """More of one answer."""
        logprobs = None if logprob is None else Logprobs(content=[logprob])
        return self.chunk([ChunkChoice(index=number, delta=delta, logprobs=logprobs, **more)])

    def text_delta(self, number: int, piece: str, role: bool = False) -> Delta:
        """More text; with speech it is the transcript."""
        who: Any = "assistant" if role else None
        if self.asked.audio is None:
            return Delta(role=who, content=piece)
        return Delta(role=who, audio=AudioDelta(id=self.audio_names[number], transcript=piece))

    async def chunks(self) -> AsyncIterator[bytes]:
        """All events of the stream."""
        wires = [sounds.Wire(self.rate) for _ in self.made]
        for number in range(len(self.made)):
            delta, first = self.text_delta(number, "", role=True), self.details is not None and not number
            more = {"muomni": self.details.model_dump(exclude_none=True)} if first and self.details else {}
            yield self.chunk([ChunkChoice(index=number, delta=delta)], **more)
        async for number, event in merged(self.replies, self.deadline):
            for piece in self.pieces(number, event, wires[number]):
                yield piece
        self.over()
        usage = self.asked.stream_options is not None and self.asked.stream_options.include_usage
        if usage or self.asked.details:
            more = {"usage": usage_of(self.read.prompt, self.made).model_dump()}
            if self.asked.details:
                more["muomni"] = times_of(self.watch).model_dump(exclude_none=True)
            yield self.chunk([], **more)
        yield sse("[DONE]")

    def pieces(self, number: int, event: Event, wire: sounds.Wire) -> list[bytes]:
        """The events of the stream that one of the engine's becomes."""
        made, name = self.made[number], self.audio_names[number]
        piece, logprob = made.take(event)
        if isinstance(event, Sound):
            return self.sound(number, wire.push(event.wave))
        if not isinstance(event, End):
            return [self.delta(number, self.text_delta(number, piece), logprob)] if piece or logprob else []
        found = []
        if self.asked.audio is not None:
            found += self.sound(number, wire.finish())
            end = self.hall.said.keep(name, made.whole_text())
            found.append(self.delta(number, Delta(audio=AudioDelta(id=name, expires_at=end))))
        return [*found, self.delta(number, Delta(), finish_reason=made.reason)]

    def sound(self, number: int, data: bytes) -> list[bytes]:
        """Samples as an event, if there are any."""
        if not data:
            return []
        return [self.delta(number, Delta(audio=AudioDelta(id=self.audio_names[number], data=sounds.text(data))))]


@router.post(
    "/v1/chat/completions",
    dependencies=[Depends(JSON_BODY)],
    responses={200: chat_answer(), **failures()},
    response_class=Json,
    summary="Answer a conversation",
)
async def complete(request: Request, asked: ChatRequest) -> Response:
    """Answer a conversation of text, pictures and recordings in text and speech, at once or as it comes."""
    hall = hall_of(request)
    check(asked, hall)
    job = ChatJob(hall, asked)
    try:
        await unless_gone(request, job.start())
        if not asked.stream:
            return Json(await unless_gone(request, job.whole()))
    except BaseException:
        job.close()
        raise
    finally:
        if not asked.stream:
            job.close()
    return Stream(told(job.chunks()), "text/event-stream", job.close, hall.settings.limits.request_s + 30)
