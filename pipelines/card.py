"""Stage card: the evaluated model's passport into ``card/``, for people, for the registry, and as values.

Everything in it is a function of what it reads: no time, no machine of its own. So it changes only with the model, its
figures, or the parameters.
"""

from pathlib import Path

from muomni.data.files import atomic_write_json
from muomni.passport.card import Passport, as_markdown, as_page, as_values, description, read_passport
from muomni.passport.learning import learning_page
from muomni.passport.trainings import read_trainings
from pipelines.run import main, new_dir

CHECKPOINT, TRAININGS, OUT = Path("checkpoints/omni"), Path("metrics/train"), Path("card")
CARD, MARKDOWN, DESCRIPTION, PAGE, LEARNING = "card.json", "card.md", "description.md", "card.html", "learning.html"


def write_card(passport: Passport, folder: Path) -> None:
    """Write the card in all its forms.

    Args:
        passport: what is known of a model.
        folder: where to.
    """
    atomic_write_json(folder / CARD, as_values(passport))
    (folder / MARKDOWN).write_text(as_markdown(passport), encoding="utf-8")
    (folder / DESCRIPTION).write_text(description(passport), encoding="utf-8")
    (folder / PAGE).write_text(as_page(passport), encoding="utf-8")


def run() -> None:
    """Write the card, and the page of how it learned."""
    passport = read_passport(CHECKPOINT)
    with new_dir(OUT) as made:
        write_card(passport, made)
        (made / LEARNING).write_text(learning_page(read_trainings([TRAININGS])), encoding="utf-8")
    print(f"card: {OUT / PAGE} and {OUT / LEARNING}")


if __name__ == "__main__":
    main("card", run)
