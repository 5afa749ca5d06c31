"""Prefect's settings, put into the environment when this is imported, which must be before Prefect is.

A flow that runs without the workplace (`pipelines.workplace`) keeps its records in the same folder, and sends nothing
to anybody either. Settings that are there already stay.
"""

import os
from contextlib import suppress

from muomni.errors import UserError, ending_in_one_line
from pipelines.access import Access
from pipelines.place import info, settings

with ending_in_one_line():  # nothing catches what a module raises that is imported first of all
    place = info()
    wanted = settings(f"{place['prefect']}/api" if place else None)
for name, value in wanted.items():
    os.environ.setdefault(name, value)
if place:
    with suppress(UserError):  # without the token Prefect's server refuses, and says so
        for name, value in Access.known(place.get("guarded", False)).clients().items():
            os.environ.setdefault(name, value)
    os.environ.setdefault("MUOMNI_MLFLOW_UI", place["mlflow"])
