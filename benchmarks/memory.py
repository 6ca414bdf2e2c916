"""What the cache of verified tokens holds on to: bytes a token, and how long it makes a full garbage collection.

The tokens are signed with a shared secret, as a million signatures of RSA would take ten minutes. A signature is not
kept, so that what is kept is the same.
"""

import gc
import tracemalloc
from collections.abc import Iterator
from time import process_time

from benchmarks.plan import Plan
from benchmarks.report import AT_MOST, Cell, Table, say
from benchmarks.tokens import AUDIENCE, stream
from token_guard import Issuer, ResourceServer
from token_guard.testing import LocalIssuer

BYTES_AT_MOST = 950
COLLECTION_AT_MOST = 80.0 / 100_000  # milliseconds for each token
_COLLECTIONS = 5


def shared_secret_server(issuer: LocalIssuer, token_cache_size: int) -> ResourceServer:
    """Return a resource server for an issuer that signs with HS256."""
    trusted = Issuer(issuer.url, secret=issuer.key.private, algorithms=["HS256"])
    return ResourceServer(issuer=trusted, audience=AUDIENCE, token_cache_size=token_cache_size)


def run(plan: Plan) -> Iterator[Table]:
    """Fill a cache, and look at it."""
    count = plan.remembered
    say(f"memory: remembering {count:,} tokens")
    issuer = LocalIssuer(algorithm="HS256")
    shared_secret_server(issuer, 0).validate(issuer.token())  # what is made once for all servers is made
    gc.collect()
    gc.freeze()  # what was there before is not looked at again
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    organizer = shared_secret_server(issuer, count)
    for token in stream(issuer, count):
        organizer.validate(token)
    gc.collect()
    held = (tracemalloc.get_traced_memory()[0] - before) / count
    tracemalloc.stop()
    collection = _collection()
    gc.unfreeze()
    rows: list[tuple[Cell, ...]] = [
        ("bytes a remembered token", held, BYTES_AT_MOST),
        (f"milliseconds of a full garbage collection of {count:,}", collection, COLLECTION_AT_MOST * count),
    ]
    yield Table("Memory of the cache of verified tokens", ("what", "measured", AT_MOST), rows, limited="measured")


def _collection() -> float:
    times = []
    for _ in range(_COLLECTIONS):
        started = process_time()
        gc.collect()
        times.append(process_time() - started)
    return min(times) * 1e3
