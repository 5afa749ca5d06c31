"""Stage corpus-images: drawings and their names into ``data/corpus/images``."""

from muomni.config import scalar, section
from muomni.data.image_corpus import ImagesConfig, build_image_corpus
from pipelines.run import main, new_dir

OUT = "data/corpus/images"


def run() -> None:
    """Build the corpus and say what is in it."""
    config, seed = section(ImagesConfig, "images"), scalar("seed")
    with new_dir(OUT) as folder:
        manifest = build_image_corpus(config, seed, folder, where=OUT)
    counts = manifest["counts"]
    print(
        f"{counts['drawings']} drawings of {counts['names']} names, {counts['scene_names']} of them for scenes; "
        f"pictures with captions: {counts.get('captioned', 0)}; bad: {counts['bad']}"
    )


if __name__ == "__main__":
    main("corpus-images", run)
