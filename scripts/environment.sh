#!/bin/sh
# Makes or updates .venv from requirements.lock, with uv where it is on PATH, else with venv and pip.
# `make env` calls it; PYTHON, if set, is the interpreter to use.
set -eu
cd "$(dirname "$0")/.."

supported='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))'
# From inside an activated environment, the interpreter that the environment was made from.
locate='import sys; print(getattr(sys, "_base_executable", None) or sys.executable)'
run() { "$@" 2>/dev/null; }

# Keep an environment that works, unless another interpreter is asked for; start anew on one that does not.
if [ -n "${PYTHON:-}" ] || ! run .venv/bin/python -c "$supported"; then
    found=
    for python in ${PYTHON:-python3.11 python3 python3.12}; do
        if run "$python" -c "$supported"; then
            found=$(run "$python" -c "$locate")
            break
        fi
    done
    if [ -z "$found" ]; then
        echo "error: Python 3.11 or 3.12 not found (tried: ${PYTHON:-python3.11, python3, python3.12}):" \
            "install Python 3.11, or name one with make PYTHON=/path/to/python3.11" >&2
        exit 2
    fi
    rm -rf .venv
    if command -v uv >/dev/null; then
        uv venv --quiet --python "$found" .venv
    elif ! "$found" -m venv .venv; then
        rm -rf .venv
        echo "error: '$found -m venv' failed: install its venv module (Debian and Ubuntu: apt install python3-venv)" >&2
        exit 2
    fi
fi

if command -v uv >/dev/null; then
    echo "Installing requirements.lock into .venv with uv (about 7 GB)"
    uv pip install --python .venv/bin/python --require-hashes -r requirements.lock
    uv pip install --python .venv/bin/python --quiet --no-deps --no-build-isolation -e .
else
    echo "Installing requirements.lock into .venv with pip (about 7 GB, some minutes; with uv on PATH it is faster)"
    run .venv/bin/python -m pip --version >/dev/null || .venv/bin/python -m ensurepip
    pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }
    pip install --require-hashes -r requirements.lock
    pip install --no-deps --no-build-isolation -e .
fi
