"""Stage mel-shards: log-mels of the speech corpus into ``data/shards/mels``."""

from muomni.config import section
from muomni.data.files import check_manifest
from muomni.data.mel_shards import write_mel_shards
from muomni.mel import MelConfig
from pipelines.run import main, new_dir

CORPUS = "data/corpus/speech"
OUT = "data/shards/mels"


def run() -> None:
    """Compute the log-mels and say how many there are."""
    config = section(MelConfig, "mel")
    check_manifest(CORPUS)
    with new_dir(OUT) as folder:
        index = write_mel_shards(CORPUS, config, folder)
    for split, entry in index["splits"].items():
        minutes = sum(figures["minutes"] for figures in index["speakers"][split].values())
        print(f"{split}: {entry['samples']} recordings, {minutes:.1f} min in {len(entry['shards'])} shards")


if __name__ == "__main__":
    main("mel-shards", run)
