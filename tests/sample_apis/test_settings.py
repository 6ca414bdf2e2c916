"""Settings: a wrong one is told with its name and the fix."""

from pathlib import Path

import pytest

from sample_apis.contacts.store import ContactStore
from sample_apis.settings import SettingError, open_store, read_address


def test_listens_on_loopback_unless_told_otherwise() -> None:
    """Defaults are safe; empty variables count as not set."""
    assert read_address("contacts", {"CONTACTS_HOST": "", "CONTACTS_PORT": ""}, default_port=8001) == (
        "127.0.0.1",
        8001,
    )
    assert read_address("contacts", {"CONTACTS_HOST": "::1", "CONTACTS_PORT": "0"}, default_port=8001) == ("::1", 0)


@pytest.mark.parametrize("port", ["x", "-1", "65536", "80.5", "²", "9" * 5000])
def test_a_wrong_port_is_named_with_its_fix(port: str) -> None:
    """The message names the variable and what to set it to."""
    with pytest.raises(SettingError, match="^CONTACTS_PORT is .*: set it to a port"):
        read_address("contacts", {"CONTACTS_PORT": port}, default_port=8001)


def test_a_database_that_cannot_be_used_is_named_with_its_fix(tmp_path: Path) -> None:
    """A missing folder and a file that is no database are both told by the variable's name."""
    text_file = tmp_path / "notes.txt"
    text_file.write_text("no database, but long enough to be looked at as one. " * 50)
    for path in (tmp_path / "missing" / "c.sqlite3", text_file):
        with pytest.raises(SettingError, match="^CONTACTS_DATABASE is .*: name a file"):
            open_store("contacts", {"CONTACTS_DATABASE": str(path)}, ContactStore)
