"""Every input that was worth keeping, replayed where there is no fuzzer."""

from pathlib import Path

import pytest

from tests.fuzz.targets import GOOD, KEYS, TARGETS, organizer, parts
from token_guard.testing import sign_compact

CORPUS = Path(__file__).parent / "corpus"
SEEDS = [(name, seed) for name, target in TARGETS.items() for seed in target.seeds]
FILES = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize(("name", "content"), SEEDS)
def test_seed_is_judged_as_documented(name: str, content: bytes) -> None:
    """CHAL-12: what the fuzzer starts from."""
    TARGETS[name].run(content)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_input_is_judged_as_documented(path: Path) -> None:
    """CHAL-12: odd inputs, and those that failed once."""
    TARGETS[path.parent.name].run(path.read_bytes())


def test_fuzzing_starts_from_tokens_that_are_accepted() -> None:
    """A fuzzer that never gets past the first rule would find nothing."""
    signed = [parts(seed) for seed in TARGETS["validate"].seeds]
    tokens = [sign_compact(header, payload, signer) for signer, header, payload in signed]
    accepted = [organizer.validate(raw) for raw in (*GOOD, *tokens[: len(KEYS)])]
    assert {token.issuer for token in accepted} == KEYS.keys()


def test_every_target_has_a_corpus() -> None:
    """No file is kept under a name that no target reads."""
    assert {path.parent.name for path in FILES} == TARGETS.keys()
