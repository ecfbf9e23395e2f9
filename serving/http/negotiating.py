"""Which form the caller gives and which one it wants: `Content-Type` and `Accept` (RFC 9110)."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.serving.http.problems import Problem

JSON = b"application/json"
ARROW = b"application/vnd.apache.arrow.stream"

_OFFERED = (JSON, ARROW)


def expect_json(headers: Mapping[bytes, bytes]) -> None:
    """Raises Problem 415 unless the body is JSON, in UTF-8 and not compressed. A body of no stated type is JSON."""
    given = headers.get(b"content-type")
    if given is not None and given != JSON:
        kind, _, parameters = given.partition(b";")
        kind = kind.strip().lower()
        if kind != JSON and not (kind.startswith(b"application/") and kind.endswith(b"+json")):
            shown = _shown(given)
            raise Problem(
                415,
                f"The request's Content-Type is '{shown}', expected 'application/json'. "
                "With curl: -H 'Content-Type: application/json'.",
                reason="malformed",
            )
        charset = _parameter(parameters, b"charset")
        if charset is not None and charset not in (b"utf-8", b"utf8", b"us-ascii"):
            raise Problem(
                415, f"The request's charset is '{_shown(charset)}', but JSON is UTF-8. Send UTF-8.", reason="malformed"
            )
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() not in (b"", b"identity"):
        raise Problem(
            415,
            f"The request's Content-Encoding is '{_shown(coding)}'. Send the body as it is, not compressed.",
            reason="malformed",
        )


def wanted(accept: bytes | None) -> bytes:
    """The form of the answer, JSON or ARROW: what the caller likes best, JSON when it does not mind.

    Raises:
        Problem: 406, it wants neither.

    >>> wanted(None), wanted(b"*/*"), wanted(b"application/json;q=0.5, application/vnd.apache.arrow.stream")
    (b'application/json', b'application/json', b'application/vnd.apache.arrow.stream')
    """
    if accept is None or accept == b"*/*" or accept == JSON or not accept.strip():
        return JSON
    best, best_quality = b"", 0.0
    ranges = [_range(each) for each in accept.lower().split(b",") if each.strip()]
    for offered in _OFFERED:
        # Of the ranges that fit, the most specific decides: "*/*;q=0.1, application/json" likes JSON with 1.
        fitting = [(rank, quality) for rank, quality in ((_fits(kind, offered), q) for kind, q in ranges) if rank]
        quality = max(fitting)[1] if fitting else 0.0
        if quality > best_quality:
            best, best_quality = offered, quality
    if not best:
        raise Problem(
            406,
            f"The request's Accept is '{_shown(accept)}'. Answers are 'application/json' or "
            "'application/vnd.apache.arrow.stream'.",
            reason="malformed",
        )
    return best


def _range(text: bytes) -> tuple[bytes, float]:
    kind, _, parameters = text.partition(b";")
    quality = _parameter(parameters, b"q")
    try:
        return kind.strip(), 1.0 if quality is None else min(max(float(quality), 0.0), 1.0)
    except ValueError:
        return kind.strip(), 0.0


def _fits(kind: bytes, offered: bytes) -> int:
    if kind == offered:
        return 3
    if kind == offered.partition(b"/")[0] + b"/*":
        return 2
    return 1 if kind == b"*/*" else 0


def _parameter(parameters: bytes, name: bytes) -> bytes | None:
    for each in parameters.split(b";"):
        key, found, value = each.partition(b"=")
        if found and key.strip().lower() == name:
            return value.strip().strip(b'"').lower()
    return None


def _shown(value: bytes) -> str:
    return value[:100].decode("ascii", "replace")
