"""Stage image-shards: single pictures and scenes, composed of the drawings, into ``data/shards/images``."""

from muomni.config import scalar, section
from muomni.data.files import check_manifest
from muomni.data.image_corpus import ImagesConfig
from muomni.data.image_shards import write_image_shards
from pipelines.run import main, new_dir

CORPUS = "data/corpus/images"
OUT = "data/shards/images"


def run() -> None:
    """Compose the pictures and say how many there are."""
    config, seed = section(ImagesConfig, "images"), scalar("seed")
    check_manifest(CORPUS)
    with new_dir(OUT) as folder:
        index = write_image_shards(config, seed, CORPUS, folder)
    for split, entry in index["splits"].items():
        kinds = ", ".join(f"{number} {kind}" for kind, number in index["kinds"][split].items())
        print(f"{split}: {entry['samples']} pictures ({kinds}) in {len(entry['shards'])} shards")


if __name__ == "__main__":
    main("image-shards", run)
