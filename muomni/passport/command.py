"""``muomni card`` and ``muomni learning``: a trained model's passport, and how it learned."""

import argparse
from pathlib import Path

from muomni.data.files import atomic_write_text
from muomni.errors import UserError
from muomni.model_sources import fetch_model
from muomni.passport.card import as_markdown, as_page, read_passport
from muomni.passport.learning import learning_page
from muomni.passport.trainings import read_trainings


def card(args: argparse.Namespace) -> int:
    """Print the card, or write the page if one is asked for.

    Raises:
        UserError: if the folder of metrics is not there.
    """
    metrics = Path(args.metrics or "metrics")
    if args.metrics and not metrics.is_dir():
        raise UserError(f"--metrics {metrics}: no such folder; give the one that stage evaluate wrote")
    source = fetch_model(args.model) if args.model else Path(args.folder)
    passport = read_passport(source, metrics, plots=metrics.parent / "plots")
    if args.page:
        atomic_write_text(args.page, as_page(passport))
        print(args.page)
    else:
        print(as_markdown(passport), end="")
    return 0


def learning(args: argparse.Namespace) -> int:
    """Write the page."""
    text = learning_page(read_trainings([Path(folder) for folder in args.folder]))
    atomic_write_text(args.page, text)
    print(args.page)
    return 0
