"""Stage corpus-text: prose and paragraphs of facts into ``data/corpus/text``."""

from muomni.config import scalar, section
from muomni.data.text_corpus import TextConfig, build_text_corpus
from pipelines.run import main, new_dir

OUT = "data/corpus/text"
CONCEPTS = "data/corpus/images/concepts.jsonl"


def run() -> None:
    """Build the corpus and say what is in it."""
    config, seed = section(TextConfig, "text"), scalar("seed")
    with new_dir(OUT) as folder:
        manifest = build_text_corpus(config, seed, folder, CONCEPTS, where=OUT)
    for split, figures in manifest["splits"].items():
        print(f"{split}: {figures['documents']} documents, {figures['bytes'] / 1e6:.2f} MB")
    print(f"near copies removed: {manifest['counts']['near_copies_removed']}, bad: {manifest['counts']['bad']}")


if __name__ == "__main__":
    main("corpus-text", run)
