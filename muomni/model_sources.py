"""Models that are no folder here: ``--model models:/muomni@champion``.

Another package says by an entry point of the group ``muomni.model_sources`` how to get a model whose address has some
scheme. So the package takes models from MLflow's registry and imports nothing of MLflow.
"""

from importlib.metadata import entry_points
from pathlib import Path

from muomni.errors import UserError

SOURCES = "muomni.model_sources"


def fetch_model(address: str) -> Path:
    """The folder of a model's checkpoint, which is fetched first if it is elsewhere.

    Args:
        address: ``scheme:rest``, such as ``models:/muomni@champion``. The function behind the entry point ``scheme``
            is called with all of it.

    Raises:
        UserError: if nothing knows the scheme, or there is no such model.
    """
    scheme, colon, _ = address.partition(":")
    if not colon:
        raise UserError(f"--model {address}: no address such as models:/muomni@champion; for a folder use --checkpoint")
    points = {point.name: point for point in entry_points(group=SOURCES)}
    if scheme not in points:
        known = ", ".join(sorted(points)) or "none; install the package again with `make env`"
        raise UserError(f"--model {address}: nothing here knows '{scheme}:'; known: {known}")
    return Path(points[scheme].load()(address))
