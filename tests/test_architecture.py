"""The shape of the house: who may import whom, who may touch the network or hold a lock, and how long code may grow.

Reads the source as syntax trees and never runs it, but for the one test of what `import token_guard` costs.
"""

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "token_guard"
ADAPTERS = ROOT / "adapters"

# A file of the core imports only files of a lower level.
LEVELS = {
    "errors": 0,
    "events": 0,
    "lazy": 0,
    "addresses": 1,
    "algorithms": 1,
    "bearer": 1,
    "hints": 1,
    "request": 1,
    "scopes": 1,
    "challenge": 2,
    "issuer": 2,
    "jws": 2,
    "requirements": 2,
    "settings": 3,
    "access_token": 3,
    "jwk": 3,
    "claims": 4,
    "discovery": 4,
    "issuer_resolver": 4,
    "exchange": 4,
    "key_set": 4,
    "token_cache": 4,
    "fetch": 5,
    "key_store": 5,
    "trust": 6,
    "flights": 6,
    "key_cache": 6,
    "key_source": 5,
    "fetched_keys": 8,
    "kept_keys": 7,
    "authorization": 8,
    "resource_server": 9,
    "guard": 10,
    "on_behalf_of": 10,
    "testing": 11,
}
LEVEL_OF_PUBLIC_NAMES = 10  # token_guard/__init__.py: none of the files that it takes its names from may import it
CORE_DEPENDENCIES = {"cachetools", "cryptography", "httpx", "jwt"}
NETWORK = {"http.client", "http.server", "httpx", "socket", "socketserver", "ssl", "urllib.request"}
MAY_USE_NETWORK = {"fetch", "on_behalf_of", "testing"}  # on_behalf_of: httpx.Auth for the client's own requests
LOCKS = {"Barrier", "BoundedSemaphore", "Condition", "Event", "Lock", "RLock", "Semaphore"}
MAY_LOCK = {"fetched_keys", "flights", "issuer_resolver", "on_behalf_of", "token_cache"}
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

MOST_CODE_LINES_OF_CORE_FILE = 250
MOST_CODE_LINES_OF_ADAPTER_FILE = 120
MOST_LINES_OF_FUNCTION = 60


def module_of(path: Path) -> str:
    """Return the part of the core that a file belongs to: `token_guard/testing/plugin.py` is `testing`."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def source_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def core_files() -> list[Path]:
    """Return every file of the core but the one that only names the public names."""
    return [path for path in source_files(CORE) if path != CORE / "__init__.py"]


def for_each(files: list[Path]) -> pytest.MarkDecorator:
    """Run a test once for each file."""
    return pytest.mark.parametrize("path", files, ids=[str(path.relative_to(ROOT)) for path in files])


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def running_code(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, functions and all, without the blocks that only type checkers read."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.If) and is_type_checking(node) and child in node.body:
            continue
        yield from running_code(child)


def imported_names(path: Path, walk: Callable[[ast.AST], Iterator[ast.AST]] = running_code) -> set[str]:
    """Return the absolute name of everything that a file imports, now or later: `token_guard.errors.Reason`."""
    package = path.relative_to(ADAPTERS if path.is_relative_to(ADAPTERS) else ROOT).parent.parts
    names = set()
    for node in walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=aliases):
                names |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=module, names=aliases, level=level):
                base = package[: len(package) - level + 1] if level else ()
                names |= {".".join([*base, *([module] if module else []), alias.name]) for alias in aliases}
            case ast.Call(func=ast.Name("import_module"), args=[ast.Constant(str(name))]):
                names.add(name)
    return names


def is_within(name: str, modules: set[str]) -> bool:
    """Tell whether an imported name is one of the modules or lies in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def code_lines(path: Path) -> int:
    """Count the lines that hold code: not blank ones, comments or docstrings."""
    source = path.read_text()
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NOT_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
                lines -= set(range(first, last + 1))
    return len(lines)


def test_every_core_file_has_a_level() -> None:
    """A new file of the core is given its level in the table above, and a removed one leaves it."""
    assert {module_of(path) for path in core_files()} == set(LEVELS)


