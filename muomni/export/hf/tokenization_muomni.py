"""muOmni's tokenizer in the form that transformers expects."""

import re
from pathlib import Path
from shutil import copyfile
from typing import Any

from sentencepiece import SentencePieceProcessor
from transformers import PreTrainedTokenizer

from muomni.tokenizer import CONTROLS, EOT, MODEL_FILE, PAD, Tokenizer

NAMES = "|".join(re.escape(name) for name in (PAD, EOT, *CONTROLS))
# The chat template writes texts so that nothing in them is taken for a control token, see `CHAT_TEMPLATE`: an escape
# stands between the characters of each `<|`, and `<` ESC `>` between two texts that are encoded one by one.
SPLIT = re.compile(rf"({NAMES}|<\x1b>)")
ESCAPED = re.compile(r"<\x1b([\x1b|])")


class MuOmniTokenizer(PreTrainedTokenizer):
    """Text to ids and back; ids as `muomni.tokenizer.Tokenizer` gives them.

    Control tokens in a text, such as ``<|user|>``, become their ids, as usual in transformers; with
    ``split_special_tokens=True`` they are text. What goes through the chat template is always text.
    """

    vocab_files_names = {"vocab_file": MODEL_FILE}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocab_file: str, **kwargs: Any) -> None:
        self.vocab_file = vocab_file
        self.muomni = Tokenizer(vocab_file)
        model = SentencePieceProcessor(model_proto=self.muomni.model_bytes)
        self.pieces: list[str] = [model.id_to_piece(index) for index in range(self.muomni.vocab_size)]
        self.ids = {piece: index for index, piece in enumerate(self.pieces)}
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """Pieces."""
        return self.muomni.vocab_size

    def get_vocab(self) -> dict[str, int]:
        """Each piece's id."""
        return dict(self.ids)

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[str]:
        """Pieces of a text."""
        if kwargs.get("split_special_tokens", self.split_special_tokens):
            return self._tokenize(text)
        pieces: list[str] = []
        for number, part in enumerate(SPLIT.split(text)):
            if number % 2 and part != "<\x1b>":
                pieces.append(part)
            elif number % 2 == 0 and part:
                pieces += self._tokenize(ESCAPED.sub(r"<\1", part))
        return pieces

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [self.pieces[index] for index in self.muomni.encode(text)]

    def _convert_token_to_id(self, token: str) -> int:
        return self.ids.get(token, self.ids["<unk>"])

    def _convert_id_to_token(self, index: int) -> str:
        return self.pieces[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Text of pieces; control tokens by their names."""
        text, run = "", list[int]()
        for token in tokens:
            index = self.ids.get(token, -1)
            if index in self.muomni.controls or index < 0:
                text, run = text + self.muomni.decode(run) + token, []
            else:
                run.append(index)
        return text + self.muomni.decode(run)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Copy the SentencePiece model into a folder."""
        name = f"{filename_prefix}-{MODEL_FILE}" if filename_prefix else MODEL_FILE
        target = Path(save_directory) / name
        if target.resolve() != Path(self.vocab_file).resolve():
            copyfile(self.vocab_file, target)
        return (str(target),)
