"""Stage conversation-shards: tasks over pictures, recordings and facts into ``data/shards/conversations``."""

from muomni.config import scalar, section
from muomni.data.chat_format import TASK, Fitting
from muomni.data.conversations import ConversationsConfig, write_conversations
from muomni.data.files import check_manifest
from muomni.data.image_corpus import ImagesConfig
from muomni.data.speech_corpus import SpeechConfig
from pipelines.run import main, new_dir

IMAGES = "data/shards/images"
SPEECH = "data/corpus/speech"
CONCEPTS = "data/corpus/images/concepts.jsonl"
OUT = "data/shards/conversations"


def run() -> None:
    """Compose the conversations and say how many there are."""
    config, seed = section(ConversationsConfig, "conversations"), scalar("seed")
    images, speech = section(ImagesConfig, "images"), section(SpeechConfig, "speech")
    fitting = Fitting(images.size_px, speech.sample_rate, speech.max_seconds)
    check_manifest(SPEECH)
    with new_dir(OUT) as folder:
        index = write_conversations(config, seed, IMAGES, SPEECH, CONCEPTS, folder, fitting)
    for split, tasks in index["tasks"].items():
        wanted = getattr(config, split).model_dump() | {TASK: 0}
        parts = [f"{task} {n}" + (f" of {wanted[task]}" if n < wanted[task] else "") for task, n in tasks.items()]
        print(f"{split}: {sum(tasks.values())} conversations ({', '.join(parts)})")
    if config.source != "generated":
        print(f"bad lines of {config.path}: {len(index['bad'])}")


if __name__ == "__main__":
    main("conversation-shards", run)
