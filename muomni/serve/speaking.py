"""``POST /v1/audio/speech``: a text read aloud, sent as it is made."""

from collections.abc import AsyncIterator
from functools import partial

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from muomni.serve import sounds
from muomni.serve.choices import FRAMES
from muomni.serve.documents import JSON_BODY, failures, speech_answer
from muomni.serve.engine import Event, Sound
from muomni.serve.errors import invalid
from muomni.serve.hall import Hall, Job, hall_of
from muomni.serve.inputs import over_limit
from muomni.serve.schema_audio import SpeechRequest, TokenUsage
from muomni.serve.streams import Stream, merged, sse, told, unless_gone
from muomni.speech import speakable

router = APIRouter()
SEED = 0  # the same text in the same voice sounds the same


class SpeechJob(Job):
    """One text to be read aloud.

    Args:
        hall: what it is in.
        asked: the request.
    """

    def __init__(self, hall: Hall, asked: SpeechRequest) -> None:
        super().__init__(hall, "/v1/audio/speech", asked.model)
        self.asked, self.kind = asked, asked.response_format or "mp3"
        self.rate = self.served.engine.model.cfg.mel.sample_rate
        self.samples = 0

    async def start(self) -> None:
        """Have it begun, and wait for what comes first, which may be that it cannot be said.

        Raises:
            ApiError, UserError, Full, Closed: if it cannot.
        """
        limit = self.hall.settings.limits.characters
        if len(self.asked.input) > limit:
            raise over_limit(f"input: {len(self.asked.input):,} characters, at most {limit:,} (--characters)", "input")
        if not speakable(self.asked.input):
            raise invalid("input: has no letter or digit to say; give a text with words", "input")
        voice = self.voice(self.asked.voice, "voice")
        self.begin([partial(self.served.engine.say, self.asked.input, SEED, voice)])
        self.events = merged(self.replies, self.deadline)
        self.first = await anext(self.events)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file in pieces."""
        run, writer = self.hall.workers.run, await self.hall.workers.run(sounds.Writer, self.kind, self.rate)
        async for event in self.heard():
            if isinstance(event, Sound):
                self.watch.sound()
                self.samples += len(event.wave)
                if piece := await run(writer.push, event.wave):
                    yield piece
        self.watch.done({"text": self.read}, 0, self.frames)
        if piece := await run(writer.finish):
            yield piece

    async def heard(self) -> AsyncIterator[Event]:
        """The engine's events."""
        yield self.first[1]
        async for _, event in self.events:
            yield event

    async def sse(self) -> AsyncIterator[bytes]:
        """The file in pieces as events, and what it took."""
        async for piece in self.pieces():
            yield sse({"type": "speech.audio.delta", "audio": sounds.text(piece)})
        usage = TokenUsage(
            input_tokens=self.read,
            output_tokens=self.frames,
            total_tokens=self.read + self.frames,
            input_token_details={"text_tokens": self.read, "audio_tokens": 0},
        )
        yield sse({"type": "speech.audio.done", "usage": usage.model_dump()})

    @property
    def read(self) -> int:
        """Tokens of the text."""
        return len(self.served.engine.tokenizer.encode(self.asked.input))

    @property
    def frames(self) -> int:
        """Of the speech."""
        return round(self.samples * FRAMES / self.rate)


@router.post(
    "/v1/audio/speech",
    dependencies=[Depends(JSON_BODY)],
    responses={200: speech_answer(), **failures()},
    response_class=Response,
    summary="Read a text aloud",
)
async def speech(request: Request, asked: SpeechRequest) -> Response:
    """Read a text aloud; the file is sent while it is made, as it is or in server-sent events."""
    hall = hall_of(request)
    job = SpeechJob(hall, asked)
    try:
        await unless_gone(request, job.start())
    except BaseException:
        job.close()
        raise
    seconds = hall.settings.limits.request_s + 30
    if asked.stream_format == "sse":
        return Stream(told(job.sse()), "text/event-stream", job.close, seconds)
    return Stream(job.pieces(), sounds.MEDIA[job.kind], job.close, seconds)
