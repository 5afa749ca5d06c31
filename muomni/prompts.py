"""How dictation and reading aloud are asked for: the same words in training data, evaluation and commands."""

DICTATION = "Write down what you hear."
READ_ALOUD = "Read this aloud: {text}"


def read_aloud(text: str) -> str:
    """The request to read a text aloud."""
    return READ_ALOUD.format(text=text)
