"""Reading a flow's configuration: `headrace.toml`, over it the variables HEADRACE_*, over them the command line.

Every setting is told with the place it came from, so an error names the file and key, the variable or the option.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from headrace.features.errors import HeadraceError, did_you_mean
from headrace.features.time import SECOND, duration_us
from headrace.ops.errors import ConfigurationError
from headrace.ops.secrets import expand, is_secret_name, refuse_secret, remember
from headrace.ops.settings import Configuration, Seconds

FILE = "headrace.toml"
PREFIX = "HEADRACE_"
KAFKA = "kafka"

# Short names that were there before the sections, or that everybody would try.
ALIASES = {"HEADRACE_DATA": ("offline", "data"), "HEADRACE_KAFKA_BOOTSTRAP": (KAFKA, "bootstrap.servers")}

# Options that are not called after their key.
OPTIONS = {("serve", "statuses"): "--feast-statuses", ("log", "format"): "--log-format"}

# Kubernetes gives every container variables for each service of its namespace; a service may be named headrace-metrics.
_KUBERNETES = re.compile(r"_SERVICE_(HOST|PORT(_.*)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")

Overrides = Mapping[str, Mapping[str, Any]]
"""Section -> key -> value of the command line; None: not given."""


@dataclass(frozen=True)
class Given:
    """A setting as somebody gave it. place: for errors. text: it came as text, whatever its type."""

    section: str
    key: str
    value: Any
    place: str
    text: bool
    in_the_open: bool


def configuration_file(views: Path | None, named: Path | None) -> Path | None:
    """The file to read: the one named, else `headrace.toml` beside the views file, else in the working directory."""
    if named is not None:
        return named
    candidates = [Path(FILE)] if views is None else [views.resolve().parent / FILE, Path(FILE)]
    return next((each for each in candidates if each.is_file()), None)


def configure(
    file: Path | None,
    *,
    environment: Mapping[str, str] | None = None,
    options: Overrides | None = None,
) -> Configuration:
    """The configuration of a flow.

    Args:
        file: TOML file, or None.
        environment: variables; without it those of the process.
        options: what the command line says.

    Raises:
        ConfigurationError: the file cannot be read, a key is unknown or of another type, a secret stands in the open,
            or a variable in `${VAR}` is not set.
    """
    variables = os.environ if environment is None else environment
    known = {
        each.name: get_type_hints(type_of(each.name), include_extras=True)
        for each in fields(Configuration)
        if each.name != KAFKA
    }
    found: dict[str, dict[str, Any]] = {name: {} for name in (*known, KAFKA)}
    for given in (*_of_file(file), *_of_environment(variables, known), *_of_options(options or {})):
        if given.section not in found:
            raise ConfigurationError(
                f"{given.place}: there is no section [{given.section}]{did_you_mean(given.section, found)} "
                f"The sections are: {', '.join(sorted(found))}."
            )
        if given.section == KAFKA:
            found[KAFKA][given.key] = _expanded(_kafka_text(given), given, variables)
        elif given.key not in known[given.section]:
            keys = known[given.section]
            raise ConfigurationError(
                f"{given.place}: section [{given.section}] has no key '{given.key}'{did_you_mean(given.key, keys)} "
                f"Its keys are: {', '.join(sorted(keys))}."
            )
        else:
            found[given.section][given.key] = _typed(given, known[given.section][given.key], variables)
    sections = {name: type_of(name)(**found[name]) for name in known}
    return Configuration(kafka=found[KAFKA], **sections)


def type_of(section: str) -> Any:
    """The class of a section."""
    return get_type_hints(Configuration)[section]


def _of_file(file: Path | None) -> Iterator[Given]:
    if file is None:
        return
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"There is no configuration file {file}. Name another with --config.") from None
    except OSError as error:
        raise ConfigurationError(f"The configuration file {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is no TOML: {error}.") from error
    for section, keys in tables.items():
        if not isinstance(keys, dict):
            raise ConfigurationError(
                f"{file}: '{section}' stands outside of a section. Put it below one, such as [flow]."
            )
        flat = dict(_flat(keys)) if section == KAFKA else keys
        if not flat and section not in {each.name for each in fields(Configuration)}:
            flat = {"": None}  # an empty section is told like any other that nobody knows
        for key, value in flat.items():
            yield Given(section, key, value, f"{file}: [{section}] {key}".rstrip(), text=False, in_the_open=True)


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """TOML reads `bootstrap.servers = ...` as a table in a table."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _of_environment(variables: Mapping[str, str], known: Mapping[str, Any]) -> Iterator[Given]:
    # An alias first: the full name of a setting wins over its short one.
    for name in sorted(variables, key=lambda each: (each not in ALIASES, each)):
        if name in ALIASES:
            section, key = ALIASES[name]
        else:
            section = next((each for each in (*known, KAFKA) if name.startswith(f"{PREFIX}{each.upper()}_")), "")
            a_service = name.endswith("_PORT") and "://" in variables[name]
            if not section or a_service or _KUBERNETES.search(name):
                continue
            key = name.removeprefix(f"{PREFIX}{section.upper()}_").lower()
            key = _kafka_name(key) if section == KAFKA else key
        yield Given(section, key, variables[name], f"variable {name}", text=True, in_the_open=False)


