"""What a store keeps of an issuer's keys, and what is believed of what it brings: a store is outside input."""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_guard import ConfigurationError, FileKeyStore
from token_guard.jwk import thumbprint
from token_guard.key_set import MAX_KEYS
from token_guard.key_store import CLOCK_TOLERANCE, MAX_BYTES, StoredKeys, read_stored, stored_content
from token_guard.testing import SigningKey

ISSUER, JWKS_URI = "https://issuer.example/", "https://issuer.example/keys"
NOW = 1_700_000_000.0
KEYS = {kid: SigningKey.generate("ES256", kid).public_jwk() for kid in ("k0", "k1")}
CONTENT = stored_content(ISSUER, JWKS_URI, {"keys": list(KEYS.values())}, NOW)


def read(content: bytes = CONTENT, **options: Any) -> StoredKeys:
    return read_stored(content, ISSUER, **{"now": NOW, "oldest": 1000, **options})


def changed(**members: object) -> bytes:
    document = json.loads(CONTENT) | members
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def test_brings_back_what_was_saved() -> None:
    """Keys, where they were fetched, and when."""
    stored = read()
    assert (stored.keys.key_ids, stored.jwks_uri, stored.fetched_at) == (("k0", "k1"), JWKS_URI, NOW)


def test_saves_nothing_private() -> None:
    """JWK-15: a key with private members is left out whole: without them, it would become one that is used."""
    private = KEYS["k0"] | {"kid": "leaked", "d": "c2VjcmV0"}
    content = stored_content(ISSUER, JWKS_URI, {"keys": [private, {"kty": "oct", "k": "c2VjcmV0"}, KEYS["k1"]]}, NOW)
    assert b"c2VjcmV0" not in content
    assert read(content).keys.key_ids == ("k1",)


def test_saves_no_more_keys_than_are_read() -> None:
    """What comes back is what the process had, and not the keys that it did not look at."""
    assert len(KEYS) == 2
    document = {"keys": [{"kty": "odd"}] * (MAX_KEYS - 1) + list(KEYS.values())}
    assert read(stored_content(ISSUER, JWKS_URI, document, NOW)).keys.key_ids == ("k0",)


def test_saves_in_no_more_bytes_than_it_was_sent() -> None:
    """Or what an issuer may send could be more than is read again."""
    sent = {"keys": [KEYS["k0"] | {"unread": "é" * 450_000}]}
    content = stored_content(ISSUER, JWKS_URI, sent, NOW)
    assert len(content) < len(json.dumps(sent, ensure_ascii=False).encode()) + 200
    assert b", " not in content
    assert read(content).keys.key_ids == ("k0",)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not hold what was saved"),
        (b"[]", "does not hold what was saved"),
        (b"\xff", "does not hold what was saved"),
        (b'{"format": 1, "format": 1}', "does not hold what was saved"),
        (changed(format=2), "does not hold what was saved"),
        (changed(issuer="https://issuer.example"), "keys of another issuer, 'https://issuer.example'"),
        (changed(issuer=None), "keys of another issuer"),
        (changed(keys=None), "which keys were fetched, when and where"),
        (changed(keys={"k0": 1}), "which keys were fetched, when and where"),
        (changed(jwks_uri=1), "which keys were fetched, when and where"),
        (changed(fetched_at=None), "which keys were fetched, when and where"),
        (changed(fetched_at=10**400), "which keys were fetched, when and where"),
        (changed(fetched_at=True), "which keys were fetched, when and where"),
        (changed(keys=[]), "^the store holds no usable key$"),
        (changed(keys=[1, {"kty": "oct", "k": "AA"}]), "no usable key"),
        (b" " * MAX_BYTES + CONTENT, "does not hold what was saved"),
    ],
)
def test_believes_nothing_but_what_was_saved(content: bytes, why: str) -> None:
    """Anything odd makes the store useless, and says how."""
    with pytest.raises(ValueError, match=f"{why}[^X]*$"):
        read(content)


