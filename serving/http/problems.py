"""What goes wrong with a request, and what is said about it: a status, a text, a field. Nothing internal gets out.

| error                                                | status |
|------------------------------------------------------|--------|
| `Problem`                                            | its own |
| `OutOfReachError`, `DataError`, `DefinitionError`    | 422: the caller's request, in the error's own words |
| `UnreachableError` because of a timeout              | 504 |
| `UnreachableError`                                   | 503, `Retry-After` |
| another `StoreError`, anything else                  | 500: the text is in the log, under the trace id |
"""

from __future__ import annotations

import logging

from headrace.features.errors import DataError, DefinitionError
from headrace.serving.asking import OutOfReachError
from headrace.serving.http.seldom import SeldomLog
from headrace.stores.errors import SchemaMismatchError, StoreError, UnreachableError

_log = SeldomLog(logging.getLogger("headrace.serving.http"))

RETRY_AFTER_S = 1


class Problem(Exception):
    """Ends a request with an answer that tells why.

    Args:
        status: of HTTP. detail: what was got, what was expected, the next move. field: of the request's body, as a path
        ("entities.driver_id[3]"). reason: for `ServerWatcher.refused`; "" is not told. headers: more of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        reason: str = "",
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.field, self.reason, self.headers = status, detail, field, reason, headers


def unprocessable(detail: str, field: str | None = None, reason: str = "malformed") -> Problem:
    """422: JSON as it should be, but not a request that can be answered."""
    return Problem(422, detail, field=field, reason=reason)


def unknown(detail: str, field: str | None = None) -> Problem:
    """404: a service, view, feature or path that is not served."""
    return Problem(404, detail, field=field, reason="unknown")


def unreachable() -> Problem:
    """503: the online store does not answer."""
    return Problem(
        503,
        f"The online store does not answer. Ask again in {RETRY_AFTER_S} s; GET /readyz tells when it is back.",
        reason="unreachable",
        headers=((b"retry-after", b"%d" % RETRY_AFTER_S),),
    )


def too_late(timeout_s: float) -> Problem:
    """504: there was no answer in time."""
    return Problem(
        504,
        f"There was no answer within {timeout_s:g} s, the server's limit. Ask again, or for fewer entities at a time.",
        reason="timeout",
    )


def problem_of(error: Exception, timeout_s: float, field: str | None = None) -> Problem:
    """The answer to an error that a lookup or a push raised. What is not the caller's doing is logged here."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, (TimeoutError, UnreachableError)):
        _log.write(logging.WARNING, "The online store did not answer", error)
        late = isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)
        return too_late(timeout_s) if late else unreachable()
    if isinstance(error, OutOfReachError):
        return unprocessable(str(error), field or "at")
    if isinstance(error, (DataError, DefinitionError)) and not isinstance(error, StoreError):
        return unprocessable(str(error), field)
    if isinstance(error, SchemaMismatchError):
        _log.write(logging.ERROR, "A lookup failed", error)
        return Problem(
            500,
            "The online store holds rows of another definition of a view that was asked for. Deploy the server and the "
            "flow with one definition; the server's log names the view.",
        )
    _log.write(logging.ERROR, "A request failed", error, traceback=True)
    return Problem(500, "The server failed to answer. Its log has the cause, under the trace id of this answer.")


def why_failed(error: Exception) -> str:
    """Why one view is missing from a partial answer, in words that name no address."""
    if isinstance(error, UnreachableError):
        return "The online store does not answer."
    if isinstance(error, SchemaMismatchError):
        return "Its rows in the online store are of another definition."
    return "Its rows in the online store cannot be read."
