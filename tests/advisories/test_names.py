"""Every test of this folder says which advisory it repeats."""

import ast
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ADVISORY = re.compile(r"CVE-\d{4}-\d{4,}|GHSA(-[23456789cfghjmpqrvwx]{4}){3}|RFC 8725 \d|Salt, issue \d|Invicti, ")

TESTS = {
    f"{path.stem}::{node.name}": ast.get_docstring(node) or ""
    for path in sorted(FOLDER.glob("test_*.py"))
    if path != Path(__file__)
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
}


@pytest.mark.parametrize("name", TESTS)
def test_names_its_advisory(name: str) -> None:
    """The docstring begins with the identifier of an advisory, or with who published it."""
    assert ADVISORY.match(TESTS[name])
