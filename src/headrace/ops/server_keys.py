"""Who may ask the lookup server: its API keys and its certificate, read from where they are kept."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headrace.ops.errors import ConfigurationError
from headrace.ops.secrets import remember
from headrace.ops.server_address import is_loopback
from headrace.ops.settings import ServeSection

SHORTEST = 16
_PLAIN = re.compile(r"[!-~]+")


def accepted_keys(settings: ServeSection) -> frozenset[str]:
    """The keys that callers may show, of the variable and of the file; none: everybody may ask.

    Raises:
        ConfigurationError: the file cannot be read, holds no key, or a key could not stand in a header or could be
            guessed. No message tells a key.
    """
    found = set()
    for place, key in _keys(settings):
        remember(key)
        if not _PLAIN.fullmatch(key):
            raise ConfigurationError(
                f"{place}: an API key holds signs that no header may have. Use letters and digits."
            )
        if len(key) < SHORTEST:
            raise ConfigurationError(
                f"{place}: an API key has {len(key)} signs, and one below {SHORTEST} could be guessed. Make one: "
                'python -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
        found.add(key)
    return frozenset(found)


def _keys(settings: ServeSection) -> Iterator[tuple[str, str]]:
    if settings.api_keys is not None:
        for key in re.split(r"[,\s]+", settings.api_keys.strip()):
            yield "HEADRACE_SERVE_API_KEYS", key
    if settings.api_keys_file is not None:
        place = f"[serve] api_keys_file: {settings.api_keys_file}"
        try:
            lines = Path(settings.api_keys_file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{place} cannot be read: {error}.") from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys:
            raise ConfigurationError(f"{place} holds no key. Write one a line.")
        yield from ((place, key) for key in keys)


@dataclass(frozen=True)
class Doubt:
    """What somebody should think about, and what to do about it."""

    says: str
    mend: str


def check_reach(settings: ServeSection, keys: frozenset[str]) -> Doubt | None:
    """Says no to a server that other machines reach and that asks nobody for a key, unless that is meant.

    Raises:
        ConfigurationError: so it is.
    """
    if is_loopback(settings.host):
        return None
    if not keys and not settings.without_keys:
        raise ConfigurationError(
            f"Other machines reach {settings.host}, and no API key is set: anybody could read every feature and push "
            "rows. Set HEADRACE_SERVE_API_KEYS, or [serve] without_keys = true if something else keeps others out."
        )
    if not keys:
        return Doubt(
            f"other machines reach {settings.host}, and nobody is asked for a key",
            "Does something else keep others out? Else set HEADRACE_SERVE_API_KEYS.",
        )
    if settings.tls_cert is None:
        return Doubt("keys cross the network in clear text", "Set [serve] tls_cert and tls_key.")
    return None


def check_tls(settings: ServeSection) -> bool:
    """Whether the server speaks TLS.

    Raises:
        ConfigurationError: one of the two files is missing, or they cannot be read or do not fit each other.
    """
    if settings.tls_cert is None and settings.tls_key is None:
        return False
    if settings.tls_cert is None or settings.tls_key is None:
        given, missing = ("tls_key", "tls_cert") if settings.tls_cert is None else ("tls_cert", "tls_key")
        raise ConfigurationError(f"[serve] {given} is given without {missing}. TLS needs both.")
    for name, path in (("tls_cert", settings.tls_cert), ("tls_key", settings.tls_key)):
        if not Path(path).is_file():
            raise ConfigurationError(f"[serve] {name}: there is no file {path}.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(
            f"[serve] tls_cert {settings.tls_cert} and tls_key {settings.tls_key} cannot be used: {error}. Expected a "
            "certificate chain and its private key without password, both PEM."
        ) from error
    return True
