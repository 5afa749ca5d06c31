"""What is evaluated on the held-out split, and how much of it: section ``evaluate`` of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from muomni.config import Section


class EvaluateConfig(Section):
    """Section ``evaluate``."""

    seed: int = Field(ge=0, description="of what is drawn: sentences, codes, intervals")
    judge: Literal["auto", "required", "off"] = Field(
        description="a speech recogniser that shares nothing with the model; auto uses it if it is installed"
    )
    speaker: str = Field(description="the clear voice, which the Talker learned")
    ngram_order: int = Field(ge=1, le=8, description="tokens of the baseline's longest n-gram")
    context: int = Field(ge=8, le=8192, description="tokens of a window in which text is scored")
    stride: int = Field(ge=1, le=8192, description="tokens that a window adds; the rest of it is read only")
    text_tokens: int = Field(ge=0, description="tokens of text that are scored; 0 for all")
    recordings: int = Field(ge=0, description="recordings transcribed by stage B; 0 for all")
    pictures: int = Field(ge=0, description="pictures named and matched by stage C; 0 for all")
    answers_per_task: int = Field(ge=0, description="conversations of each task that are answered; 0 for all")
    dictation: int = Field(ge=0, description="recordings written down by the whole model; 0 for all")
    answer_tokens: int = Field(ge=1, description="tokens of an answer at most")
    codec_sentences: int = Field(ge=1, description="recordings judged as they are, after vocoder and after codec")
    talker_sentences: int = Field(ge=1, description="unseen sentences that the Talker says")
    read_aloud: int = Field(ge=0, description="answers of the whole model that are spoken; 0 for all")
    spoken_answers: int = Field(ge=0, description="spoken questions of each task whose answers are spoken")
    swap_pairs: int = Field(ge=1, description="pairs of each swap test at most")

    @model_validator(mode="after")
    def check(self) -> "EvaluateConfig":
        """A window adds no more than it holds."""
        if self.stride > self.context:
            raise ValueError(f"stride {self.stride} is more than context {self.context}")
        return self


def first(rows: list, most: int) -> list:
    """The first rows; all of them if `most` is 0."""
    return rows[:most] if most else rows
