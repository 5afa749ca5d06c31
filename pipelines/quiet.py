"""Prefect's settings, put into the environment when this is imported, which must be before Prefect is.

A flow that runs without the workplace (`pipelines.workplace`) keeps its records in the same folder, and sends nothing
to anybody either. Settings that are there already stay.
"""

import os

from pipelines.place import info, settings

place = info()
for name, value in settings(f"{place['prefect']}/api" if place else None).items():
    os.environ.setdefault(name, value)
if place:
    os.environ.setdefault("MUOMNI_MLFLOW_UI", place["mlflow"])