@for_each(core_files())
def test_core_file_imports_only_lower_levels(path: Path) -> None:
    """A file of the core imports files of lower levels only; a package inside the core may import its own files."""
    own = module_of(path)
    ours = {name: (name + ".").split(".")[1] for name in imported_names(path) if is_within(name, {"token_guard"})}
    levels = {name: LEVELS.get(module, LEVEL_OF_PUBLIC_NAMES) for name, module in ours.items() if module != own}
    assert {name: level for name, level in levels.items() if level >= LEVELS[own]} == {}


@for_each(core_files())
def test_core_file_imports_no_web_framework(path: Path) -> None:
    """The core imports the standard library, its four dependencies and itself; its testing package pytest as well."""
    allowed = sys.stdlib_module_names | CORE_DEPENDENCIES | {"token_guard"}
    if module_of(path) == "testing":
        allowed |= {"pytest"}
    assert {name.split(".")[0] for name in imported_names(path)} - allowed == set()


@for_each([path for path in core_files() if module_of(path) not in MAY_USE_NETWORK])
def test_core_file_leaves_network_to_fetch(path: Path) -> None:
    """All network code is in fetch.py, so that one policy holds for every request that we make."""
    assert {name for name in imported_names(path) if is_within(name, NETWORK)} == set()


@for_each([path for path in core_files() if module_of(path) not in MAY_LOCK])
def test_core_file_holds_no_lock(path: Path) -> None:
    """Locks are in the few files that are written around them."""
    imported = {name.removeprefix("threading.") for name in imported_names(path) if name.startswith("threading.")}
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "threading"
    }
    assert (imported | used) & LOCKS == set()


@for_each(core_files())
def test_core_file_holds_no_lock_unknowingly(path: Path) -> None:
    """That of Python 3.11's cached_property begins anew in no forked child; token_guard/lazy.py has none."""
    assert "functools.cached_property" not in imported_names(path)


@for_each([path for path in core_files() if module_of(path) != "events"])
def test_core_file_leaves_the_log_to_events(path: Path) -> None:
    """Every line of the log is written in events.py, so that each has an event that the README explains."""
    assert "logging" not in imported_names(path)


@for_each(source_files(ADAPTERS))
def test_adapter_gives_each_log_line_an_event(path: Path) -> None:
    """What an adapter writes into its framework's log carries an event of ours, too."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    logging = [call for call in calls if "logger." in ast.unparse(call.func)]
    assert {"logging"} & imported_names(path) == set()
    assert all("extra" in {keyword.arg for keyword in call.keywords} for call in logging)


@for_each([*(path for path in core_files() if module_of(path) != "testing"), *source_files(ADAPTERS)])
def test_production_code_never_imports_testing(path: Path) -> None:
    """What mints tokens for tests cannot be reached from what guards an API."""
    assert {name for name in imported_names(path) if is_within(name, {"token_guard.testing"})} == set()


@for_each(source_files(ADAPTERS))
def test_adapter_imports_only_public_names(path: Path) -> None:
    """An adapter is written with what anybody else could write one with: public names, and those of the guard."""
    modules = ("token_guard", "token_guard.guard")
    public = {f"{module}.{name}" for module in modules for name in import_module(module).__all__}
    assert {name for name in imported_names(path, ast.walk) if is_within(name, {"token_guard"})} - public == set()


def test_adapters_folder_is_no_package() -> None:
    """A package named `adapters` would shadow an unrelated one of that name."""
    assert not (ADAPTERS / "__init__.py").exists()


def test_importing_the_package_is_cheap() -> None:
    """`import token_guard` loads none of the libraries that take long to import."""
    program = "import sys, token_guard; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()
    assert "token_guard.resource_server" in loaded
    assert {"asyncio", "cryptography", "httpx", "jwt"} & set(loaded) == set()


@for_each([*source_files(CORE), *source_files(ADAPTERS)])
def test_file_is_short(path: Path) -> None:
    """A file that outgrows its bound is missing its right place."""
    most = MOST_CODE_LINES_OF_CORE_FILE if path.is_relative_to(CORE) else MOST_CODE_LINES_OF_ADAPTER_FILE
    assert code_lines(path) <= most


@for_each([*source_files(CORE), *source_files(ADAPTERS)])
def test_functions_are_short(path: Path) -> None:
    """No function is longer than a screen."""
    nodes = ast.walk(ast.parse(path.read_text()))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {function.name: (function.end_lineno or 0) - function.lineno + 1 for function in functions}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES_OF_FUNCTION} == {}
