"""A pytest plug-in for mutmut alone (pyproject.toml), which runs single tests again by the names that it recorded.

A parametrized test is run as a whole: the names of its cases may hold addresses, or what pytest escapes once more each
time that it collects the same file.
"""

from dataclasses import replace

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    item._id = replace(item.id, params=None)
