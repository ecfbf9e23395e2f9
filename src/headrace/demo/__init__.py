"""The demo: the flights that left New York in 2013 as a stream, features of delays, and their worth to a model.

    flights.py   the data: clock readings become instants, flights become events and questions
    views.py     the features, as one would write them in a file of one's own
    lift.py      one model without and with the features
    picture.py   a bad-weather day minute by minute, and the lift
    story.py     all of it in order: `headrace demo`

Needs `pip install 'headrace[demo]'`.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path("demo-output")


def main(folder: Path = FOLDER) -> None:
    """Runs the demo and leaves its data, views, features and figure in `folder`.

    Raises:
        HeadraceError: a package of the extra `demo` is not installed.
    """
    from headrace.features.errors import HeadraceError

    try:
        from headrace.demo.story import tell
    except ModuleNotFoundError as error:
        raise HeadraceError(
            f"The demo needs {error.name}, which is not installed: pip install 'headrace[demo]'"
        ) from error
    tell(folder)
