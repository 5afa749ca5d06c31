"""Markdown tables, and how figures are written in them."""


def shown(value: float) -> str:
    """A value in four digits, a count as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(head: list[str], body: list[list[str]], right: int) -> str:
    """A Markdown table; the columns from number `right` on are aligned to the right, except the last."""
    rule = ["---:" if right <= column < len(head) - 1 else "---" for column in range(len(head))]
    cells = [head, rule, *([cell.replace("|", "\\|") for cell in row] for row in body)]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)
