"""``POST /v1/audio/transcriptions``: what is said in a recording."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from starlette.responses import PlainTextResponse, Response

from muomni.conversation import STRIDE, Conversation, Prompt
from muomni.prompts import DICTATION
from muomni.sampling import Sampling
from muomni.serve.choices import Made
from muomni.serve.documents import FORM_BODY, failures, transcription_answer
from muomni.serve.engine import Options
from muomni.serve.errors import ApiError, Json, invalid
from muomni.serve.hall import Hall, Job, hall_of
from muomni.serve.house import Served
from muomni.serve.inputs import recording
from muomni.serve.pauses import in_parts
from muomni.serve.schema import ModelName
from muomni.serve.schema_audio import DurationUsage, TokenUsage, Transcription, VerboseTranscription
from muomni.serve.settings import Limits
from muomni.serve.streams import Stream, merged, sse, told, unless_gone

router = APIRouter()
MOST_TOKENS = 128  # of what is said in one piece
LONGEST_S = 12.0  # of a piece: no recording that the model learned from is longer
FRAMES = 100  # of a log-mel, a second
KNOWN = {"file", "model", "language", "prompt", "response_format", "temperature", "stream"}


def prompts_of(served: Served, data: bytes, limits: Limits) -> tuple[list[Prompt], float]:
    """What the model reads of a recording, piece by piece, and its seconds; takes long. Raises `ApiError`.

    Raises:
        RuntimeError: if a piece does not fit the context.
    """
    engine = served.engine
    cfg, rate = engine.model.cfg, engine.model.cfg.mel.sample_rate
    samples = recording(data, limits, "file", rate)
    reserve = min(MOST_TOKENS, cfg.thinker.context // 4)
    conversation = Conversation(engine.model, engine.tokenizer)
    words = sum(conversation.prompt(conversation.message(DICTATION), reserve).plan.positions.values())
    room = min(cfg.audio_encoder.positions, cfg.thinker.context - reserve - words)
    pieces = in_parts(samples, rate, min(LONGEST_S, room * STRIDE / FRAMES))
    found = [conversation.prompt(conversation.message(DICTATION, audio=[piece]), reserve) for piece in pieces]
    if any(prompt.plan.dropped_audio for prompt in found):
        raise RuntimeError("a piece of a recording does not fit the context")
    return found, len(samples) / rate


class HearingJob(Job):
    """One recording to be written down.

    Args:
        hall: what it is in.
        model: that was asked for.
        temperature: of the tokens.
    """

    def __init__(self, hall: Hall, model: str, temperature: float) -> None:
        super().__init__(hall, "/v1/audio/transcriptions", model)
        self.options = Options(sampling=Sampling(temperature=temperature), max_tokens=MOST_TOKENS)
        self.made: list[Made] = []

    async def start(self, data: bytes) -> None:
        """Read the recording and have the first piece begun. Raises `ApiError`, `Full` and `Closed`."""
        run, limits = self.hall.workers.run, self.hall.settings.limits
        self.prompts, self.seconds = await run(prompts_of, self.served, data, limits)
        self.begin([partial(self.served.engine.ask, self.prompts[0], self.options)])

    async def words(self) -> AsyncIterator[str]:
        """The text in pieces; each part of the recording is asked about once the one before is done."""
        for number, prompt in enumerate(self.prompts):
            if number:
                self.begin([partial(self.served.engine.ask, prompt, self.options)])
            made = Made(self.served.engine.tokenizer, self.watch, self.served.engine.model.cfg.mel.sample_rate)
            self.made.append(made)
            async for _, event in merged(self.replies[-1:], self.deadline):
                piece, _ = made.take(event)
                if piece and number and piece == made.whole_text():
                    piece = f" {piece}"  # the first of a later part
                if piece:
                    yield piece
        positions = {kind: sum(p.plan.positions[kind] for p in self.prompts) for kind in ("text", "image", "audio")}
        self.watch.done(positions, sum(made.tokens for made in self.made), 0)

    def usage(self) -> TokenUsage:
        """What it took."""
        text, audio = (sum(prompt.plan.positions[kind] for prompt in self.prompts) for kind in ("text", "audio"))
        made = sum(one.tokens for one in self.made)
        return TokenUsage(
            input_tokens=text + audio,
            output_tokens=made,
            total_tokens=text + audio + made,
            input_token_details={"text_tokens": text, "audio_tokens": audio},
        )

    async def whole(self, form: str) -> Response:
        """The answer at once."""
        text = "".join([piece async for piece in self.words()])
        if form == "text":
            return PlainTextResponse(text.encode("utf-8", "replace") + b"\n")
        if form == "verbose_json":
            usage = DurationUsage(seconds=round(self.seconds, 3))
            return Json(VerboseTranscription(duration=round(self.seconds, 3), text=text, usage=usage).model_dump())
        return Json(Transcription(text=text, usage=self.usage()).model_dump())

    async def events(self) -> AsyncIterator[bytes]:
        """The answer as it comes."""
        parts = list[str]()
        async for piece in self.words():
            parts.append(piece)
            yield sse({"type": "transcript.text.delta", "delta": piece})
        done = {"type": "transcript.text.done", "text": "".join(parts), "usage": self.usage().model_dump()}
        yield sse(done)


async def known_fields(request: Request) -> None:
    """Refuse fields that would be passed over.

    Raises:
        ApiError: 400 for one that is not known.
    """
    for name in await request.form():
        if name not in KNOWN:
            raise ApiError(400, f"{name[:80]}: this server knows no such field", name[:80], "unknown_parameter")


@router.post(
    "/v1/audio/transcriptions",
    dependencies=[Depends(FORM_BODY), Depends(known_fields)],
    responses={200: transcription_answer(), **failures()},
    response_class=Response,
    summary="Write down what is said",
)
async def transcribe(
    request: Request,
    file: Annotated[UploadFile, File(description="WAV, MP3, FLAC, OGG, m4a, webm and others")],
    model: Annotated[ModelName, Form()],
    response_format: Annotated[Literal["json", "text", "verbose_json"], Form()] = "json",
    language: Annotated[Literal["en", "english"], Form(description="the one that the model knows")] = "en",
    prompt: Annotated[str, Form(max_length=0, description="this model takes none")] = "",
    temperature: Annotated[float, Form(ge=0, le=1, allow_inf_nan=False)] = 0.0,
    stream: Annotated[bool, Form()] = False,
) -> Response:
    """Write down what is said in a recording, at once or as it comes; longer ones are heard in parts."""
    hall: Any = hall_of(request)
    if stream and response_format != "json":
        raise invalid("response_format: a stream has json only", "response_format")
    data = await file.read()
    if not data:
        raise invalid("file: is empty; give a recording", "file")
    job = HearingJob(hall, model, temperature)
    try:
        await unless_gone(request, job.start(data))
        if not stream:
            return await unless_gone(request, job.whole(response_format))
    except BaseException:
        job.close()
        raise
    finally:
        if not stream:
            job.close()
    return Stream(told(job.events()), "text/event-stream", job.close, hall.settings.limits.request_s + 30)
