"""Errors of operating a flow, and the exit codes by which processes tell them to whoever started them.

HeadraceError
└── ConfigurationError (ValueError)     a setting is wrong: starting again cannot help
"""

from __future__ import annotations

from headrace.features.errors import HeadraceError

# What `headrace` ends with. 2 is wrong usage of the command line; 75 and 78 are those of sysexits.h.
DONE = 0
FAILED = 1
GAVE_UP = 75  # workers went on dying; starting again later may help
WRONG_CONFIGURATION = 78  # nothing but a person can help
INTERRUPTED = 130  # Ctrl-C, as shells say it


class ConfigurationError(HeadraceError, ValueError):
    """A setting is wrong; the message names it, where it was given, what was expected and the way out."""
