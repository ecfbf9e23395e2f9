"""Secrets stay in the environment: files and command lines hold `${VAR}`, and nothing printed holds what it stands for.

Three steps, from a setting to a log line:

- `refuse_secret` says no to a password that stands in a file, with the way out;
- `expand` replaces `${VAR}` by the variable's value, quoted where it becomes part of a URL, and remembers it;
- `redact` replaces remembered values, and whatever looks like the password of a URL or of a setting, by `***`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from headrace.ops.errors import ConfigurationError

HIDDEN = "***"

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# scheme://user:password@host; the password ends at the last @ before the path.
_URL_PASSWORD = re.compile(r"(?P<before>\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@'\"]*:)(?P<password>[^\s/'\"]+)(?=@)")
# librdkafka's and Schema Registry's settings that are secret, and what ends like them.
_SECRET_KEY = re.compile(
    r"(?:^|[._-])(?:password|passwd|secret|user\.info|ssl[._]key|key\.pem|oauthbearer\.config|token|api[._]keys?)$",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(
    r"(?P<before>[\w.-]*(?:password|passwd|secret|user\.info|key\.pem|api_keys?)(?:\s*=\s*[\"']?|[\"']\s*:\s*[\"']))"
    r"(?P<value>[^\s,;\"'}]+)",
    re.IGNORECASE,
)

_known: set[str] = set()
_lock = threading.Lock()


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name holds a secret.

    >>> is_secret_name("sasl.password"), is_secret_name("ssl.key.location"), is_secret_name("ssl_key")
    (True, False, True)
    """
    return bool(_SECRET_KEY.search(name))


def refuse_secret(name: str, value: str, place: str) -> None:
    """Says no to a secret written out at a place that is not the environment.

    Args:
        name: of the setting. value: as written. place: where, such as "headrace.toml: [kafka] sasl.password".

    Raises:
        ConfigurationError: the value is, or its URL holds, a secret that is no `${VAR}`. The message does not tell it.
    """
    variable = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
    if is_secret_name(name) and _REFERENCE.sub("", value).strip():
        raise ConfigurationError(
            f"{place}: a secret stands here in clear text. Put it into the environment, and write the name of its "
            f'variable: "${{{variable}}}".'
        )
    for found in _URL_PASSWORD.finditer(value):
        if _REFERENCE.sub("", found["password"]):
            shown = redact(value).replace(HIDDEN, f"${{{variable}_PASSWORD}}")
            raise ConfigurationError(
                f"{place}: the URL holds a password in clear text. Put it into the environment, and write the name of "
                f'its variable: "{shown}".'
            )


def expand(value: str, environment: Mapping[str, str], place: str, *, secret: bool = False) -> str:
    """The value with every `${VAR}` replaced by the variable's.

    Within the user and password of a URL the replacement is quoted, so a password may hold any sign. What replaces
    something inside a password, or anything in a setting that is `secret`, is remembered and never printed.

    Raises:
        ConfigurationError: a variable is not set, or what stands in the braces is no name of one.
    """
    scheme, marks, rest = value.partition("://")
    user, at, host = rest.rpartition("@") if marks else ("", "", "")

    def replaced(text: str, quoted: bool) -> str:
        def one(found: re.Match[str]) -> str:
            name = found[1]
            if not _VARIABLE.fullmatch(name):
                raise ConfigurationError(f"{place}: '${{{name}}}' names no variable. Write ${{VARIABLE}}.")
            if name not in environment:
                raise ConfigurationError(f"{place}: the variable {name} is not set. Set it: export {name}=...")
            if quoted or secret:
                remember(environment[name])
            return quote(environment[name], safe="") if quoted else environment[name]

        return _REFERENCE.sub(one, text)

    if not at:
        expanded = replaced(value, False)
    else:
        expanded = f"{replaced(scheme, False)}://{replaced(user, True)}@{replaced(host, False)}"
    if secret:
        remember(expanded)
    for found in _URL_PASSWORD.finditer(expanded):
        remember(unquote(found["password"]))
    return expanded


def remember(secret: str) -> None:
    """`redact` hides this text from now on, also as URLs quote it. One of three letters would hide half of any text."""
    if len(secret) >= 4:
        with _lock:
            _known.update({secret, quote(secret, safe="")})


def forget() -> None:
    """Nothing is remembered any more."""
    with _lock:
        _known.clear()


def redact(text: str) -> str:
    """The text without secrets.

    >>> redact("cannot reach redis://flow:s3cr3t@cache:6379/0, sasl.password=hunter2")
    'cannot reach redis://flow:***@cache:6379/0, sasl.password=***'
    """
    with _lock:
        known = sorted(_known, key=len, reverse=True)
    for secret in known:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    text = _URL_PASSWORD.sub(rf"\g<before>{HIDDEN}", text)
    return _ASSIGNED.sub(rf"\g<before>{HIDDEN}", text)


def redacted(value: Any) -> Any:
    """A value of a log line, with the texts in it redacted; under a name that is secret all of it."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {
            name: HIDDEN if is_secret_name(str(name)) and each is not None else redacted(each)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(each) for each in value]
    return value