@pytest.mark.parametrize("age", [-CLOCK_TOLERANCE, 0, 999.5])
def test_uses_keys_up_to_the_age_limit(age: float) -> None:
    """An age counts from the last good fetch; clocks of two machines may differ a little."""
    assert read(now=NOW + age).fetched_at == min(NOW, NOW + age)


@pytest.mark.parametrize("age", [-CLOCK_TOLERANCE - 1, 1000, 10**9])
def test_ignores_keys_beyond_the_age_limit(age: float) -> None:
    """Too old, and from a future that no clock's error explains."""
    with pytest.raises(ValueError, match=f"are {age:.0f} s old, at most 1000 s are allowed"):
        read(now=NOW + age)


def test_takes_only_pinned_keys() -> None:
    """RFC 7638: a pin names a key by its thumbprint, whatever key ID the store gives it."""
    assert read(pins={thumbprint(KEYS["k1"])}).keys.key_ids == ("k1",)
    with pytest.raises(ValueError, match="no usable key with a pinned thumbprint"):
        read(pins={"k0"})


names = st.sampled_from(["format", "issuer", "keys", "jwks_uri", "fetched_at", "kty"])
plain = st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.just(ISSUER) | st.just(1)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner))


@given(st.binary() | st.builds(lambda value: json.dumps(value).encode(), values))
def test_raises_nothing_but_value_errors(content: bytes) -> None:
    """Whatever is in the store, it is ignored in one way."""
    with pytest.raises(ValueError):  # noqa: PT011  # its texts are tested above
        read(content)


# The file.


@pytest.fixture
def store(tmp_path: Path) -> FileKeyStore:
    return FileKeyStore(tmp_path / "keys" / "of")


def file_of(tmp_path: Path) -> Path:
    [file] = (tmp_path / "keys" / "of").iterdir()
    return file


def test_keeps_one_file_an_issuer(store: FileKeyStore) -> None:
    """Issuers do not disturb each other, and the newest content counts."""
    assert store.load(ISSUER) is None
    for issuer, content in ((ISSUER, b"old"), ("https://other.example/../..", b"other"), (ISSUER, b"new")):
        store.save(issuer, content)
    assert (store.load(ISSUER), store.load("https://other.example/../.."), store.load("x")) == (b"new", b"other", None)


def test_only_the_owner_may_read_it(store: FileKeyStore, tmp_path: Path) -> None:
    """Mode 0600 in a folder of mode 0700, whatever the umask is; nothing else is left behind."""
    previous = os.umask(0)
    try:
        store.save(ISSUER, b"content")
        store.save(ISSUER, b"content")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600
    assert stat.S_IMODE(file_of(tmp_path).parent.stat().st_mode) == 0o700


def must_be_ours(path: Path, mode: str) -> str:
    return (
        f"{path} must belong to this process's user, and nobody else may write it: run chown {os.geteuid()} and chmod"
        f" {mode} on it"
    )


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o622])
def test_believes_no_file_that_others_may_write(mode: int, store: FileKeyStore, tmp_path: Path) -> None:
    """Whoever can write the file can mint tokens."""
    store.save(ISSUER, b"content")
    file_of(tmp_path).chmod(mode)
    with pytest.raises(PermissionError) as refused:
        store.load(ISSUER)
    assert str(refused.value) == must_be_ours(file_of(tmp_path), "600")


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_believes_no_folder_that_others_may_write(mode: int, store: FileKeyStore, tmp_path: Path) -> None:
    """Who can write the folder can put an older file of ours back in its place."""
    store.save(ISSUER, b"content")
    folder = file_of(tmp_path).parent
    folder.chmod(mode)
    with pytest.raises(PermissionError) as refused:
        store.load(ISSUER)
    assert str(refused.value) == must_be_ours(folder, "700")


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_saves_nothing_where_it_would_not_be_believed(mode: int, store: FileKeyStore, tmp_path: Path) -> None:
    """With the first fetch and not in the outage, the operator learns what to run."""
    folder = tmp_path / "keys" / "of"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    with pytest.raises(PermissionError) as refused:
        store.save(ISSUER, b"content")
    assert str(refused.value) == must_be_ours(folder, "700")
    assert list(folder.iterdir()) == []
    folder.chmod(0o700)
    store.save(ISSUER, b"content")
    assert store.load(ISSUER) == b"content"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_saves_nothing_in_a_folder_of_somebody_else(store: FileKeyStore, tmp_path: Path) -> None:
    """Root could write there, and would not believe it afterwards."""
    folder = tmp_path / "keys" / "of"
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(PermissionError) as refused:
        store.save(ISSUER, b"content")
    assert str(refused.value) == must_be_ours(folder, "700")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a file away")
