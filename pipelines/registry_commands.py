"""``muomni registry``: what `pipelines.registry` finds, printed."""

import argparse

from muomni.config import section
from muomni.evaluate.summary import HEADLINES
from muomni.registry_config import RegistryConfig
from pipelines import registry
from pipelines.registry import Entry


def config() -> RegistryConfig:
    """Section ``registry`` of params.yaml here.

    Raises:
        UserError: if it is missing or bad.
    """
    return section(RegistryConfig, "registry")


def shown_first(one: Entry, cfg: RegistryConfig) -> str:
    """The figure that a list shows: what the whole model is promoted by, a part's first headline."""
    wanted = cfg.promote_by if one.name == cfg.name else next((n for n in HEADLINES if n in one.figures), "")
    figure = one.figures.get(wanted)
    return f"{wanted} {registry.shown_figure(figure)}" if figure else ""


def show_list(args: argparse.Namespace) -> int:
    """All versions, one a line."""
    cfg = config()
    found = registry.listing(registry.reading_client(), cfg.name)
    rows = [
        [
            one.name,
            one.version,
            " ".join(one.aliases),
            f"{one.created:%Y-%m-%d %H:%M}",
            one.tags.get("revision", "")[:9],
            one.tags.get("params_hash", ""),
            one.held_out[:12],
            shown_first(one, cfg),
        ]
        for one in found
    ]
    head = ["model", "version", "aliases", "registered (UTC)", "revision", "params", "held-out", "figure"]
    print(registry.text_table(head, rows))
    return 0


def show_comparison(args: argparse.Namespace) -> int:
    """The table, and the chart if a file for it is named."""
    found = registry.compare(registry.reading_client(), config().name, args.versions)
    if args.chart:
        found.chart(args.chart)
    print(found.text())
    return 0


def show_promotion(args: argparse.Namespace) -> int:
    """Promote, say why or why not; 1 if it was refused, so that a script notices."""
    found = registry.promote(config(), args.version)
    print(found.reason)
    return 0 if found.promoted else 1


def show_rollback(args: argparse.Namespace) -> int:
    """Go back to the champion before."""
    print(registry.rollback(config()).reason)
    return 0
