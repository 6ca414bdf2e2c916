"""The bare signature checks, our validation, our refusals, and the peers, all on the same kind of token.

Keys are warm. No token is validated twice in a row: each case walks through a list of distinct tokens. "cold" switches
the cache of verified tokens off; for "hit" it holds them all.
"""

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.measure import Case, measure, table
from benchmarks.peers import prepared
from benchmarks.plan import Plan
from benchmarks.report import Table, say
from benchmarks.tokens import AUDIENCE, FLOOR, bare, mint, resource_server
from token_guard import InvalidToken, KeyPolicy, Reason, ResourceServer
from token_guard.testing import LocalIssuer, SigningKey

# algorithm -> what a cold validation may cost, against its own bare check
COLD_AT_MOST = {"RS256": 1.5, "ES256": 1.18, "EdDSA": 1.12}
HIT_AT_MOST = 0.11
ROTATING_HIT_AT_MOST = 0.14


def run(plan: Plan) -> Iterator[Table]:
    """Measure the cases, or those that are wanted and what they are compared with.

    Raises:
        ValueError: none is wanted.
    """
    say(f"validation: minting {plan.rotating:,} tokens")
    issuers = {algorithm: LocalIssuer(algorithm=algorithm) for algorithm in COLD_AT_MOST}
    good = [case for issuer in issuers.values() for case in accepted(issuer, plan)]
    bad = list(refused(issuers["RS256"], plan.tokens))
    chosen = [
        case for case in (*good, *bad) if not plan.only or any(word.lower() in case.name.lower() for word in plan.only)
    ]
    if not chosen:
        raise ValueError(f"--only matches none of: {'; '.join(case.name for case in (*good, *bad))}")
    wanted = {name for case in chosen for name in (case.name, case.floor)}
    say(f"validation: {len(wanted)} cases, {plan.rounds} rounds")
    timings = measure([case for case in (*good, *bad) if case.name in wanted], plan.rounds)
    for title, cases, chart in (
        ("Accepting a token", good, "validation.svg"),
        ("Refusing a token", bad, "refusals.svg"),
    ):
        kept = [timings[case.name] for case in cases if case.name in timings]
        if kept:
            yield table(title, kept, chart=chart)


def accepted(issuer: LocalIssuer, plan: Plan) -> Iterator[Case]:
    """What it takes to accept a good token."""
    algorithm, minted = issuer.key.algorithm, mint(issuer, plan.tokens)
    floor = bare(issuer, minted)
    yield floor
    cold = resource_server(issuer, token_cache_size=0).validate
    yield Case(f"cold {algorithm}", cold, minted, floor.name, COLD_AT_MOST[algorithm])
    yield Case(f"hit {algorithm}", resource_server(issuer).validate, minted, FLOOR, HIT_AT_MOST)
    if algorithm == "RS256":  # what a hit costs does not depend on the signature
        many = mint(issuer, plan.rotating)
        name = f"hit RS256, {plan.rotating:,} in turn"
        yield Case(name, resource_server(issuer).validate, many, FLOOR, ROTATING_HIT_AT_MOST)
    for name, validate in prepared(issuer):
        yield Case(f"{name} {algorithm}", validate, minted, floor.name)


def refused(issuer: LocalIssuer, tokens: int) -> Iterator[Case]:
    """What it takes to refuse a bad token."""
    good, stranger, other = mint(issuer, tokens), SigningKey.generate("RS256"), SigningKey.generate("ES256")
    organizer = resource_server(issuer, algorithms=["RS256"])
    # Its keys are fetched; the first unknown key ID, in the round that warms up, begins a cooldown that outlasts us.
    fetching = ResourceServer(
        issuer=issuer.url,
        audience=AUDIENCE,
        transport=issuer.transport(),
        keys=KeyPolicy(time_to_live=86_400, unknown_key_cooldown=86_400),
    )
    fetching.warm_up()
    refusals: list[tuple[str, Reason, ResourceServer, list[str], float]] = [
        ("opaque", Reason.MALFORMED, organizer, [token[-43:] for token in good], 0.15),
        ("malformed header", Reason.MALFORMED, organizer, [token[1:] for token in good], 0.15),
        ("malformed payload", Reason.MALFORMED, organizer, [token.replace(".", ".e", 1) for token in good], 0.15),
        ("60 kB of junk", Reason.TOO_LARGE, organizer, [token[:1] * 60_000 for token in good], 0.15),
        ("unknown issuer", Reason.WRONG_ISSUER, organizer, mint(issuer, tokens, issuer="https://else.example/"), 0.6),
        ("wrong audience", Reason.WRONG_AUDIENCE, organizer, mint(issuer, tokens, audience="else"), 0.6),
        ("expired", Reason.EXPIRED, organizer, mint(issuer, tokens, lifetime=-3600), 0.6),
        ("algorithm not allowed", Reason.ALGORITHM_NOT_ALLOWED, organizer, mint(issuer, tokens, key=other), 0.6),
        ("unknown kid in its cooldown", Reason.UNKNOWN_KEY, fetching, mint(issuer, tokens, key=stranger), 0.6),
        ("tampered", Reason.BAD_SIGNATURE, organizer, [issuer.tampered(token) for token in good], 1.6),
    ]
    for name, reason, server, bad, at_most in refusals:
        yield Case(f"refused: {name}", partial(refuse, server.validate, reason), bad, FLOOR, at_most)


def refuse(validate: Callable[[str], object], reason: Reason, token: str) -> None:
    """Validate a token that must be refused for this reason."""
    try:
        validate(token)
    except InvalidToken as error:
        if error.reason is not reason:
            raise
    else:
        raise AssertionError(f"a token was accepted that is {reason}")
