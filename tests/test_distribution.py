"""What people install: the wheel holds the four packages, typed, and nothing else."""

from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
PACKAGES = {"token_guard", "token_guard_asgi", "token_guard_flask", "token_guard_django"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    path = next(WheelBuilder(str(ROOT)).build(directory=str(directory), versions=["standard"]))
    return ZipFile(path)


def test_wheel_holds_exactly_the_four_packages(wheel: ZipFile) -> None:
    """Nothing else lands in site-packages: no tests, no samples, no package named `adapters`."""
    top_level = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top_level if not name.endswith(".dist-info")} == PACKAGES


def test_wheel_says_that_its_packages_are_typed(wheel: ZipFile) -> None:
    """Type checkers read the annotations of all four packages."""
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel.namelist())


def test_wheel_carries_the_license(wheel: ZipFile) -> None:
    """The Apache license asks to be passed on with the code."""
    assert [name for name in wheel.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
