"""The words of a command line for worker processes that run the same command, and how these fail."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import typer


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, and not only in a variable or as a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def given_words(context: typer.Context, without: Collection[str]) -> Sequence[str]:
    """The options of this command line as words, but for those that a worker is told by its supervisor."""
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in without or not is_given(context, name):
            continue
        value = context.params[name]
        option = max(parameter.opts, key=len)
        for each in value if isinstance(value, list | tuple) else (value,):
            words += [option] if each is True else [option, str(each)]
    return words


@contextmanager
def wrong_for_good() -> Iterator[None]:
    """In a worker process, a file that is wrong is told to the supervisor as what no restart mends."""
    import os

    from headrace.features.errors import DefinitionError
    from headrace.ops.errors import ConfigurationError
    from headrace.ops.lifeline import VARIABLE

    try:
        yield
    except DefinitionError as error:
        if VARIABLE in os.environ:
            raise ConfigurationError(str(error)) from error
        raise