def _of_options(options: Overrides) -> Iterator[Given]:
    for section, keys in options.items():
        for key, value in keys.items():
            if value is not None:
                name = section if section == KAFKA or (section, key) == ("online", "url") else key
                option = OPTIONS.get((section, key)) or f"--{name.replace('_', '-')}"
                yield Given(section, key, value, f"option {option}", text=isinstance(value, str), in_the_open=True)


def _kafka_name(key: str) -> str:
    """librdkafka's name of a setting written with `_` for `.`; those of TLS material in memory keep their `_`."""
    return key if key in ("ssl_key", "ssl_certificate", "ssl_ca") else key.replace("_", ".")


def _kafka_text(given: Given) -> str:
    if isinstance(given.value, bool):
        return str(given.value).lower()
    if isinstance(given.value, str | int | float):
        return str(given.value)
    raise ConfigurationError(
        f"{given.place}: expected text, a number or a truth value, got {type(given.value).__name__}. "
        'Lists are written as librdkafka reads them: "a,b".'
    )


def _expanded(value: str, given: Given, variables: Mapping[str, str]) -> str:
    secret = is_secret_name(given.key)
    if given.in_the_open:
        refuse_secret(given.key, value, given.place)
    elif secret:
        remember(value)
        return value  # a password may hold `${`
    return expand(value, variables, given.place, secret=secret)


def _typed(given: Given, kind: Any, variables: Mapping[str, str]) -> Any:
    value = _expanded(given.value, given, variables) if isinstance(given.value, str) else given.value
    if kind is Seconds or Seconds in get_args(kind):
        return _seconds(value, given)
    try:
        return msgspec.convert(value, kind, strict=not given.text)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{given.place}: {_expected(kind, str(error))}, got {value!r}.") from None


def _expected(kind: Any, said: str) -> str:
    choices = [choice for part in (kind, *get_args(kind)) for choice in get_args(part) if isinstance(choice, str)]
    return f"expected one of {', '.join(choices)}" if choices else said[0].lower() + said[1:].partition(",")[0]


def _seconds(value: Any, given: Given) -> Seconds:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = None
    if number is not None and not isinstance(value, bool):
        if 0 < number < float("inf"):
            return Seconds(number)
        raise ConfigurationError(f'{given.place}: expected a length of time above zero, such as "10s", got {value!r}.')
    try:
        us = duration_us(value, given.place)
    except HeadraceError as error:
        raise ConfigurationError(str(error)) from None
    if us <= 0:
        raise ConfigurationError(f'{given.place}: expected a length of time above zero, such as "10s", got {value!r}.')
    return Seconds(us / SECOND)
