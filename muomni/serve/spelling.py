"""What each token spells, as log probabilities are told with."""

import sentencepiece

from muomni.tokenizer import Tokenizer


class Spelling:
    """Bytes of tokens.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        pieces = sentencepiece.SentencePieceProcessor()
        pieces.LoadFromSerializedProto(tokenizer.model_bytes)
        self.spelled = [self.spell(pieces, index, tokenizer) for index in range(tokenizer.vocab_size)]

    @staticmethod
    def spell(pieces: sentencepiece.SentencePieceProcessor, index: int, tokenizer: Tokenizer) -> bytes:
        """The bytes of one piece."""
        if index in tokenizer.controls:
            return b""
        piece: str = pieces.id_to_piece(index)
        return bytes([int(piece[3:5], 16)]) if pieces.is_byte(index) else piece.replace("\u2581", " ").encode()

    def bytes(self, token: int) -> bytes:
        """What a token adds to a text; nothing for a control token."""
        return self.spelled[token]

    def text(self, token: int) -> str:
        """The same as text; for part of a character, as ``\\xe2``."""
        return self.spelled[token].decode("utf-8", "backslashreplace")
