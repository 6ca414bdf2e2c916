"""The server of the single-page app: what it serves, to whom, and under which policy."""

import json
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from sample_apis.organizer import SCOPES
from sample_apis.settings import SettingError
from sample_apis.web.app import FOLDER, LIBRARY_FILES, Addresses, create_app
from sample_apis.web.server import read_origin


@pytest.fixture
def library(tmp_path: Path) -> Path:
    for name in LIBRARY_FILES:
        (tmp_path / name).write_text(f"// {name}")
    return tmp_path


@pytest.fixture
def client(library: Path) -> TestClient:
    addresses = Addresses.from_environ({"WEB_DOMAIN": "https://login.example/", "WEB_CONTACTS": "http://localhost:1"})
    app = create_app(addresses, "organizer-spa", library=library)
    return TestClient(app, base_url="http://localhost:8080", follow_redirects=False)


def test_tells_the_page_where_everything_is(client: TestClient) -> None:
    """Whatever depends on the environment is in /config.json, and no secret is."""
    config = client.get("/config.json").json()
    assert config["domain"] == "https://login.example"  # the library takes no slash at its end
    assert config["contacts"] == "http://localhost:1/contacts"
    assert config["calendars"] == "http://localhost:8002/calendars/events"
    assert config["scopes"] == SCOPES
    assert not [name for name in config if "secret" in name]


@pytest.mark.parametrize("path", ["/", "/callback", "/callback.html", "/app.js", "/style.css", "/icon.svg"])
def test_every_answer_has_the_policy(client: TestClient, path: str) -> None:
    """Scripts and styles come from here alone, and the page talks to the services that it was told of."""
    answer = client.get(path)
    assert answer.status_code == 200
    policy = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
    assert (policy["frame-src"], policy["frame-ancestors"]) == ("https://login.example", "'none'")
    assert policy["connect-src"].split()[:3] == ["'self'", "https://login.example", "http://localhost:1"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_serves_the_two_files_of_the_library_and_nothing_else(client: TestClient) -> None:
    """node_modules holds more than a browser needs."""
    for name in LIBRARY_FILES:
        assert client.get(f"/library/{name}").text == f"// {name}"
    for path in ("/library/package.json", "/library/", "/node_modules/", "/package.json", "/../package.json"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/callback?code=of-a-login"])
def test_leads_to_the_host_that_the_hidden_frame_needs(client: TestClient, path: str) -> None:
    """127.0.0.1 and localhost are different sites, and only at one of them the login can be seen."""
    answer = client.get(f"http://127.0.0.1:8080{path}")
    assert (answer.status_code, answer.headers["Location"]) == (307, f"http://localhost:8080{path}")


def test_a_missing_library_is_told_with_the_fix(tmp_path: Path) -> None:
    """A page that cannot work is not served."""
    with pytest.raises(SettingError, match="run scripts/setup-browser app, or npm ci in"):
        create_app(Addresses.from_environ({}), "organizer-spa", library=tmp_path)


@pytest.mark.parametrize("value", ["login.example", "ftp://login.example", "https://login.example/path", "https://a;b"])
def test_refuses_what_is_no_origin(value: str) -> None:
    """It becomes part of the policy and of every address, so it is checked at the start."""
    with pytest.raises(SettingError, match="WEB_DOMAIN is .* without a path"):
        read_origin("WEB_DOMAIN", {"WEB_DOMAIN": value}, "http://localhost:9400")


def test_the_lock_file_names_no_registry() -> None:
    """Versions and hashes are pinned, addresses are not: npm asks the registry that it is configured for."""
    lock = json.loads((FOLDER / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    for package in packages.values():
        assert "integrity" in package
        assert "resolved" not in package


def test_no_page_asks_another_host_for_anything() -> None:
    """What the pages load is beside them; so they work without a network, and nobody learns who opens them."""
    for source in sorted((FOLDER / "static").iterdir()):
        text = source.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "//cdn" not in text
        assert "http:" not in text
        assert "https:" not in text
