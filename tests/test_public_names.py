"""The public names and their signatures are a contract: they change only together with tests/public_names.txt.

Public is what a module of the four packages lists in its `__all__`, and the public members of those classes. Run as a
program, this file prints the names.
"""

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import EnumType
from pathlib import Path
from typing import Any

PACKAGES = ("token_guard", "token_guard_asgi", "token_guard_flask", "token_guard_django")
SNAPSHOT = Path(__file__).with_name("public_names.txt")


def modules(package: str) -> Iterator[str]:
    """Name a package and every module in it."""
    yield package
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        yield module.name


def described(name: str, value: Any) -> Iterator[str]:
    """Describe a name in a line, and where it is a class, its members in a line each."""
    if isinstance(value, EnumType):
        yield name
        yield from (f"{name}.{member} = {value[member].value!r}" for member in value.__members__)
        return
    try:
        signature = str(inspect.signature(value))
    except (TypeError, ValueError):  # a constant, or a class whose constructor has no signature to read
        signature = ""
    yield name + re.sub(r" at 0x[0-9a-f]+", "", signature)
    if isinstance(value, type):
        ours = [base for base in value.__mro__ if base.__module__.startswith("token_guard")]
        for member in {member for base in ours for member in vars(base) if not member.startswith("_")}:
            yield from described(f"{name}.{member}", getattr(value, member))


def public_names() -> list[str]:
    """Return a line for each public name, sorted."""
    found = [importlib.import_module(module) for package in PACKAGES for module in modules(package)]
    return sorted(
        line
        for module in found
        for name in getattr(module, "__all__", ())
        for line in described(f"{module.__name__}.{name}", getattr(module, name))
    )


def test_public_names_are_the_recorded_ones() -> None:
    """A public name appears, changes or goes only on purpose."""
    # In an interpreter of its own: importing the Django adapter configures Django.
    current = subprocess.run([sys.executable, __file__], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert current.splitlines() == SNAPSHOT.read_text().splitlines(), (
        "Where the change is meant, run: .venv/bin/python tests/test_public_names.py > tests/public_names.txt"
    )


if __name__ == "__main__":
    from django.conf import settings

    settings.configure()
    sys.stdout.writelines(f"{line}\n" for line in public_names())
