"""Prefect's settings, put into the environment when this is imported, which must be before Prefect is.

A flow that runs without the workplace (`pipelines.workplace`) keeps its records in the same folder, and sends nothing
to anybody either. Settings that are there already stay.
"""

import os
import sys
from contextlib import suppress

from muomni.errors import UserError, one_line, refused
from pipelines.access import Access
from pipelines.place import info, settings

try:
    place = info()
    wanted = settings(f"{place['prefect']}/api" if place else None)
except (UserError, OSError) as error:  # nothing catches what a module raises that is imported first of all
    told = refused(error) if isinstance(error, OSError) else error
    if told is None:
        raise
    print(f"error: {one_line(told)}", file=sys.stderr)
    sys.exit(2)
for name, value in wanted.items():
    os.environ.setdefault(name, value)
if place:
    with suppress(UserError):  # without the token Prefect's server refuses, and says so
        for name, value in Access.known(place.get("guarded", False)).clients().items():
            os.environ.setdefault(name, value)
    os.environ.setdefault("MUOMNI_MLFLOW_UI", place["mlflow"])
