"""A writer that failed takes no more: some rows may be staged in part, so nothing may be committed after them."""

from __future__ import annotations

from collections.abc import Callable

from headrace.stores.commits import fenced, numbers
from headrace.stores.errors import StoreError
from headrace.stores.places import Place


class Care:
    """`with care:` around every step of a part's writer.

    Args:
        newest: the number of the writer's newest commit, None before its claim.

    Raises:
        StoreError: a step failed before; or the disk or the network fails in this one.
        FencedError: this one failed because another writer has taken the part over and tidied up.
    """

    def __init__(self, place: Place, part: str, newest: Callable[[], int | None]) -> None:
        self._place = place
        self._part = part
        self._newest = newest
        self._broken = False

    def __enter__(self) -> None:
        if self._broken:
            raise StoreError(
                f"The log at {self._place} failed to write before and takes no more. Start the flow again: it goes on "
                "from its checkpoint."
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        self._broken = True
        if isinstance(error, OSError) and not isinstance(error, StoreError):
            if self._replaced():
                raise fenced(self._place, self._part) from error
            raise StoreError(
                f"The log at {self._place} cannot be written: {error}. Nothing of what was committed is lost; make "
                "room or mend the folder, then start the flow again: it goes on from its checkpoint."
            ) from error

    def _replaced(self) -> bool:
        newest = self._newest()
        if newest is None:
            return False
        try:
            return numbers(self._place).get(self._part, [0])[-1] > newest
        except OSError:  # nothing can be read either; then the first error says why
            return False
