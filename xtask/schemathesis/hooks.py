"""What Schemathesis does around every request that it makes of a Sealpod server."""

import itertools
from urllib.parse import urlencode

import schemathesis

_requests = itertools.count(1)

# Longest query that is sent, in bytes: the server reads paths and queries of 32 KiB together.
_MAX_QUERY = 24_000


@schemathesis.hook
def filter_case(context, case):
    """Leaves out queries that are within every limit of their parameters and longer than the server reads all the same.

    A schema can say how many items a parameter has, and not how long all of them are together; 414 has a test of its own.
    """
    return len(urlencode(case.query or {}, doseq=True)) <= _MAX_QUERY


@schemathesis.hook
def before_call(context, case, kwargs):
    """Lets every request come from an address of its own.

    The server counts refusals by address and answers 429 to whoever has too many; here they are the point.
    """
    number = next(_requests)
    case.headers["X-Forwarded-For"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
