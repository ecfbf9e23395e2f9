"""The views of one project in Redis, as one store sees them: looked up, checked, registered, changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from headrace.features.views import ViewDefinition
from headrace.stores import redis_scripts as scripts
from headrace.stores.errors import StoreError, UnreachableError
from headrace.stores.feast_rows import FeastRows, field_of
from headrace.stores.layout import LoggedView, RowLayout, row_layout, same
from headrace.stores.packed_rows import PackedRows
from headrace.stores.redis_talk import SCAN_KEYS, Command, Talk, call
from headrace.stores.redis_views import Kept, KeptViews, encode_kept, kept_views, migrated, new_generation, outdated

Rows: TypeAlias = FeastRows | PackedRows

TRIES = 5


@dataclass
class KnownView:
    """A view that was checked against the project's.

    Attributes:
        layout: of the definition in hand. kept: the project's views at that moment. rows: codec. expiry: when keys go,
        as `KeptViews.expiry`; "" for a view that is not there. written: whether it was checked for a writer too.
    """

    layout: RowLayout
    kept: KeptViews
    rows: Rows
    expiry: str
    written: bool = False


class ProjectViews:
    """The views of a project, and which of them this object has written.

    Args:
        place: for messages. form: layout of rows, "feast" or "packed".
    """

    def __init__(self, talk: Talk, project: str, form: str, place: str) -> None:
        self.key = f"{{headrace:{project}}}:views".encode()
        self._talk, self._project, self._form, self._place = talk, project, form, place
        self._kept: KeptViews | None = None
        self._known: dict[str, KnownView] = {}
        self._written: set[str] = set()

    def fresh(self) -> KeptViews:
        """The views as they are now."""
        (data,) = self._talk.ask_again([self.command])
        return self.take(data)

    def take(self, data: Mapping[bytes, bytes] | Sequence[bytes]) -> KeptViews:
        """The views from what `command` answered; the older protocol has names and contents in turn."""
        self._kept = kept_views(data if isinstance(data, Mapping) else dict(zip(data[::2], data[1::2], strict=True)))
        return self._kept

    @property
    def command(self) -> Command:
        """What asks for the views."""
        return ("HGETALL", self.key)

    @property
    def looked_at(self) -> bool:
        """Whether views were looked at since the store was opened."""
        return self._kept is not None

    def checked(self, layout: RowLayout) -> KnownView:
        """A view to be read, as it was when the views were last looked at; a stale answer is found by its generation.

        Raises:
            SchemaMismatchError: as `KeptViews.check`.
        """
        kept = self._kept or self.fresh()
        known = self._known.get(layout.view)
        if known is not None and known.layout is layout and known.kept is kept:
            return known
        found = kept.check(layout, self._form, self._place)
        expiry = "" if found is None else kept.expiry(found.layout, self._form)
        known = self._known[layout.view] = KnownView(layout, kept, self.rows(layout, found), expiry)
        return known

    def exactly(self, layout: RowLayout) -> KnownView:
        """A view whose rows are about to change; otherwise as `checked`.

        Raises:
            SchemaMismatchError: its rows were made by another definition or are laid out in another way.
        """
        known = self.checked(layout)
        if not known.written:
            known.kept.check_written(layout, self._form, self._place)
            known.written = True
        return known

    def registered(self, view: ViewDefinition | LoggedView) -> KnownView:
        """A view that is about to be written: among the project's views, under its ttl. Raises as `checked`.

        Raises:
            UnreachableError: another process is changing the view just now.
        """
        layout = row_layout(view)
        for _ in range(TRIES):
            known = self.exactly(layout)
            kept = known.kept.views.get(view.name)
            if kept is not None and kept.changing:
                self._kept = None
                raise UnreachableError(
                    f"{self._place}: the definition of view '{view.name}' is being changed. Try again."
                )
            # Two programs with two ttls of one view: whoever began last has its way.
            if kept is not None and (kept.ttl_us == view.ttl_us or view.name in self._written):
                return known
            self._register(known.kept, known.kept.with_view(view, layout, self._form))
        raise self.restless(view.name)

    def migrate(self, view: ViewDefinition) -> list[str]:
        """`OnlineStore.migrate_view`."""
        layout = row_layout(view)
        told: list[str] = []
        for _ in range(TRIES):
            kept = self.fresh()
            before = kept.views.get(view.name)
            if before is None:
                return told
            if not same(before.layout, layout):
                told = before.layout.differences(layout)
                self._register(kept, migrated(before, layout))
            elif not before.changing:
                return told
            elif self._cleared(before, kept.generation):
                self._register(kept, msgspec.structs.replace(before, changing=False, past=()))
        raise self.restless(view.name)

    def forget(self, name: str) -> None:
        """A view is no longer there."""
        self._talk.ask([("HDEL", self.key, name), ("HSET", self.key, "", new_generation())], together=True)
        self._kept = None

    def rows(self, layout: RowLayout, kept: Kept | None) -> Rows:
        """The codec of a view's rows as the project keeps them."""
        if (self._form if kept is None else kept.form) == "feast":
            return FeastRows(layout, self._project)
        if kept is None:
            return PackedRows(layout, self._project)
        if same(kept.layout, layout):
            return PackedRows(layout, self._project, kept.layout, kept.past)
        return PackedRows(layout, self._project, layout, (*kept.past, kept.layout))  # a reader that knows less

    def restless(self, name: str) -> StoreError:
        """The error of views that change whenever one looks."""
        return StoreError(f"{self._place}: views are changed all the time. Do two programs drop and write '{name}'?")

    def _register(self, seen: KeptViews, made: Kept) -> None:
        """Keep `made`, unless the views are no longer those that were seen."""
        name = made.layout.view
        said = [seen.generation, new_generation(), name, encode_kept(made)]
        if self._talk.ask([call(scripts.REGISTER, [self.key], said)]) != [0]:
            self._written.add(name)
        self.fresh()

    def _cleared(self, kept: Kept, generation: bytes) -> bool:
        """Remove what former definitions left in Feast's hashes; False when somebody else was faster."""
        names = {name for past in kept.past for name in outdated(past, kept.layout)}
        fields = [field_of(kept.layout.view, name) for name in sorted(names)]
        fields.append(b"_exact:" + kept.layout.view.encode())
        keys = [key for key, _ in found_keys(self._talk, FeastRows(kept.layout, self._project))]
        for start in range(0, len(keys), SCAN_KEYS):
            some = keys[start : start + SCAN_KEYS]
            commands: list[Command] = [call(scripts.CLEAR, [self.key, *some], [generation, *fields])]
            if self._talk.cluster:
                commands = [("HDEL", key, *fields) for key in some]
            if scripts.CHANGED in self._talk.ask(commands):
                return False
        return True


def found_keys(talk: Talk, rows: Rows) -> list[tuple[bytes, tuple[object, ...]]]:
    """Every key that may hold a row of the view, with its values; goes through all keys of the database."""
    return [(key, values) for key in talk.keys(rows.pattern()) if (values := rows.key_of(key)) is not None]
