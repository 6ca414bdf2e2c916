"""What is counted under valgrind: one case, so many times, in a process that does as little else as it can.

Started by instructions.py with CASE, TIMES and a FILE of keys and tokens. Every case is made and warm in every run, so
that two runs of one case differ in nothing but the times.
"""

import json
import sys
from base64 import urlsafe_b64decode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from token_guard import ResourceServer

WARM_UP = 100  # the interpreter rewrites a function's code while it is called for the first times


def cases(given: dict[str, Any]) -> dict[str, list[Callable[[], object]]]:
    """Return what can be counted: calls for each of the tokens."""
    tokens, verify = given["tokens"], jwt.PyJWK(given["jwks"]["keys"][0]).key.verify
    parameters = padding.PKCS1v15(), hashes.SHA256()
    settings = {**given["settings"], "jwks": given["jwks"], "clock": lambda: given["now"]}
    cold, hit = ResourceServer(**settings, token_cache_size=0), ResourceServer(**settings)
    parts = [token.rpartition(".") for token in tokens]
    signed = [(urlsafe_b64decode(signature + "=="), message.encode()) for message, _, signature in parts]
    return {
        "bare": [partial(verify, *one, *parameters) for one in signed],
        "cold": [partial(cold.validate, token) for token in tokens],
        "hit": [partial(hit.validate, token) for token in tokens],
    }


def repeat(calls: list[Callable[[], object]], times: int) -> None:
    """Make so many calls, in turn."""
    for number in range(times):
        calls[number % len(calls)]()


def main(case: str, times: int, given: dict[str, Any]) -> None:
    """Warm every case, and then repeat one."""
    every_case = cases(given)
    for calls in every_case.values():
        repeat(calls, WARM_UP)
    repeat(every_case[case], times)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))