def test_believes_no_file_of_somebody_else(store: FileKeyStore, tmp_path: Path) -> None:
    """A file that another user has put there is not ours."""
    store.save(ISSUER, b"content")
    os.chown(file_of(tmp_path), 65534, 65534)
    with pytest.raises(PermissionError, match="must belong to this process's user"):
        store.load(ISSUER)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, whose file it is")
def test_believes_what_root_has_put_there(store: FileKeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root could do worse. Others may read the file and run it, as far as that goes: keys are public."""
    store.save(ISSUER, b"content")
    file_of(tmp_path).chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    assert store.load(ISSUER) == b"content"


def link(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to(path.with_name("target"))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("make", [link, pipe, lambda path: (path.unlink(), path.mkdir())])
def test_follows_no_link_and_waits_for_no_pipe(
    make: Callable[[Path], object], store: FileKeyStore, tmp_path: Path
) -> None:
    """Only a plain file is read."""
    store.save(ISSUER, b"content")
    make(file_of(tmp_path))
    with pytest.raises(OSError, match=r"must be a file|symbolic links|Is a directory"):
        store.load(ISSUER)


def test_a_failed_save_keeps_what_was_there(
    store: FileKeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk costs the new content alone, and leaves no half file."""
    store.save(ISSUER, b"old")

    def no_space(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="no space left"):
        store.save(ISSUER, b"new")
    assert store.load(ISSUER) == b"old"
    assert file_of(tmp_path).read_bytes() == b"old"


def test_a_failed_save_tells_of_its_first_failure(
    store: FileKeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that there is no half file left to remove."""

    def gone(_: int) -> None:
        shutil.rmtree(tmp_path / "keys")
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "fsync", gone)
    with pytest.raises(OSError, match="the disk is gone"):
        store.save(ISSUER, b"content")


@pytest.mark.parametrize("folder", ["", None, b"keys", 3])
def test_demands_the_path_of_a_folder(folder: Any) -> None:
    """A wrong setting is told at once."""
    with pytest.raises(ConfigurationError, match="FileKeyStore: folder"):
        FileKeyStore(folder)


def test_refuses_a_file_as_folder(tmp_path: Path) -> None:
    """A file in the folder's place is told at once."""
    (tmp_path / "keys").touch()
    with pytest.raises(ConfigurationError, match=f"{tmp_path}/keys' is a file; give the path of a folder"):
        FileKeyStore(tmp_path / "keys")


def test_writes_beside_the_file_that_it_replaces(
    store: FileKeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only within one file system is a file replaced at once; the system's folder for such files may be another."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    store.save(ISSUER, b"content")
    assert store.load(ISSUER) == b"content"


def test_reads_no_endless_file(store: FileKeyStore) -> None:
    """A file that is too long is read just far enough to be known as such."""
    store.save(ISSUER, b"x" * (MAX_BYTES + 9))
    assert store.load(ISSUER) == b"x" * (MAX_BYTES + 1)


def test_is_known_by_its_folder(tmp_path: Path) -> None:
    """A log or a debugger shows which store it is."""
    assert repr(FileKeyStore(tmp_path)) == f"FileKeyStore({str(tmp_path)!r})"


def test_reads_content_of_the_greatest_size() -> None:
    """The limit is inclusive."""
    assert read(b" " * (MAX_BYTES - len(CONTENT)) + CONTENT).keys.key_ids == ("k0", "k1")
