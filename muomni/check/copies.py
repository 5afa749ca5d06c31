"""Items that are there twice, or nearly so in two splits."""

from collections.abc import Mapping
from typing import NamedTuple

from muomni.check.findings import Section
from muomni.data.nearcopies import near_copies

HELD_OUT = ("valid", "test")


class Item(NamedTuple):
    """What is compared: the split, a hash of the content, and the text, if it has one."""

    split: str
    digest: str
    text: str = ""


def check_copies(section: Section, items: Mapping[str, Item], sounds: bool = False) -> None:
    """Note what is there twice.

    Args:
        section: takes what is found.
        items: by name.
        sounds: whether the hash is of a sound, so that one with two texts is a mistake.
    """
    first: dict[str, str] = {}
    for name, item in items.items():
        other = first.setdefault(item.digest, name)
        if other == name:
            continue
        same = items[other]
        if same.split != item.split:
            section.add("same item in two splits", name, f"in {item.split}, and {other} in {same.split}")
        elif sounds and same.text != item.text:
            section.add("one sound with two texts", name, f"{item.text!r}, and {other} has {same.text!r}")
        else:
            section.add("same item twice", name, f"the same as {other}")


def check_near_copies(section: Section, items: Mapping[str, Item]) -> None:
    """Note the texts of training that nearly repeat a held-out one, and those of validation that do one for test."""
    for split, against in (("train", HELD_OUT), ("valid", ("test",))):
        mine = {name: item.text for name, item in items.items() if item.split == split}
        held = {name: item.text for name, item in items.items() if item.split in against}
        for found in near_copies(mine, held):
            reason = f"shares {found['contained']:.0%} of its words' runs with {found['copy_of']}"
            section.add("near copy of a held-out item", found["item"], reason, found["jaccard"])
