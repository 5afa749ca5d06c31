"""Stage corpus-speech: sentences and their recordings into ``data/corpus/speech``."""

from muomni.config import scalar, section
from muomni.data.files import check_manifest
from muomni.data.speech_corpus import SpeechConfig, build_speech
from pipelines.run import main, new_dir

OUT = "data/corpus/speech"
CONCEPTS = "data/corpus/images/concepts.jsonl"
TEXT = "data/corpus/text"


def run() -> None:
    """Build the corpus and say what is in it."""
    config, seed = section(SpeechConfig, "speech"), scalar("seed")
    check_manifest(TEXT)
    with new_dir(OUT) as folder:
        manifest = build_speech(config, CONCEPTS, TEXT, seed, folder)
    for split, figures in manifest["splits"].items():
        print(f"{split}: {figures['utterances']} recordings, {figures['minutes']:.1f} min")
    for speaker, number in manifest["counts"]["speakers"].items():
        print(f"{speaker}: {number} recordings")
    print(f"bad: {len(manifest['bad'])}")


if __name__ == "__main__":
    main("corpus-speech", run)
