"""Fuzz one target in this process: `python -m tests.fuzz.one_target TARGET [arguments of libFuzzer]`.

A file among the arguments is run alone, which is how an input that failed is replayed.
"""

import sys
from importlib import import_module
from typing import Any

atheris: Any = import_module("atheris")  # it has no types, and is not published for every system

with atheris.instrument_imports(include=["token_guard"], exclude=["token_guard.testing"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]].run)
    atheris.Fuzz()
