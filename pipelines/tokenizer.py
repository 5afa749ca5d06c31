"""Stage tokenizer: SentencePiece, trained on the training split of the text."""

from muomni.config import scalar, section
from muomni.data.files import check_manifest, read_jsonl, write_manifest
from muomni.tokenizer import MODEL_FILE, TokenizerConfig, train_tokenizer
from pipelines.run import main, new_dir

CORPUS = "data/corpus/text"
TEXT = f"{CORPUS}/train.jsonl"
OUT = "data/tokenizer"


def run() -> None:
    """Train, save, and record how many bytes a token spells."""
    config, seed = section(TokenizerConfig, "tokenizer"), scalar("seed")
    check_manifest(CORPUS)
    texts = [row["text"] for row in read_jsonl(TEXT, "corpus-text")]
    with new_dir(OUT) as folder:
        tokenizer = train_tokenizer(
            texts,
            config.vocab_size,
            folder / MODEL_FILE,
            kind=config.kind,
            character_coverage=config.character_coverage,
            max_sentences=config.max_sentences,
            seed=seed,
        )
        n_bytes = sum(len(text.encode("utf-8")) for text in texts)
        counts = {"vocab_size": tokenizer.vocab_size, "documents": len(texts), "bytes": n_bytes}
        write_manifest(folder, source=TEXT, licences=[], counts=counts, splits={}, bad=[])
    print(f"{tokenizer.vocab_size} pieces from {n_bytes / 1e6:.2f} MB of text")


if __name__ == "__main__":
    main("tokenizer", run)
