"""Secrets: read from the environment when a client is made, and kept out of everything that is shown."""

import os
import re
from collections.abc import Mapping
from typing import Any

from headrace.features.errors import DefinitionError
from headrace.features.kafka_source import is_secret

HIDDEN = "•••"

_NAMED = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_IN_URL = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def expand(value: Any, name: str, environment: Mapping[str, str] | None = None) -> Any:
    """`value` with every `${NAME}` replaced by that environment variable; what is no text is returned as it is.

    Raises:
        DefinitionError: a variable is not set.

    >>> expand("${USER_NAME}:x", "sasl.username", {"USER_NAME": "anna"})
    'anna:x'
    """
    if not isinstance(value, str):
        return value
    known = os.environ if environment is None else environment

    def read(found: re.Match[str]) -> str:
        try:
            return known[found[1]]
        except KeyError:
            raise DefinitionError(
                f"Setting '{name}' takes ${{{found[1]}}} from the environment, where it is not set. Set {found[1]} for "
                "the process that runs the flow."
            ) from None

    return _NAMED.sub(read, value)


def hidden(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they may be shown: secrets, and user and password in URLs, are replaced.

    >>> hidden({"sasl.password": "s3cret", "schema.registry.url": "http://me:pw@registry", "client.id": "a"})
    {'sasl.password': '•••', 'schema.registry.url': 'http://•••@registry', 'client.id': 'a'}
    """
    return {
        name: HIDDEN if is_secret(name) else _IN_URL.sub(HIDDEN, value) if isinstance(value, str) else value
        for name, value in config.items()
    }


def without_secrets(text: str, config: Mapping[str, Any]) -> str:
    """A message of a library about a client with this configuration, with every secret in it replaced."""
    values = {str(value) for name, value in config.items() if is_secret(name) and value}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _IN_URL.sub(HIDDEN, text)
