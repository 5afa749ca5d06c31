"""Stage tokens: the text as packed token ids."""

from muomni.data.files import check_manifest
from muomni.data.packing import pack_corpus
from muomni.tokenizer import MODEL_FILE, Tokenizer
from pipelines.run import main, new_dir

TEXT = "data/corpus/text"
TOKENIZER = "data/tokenizer"
OUT = "data/tokens"


def run() -> None:
    """Pack every split and say how many tokens it has."""
    check_manifest(TEXT)
    check_manifest(TOKENIZER)
    tokenizer = Tokenizer(f"{TOKENIZER}/{MODEL_FILE}")
    with new_dir(OUT) as folder:
        index = pack_corpus(TEXT, tokenizer, folder)
    for split, figures in index["splits"].items():
        print(f"{split}: {figures['tokens']} tokens, {figures['bytes'] / figures['tokens']:.2f} bytes a token")


if __name__ == "__main__":
    main("tokens", run)
