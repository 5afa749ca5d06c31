"""Bad samples of a corpus: set aside with their reason, counted, and over a limit the stage stops."""

from muomni.errors import UserError, one_line, shortened

LONGEST = 300  # characters of an item's name and of a reason: either may come from a file, and be as long as it


class BadSamples:
    """Collects what a stage could not use.

    Args:
        limit: the largest bad share that is acceptable, 0 to 1.
        where: what a message calls the corpus, for example ``data/corpus/text``.
    """

    def __init__(self, limit: float, where: str) -> None:
        self.limit = limit
        self.where = where
        self.within = ""  # what stands before the names of items: the source, where there are several
        self.items: list[dict[str, str]] = []

    def __len__(self) -> int:
        """How many were set aside."""
        return len(self.items)

    def add(self, item: str, reason: str) -> None:
        """Set one aside; both are kept on one line that can be written and shown, of `LONGEST` characters."""
        item = shortened(one_line(f"{self.within}{item}"), LONGEST)
        self.items.append({"item": item, "reason": shortened(one_line(reason), LONGEST)})

    def check(self, total: int) -> None:
        """Compare with the limit; call it when all samples were seen.

        Args:
            total: how many samples there were, the bad ones among them.

        Raises:
            UserError: if there were none at all, none good, or too large a share was bad.
        """
        if total == 0:
            raise UserError(f"{self.where}: there is nothing to read")
        if not self.items:
            return
        share, first = len(self.items) / total, self.items[0]
        example = f"the first is {first['item']}: {first['reason']}"
        if len(self.items) == total:
            raise UserError(f"{self.where}: all {total} samples are bad; {example}")
        if share > self.limit:
            raise UserError(
                f"{self.where}: {len(self.items)} of {total} samples are bad ({share:.1%}), "
                f"over the limit of {self.limit:.1%} (max_bad_fraction); {example}"
            )
