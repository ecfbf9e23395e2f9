"""Which views a project holds in Redis: layout, ttl, and how rows are laid out, so that a wrong definition is refused.

    hash "{headrace:PROJECT}:views"      ""        ->  generation: a mark that changes whenever anything below does
                                         view name ->  MessagePack [layout of rows, "feast" or "packed", ttl, had one,
                                                       former layouts, whether it is changing]

Whoever writes or reads holds a copy; the scripts that write compare the generation, so a copy never outlives a change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from headrace.features.views import ViewDefinition
from headrace.stores.errors import SchemaMismatchError, StoreError
from headrace.stores.feast_rows import field_of
from headrace.stores.layout import LoggedView, RowLayout, check_readable, check_related, check_same
from headrace.stores.online import REMEDY


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a view's rows.

    Attributes:
        layout: of its rows. form: "feast" or "packed". ttl_us: of the newest definition, None for ever. had_ttl:
        whether it ever had one, so keys may be about to expire. past: layouts before this one, oldest first; a packed
        row tells its own by number. changing: fields that features of `past` left in Feast's hashes are being removed,
        and until that is done nobody writes.
    """

    layout: RowLayout
    form: str
    ttl_us: int | None
    had_ttl: bool
    past: tuple[RowLayout, ...] = ()
    changing: bool = False


@dataclass(frozen=True)
class KeptViews:
    """The views of a project at one moment.

    Attributes:
        generation: empty when nothing was written yet.
        views: by name.
    """

    generation: bytes = b""
    views: Mapping[str, Kept] = field(default_factory=dict)

    def check(self, layout: RowLayout, form: str, place: str) -> Kept | None:
        """What is kept of a view, None if it never was written.

        Raises:
            SchemaMismatchError: its rows were made by a definition that lacks a feature of the layout, or are laid out
            in another way.
        """
        kept = self.views.get(layout.view)
        if kept is None:
            return None
        if kept.form != form:
            raise SchemaMismatchError(
                f"{place} holds rows of view '{layout.view}' with layout={kept.form!r}, not {form!r}. Open the store "
                f"with layout={kept.form!r}, or drop them (`store.drop({layout.view!r})`) and fill it again."
            )
        check_readable(kept.layout, layout, place, REMEDY.format(view=layout.view))
        return kept

    def check_written(self, layout: RowLayout, form: str, place: str) -> None:
        """As `check`, for a writer: rows of any other definition are refused."""
        kept = self.check(layout, form, place)
        if kept is not None:
            check_same(kept.layout, layout, place, REMEDY.format(view=layout.view))

    def with_view(self, view: ViewDefinition | LoggedView, layout: RowLayout, form: str) -> Kept:
        """What is to be kept of a view that is about to be written.

        Raises:
            StoreError: two features of one entity would have one field.
        """
        before = self.views.get(layout.view)
        if form == "feast":
            self._check_fields(layout)
        had = view.ttl_us is not None or (before is not None and before.had_ttl)
        if before is None:
            return Kept(layout, form, view.ttl_us, had)
        return msgspec.structs.replace(before, ttl_us=view.ttl_us, had_ttl=had)

    def _check_fields(self, layout: RowLayout) -> None:
        mine = {field_of(layout.view, name): name for name in layout.feature_names}
        for name, kept in self.views.items():
            if name == layout.view or not _same_entity(kept.layout, layout):
                continue
            for other in kept.layout.feature_names:
                found = mine.get(field_of(name, other))
                if found is not None:
                    raise StoreError(
                        f"'{layout.view}:{found}' and '{name}:{other}' have the same 32 bit hash, by which Feast names "
                        "fields in Redis. Rename one of them."
                    )

    def expiry(self, layout: RowLayout, form: str) -> str:
        """When keys of a view's rows go: "" says nothing about it, "keep" for ever, else milliseconds after the newest
        event.

        A hash of Feast's holds all views of an entity, so it stays for the longest of their ttls.
        """
        mine = self.views[layout.view]
        together = [kept for kept in self.views.values() if form == "feast" and _same_entity(kept.layout, layout)]
        together = together or [mine]
        ttls = [kept.ttl_us for kept in together]
        longest = [ttl for ttl in ttls if ttl is not None]
        if len(longest) == len(ttls):
            return str(-(-max(longest) // 1000))
        return "keep" if any(kept.had_ttl for kept in together) else ""


def migrated(kept: Kept, layout: RowLayout) -> Kept:
    """What is kept of a view once `layout` has taken the place of its layout.

    Raises:
        SchemaMismatchError: keys or the time column changed.
        StoreError: the view changed more often than packed rows can tell.
    """
    check_related(kept.layout, layout)
    if kept.form == "packed":
        if len(kept.past) == 255:
            raise StoreError(
                f"View '{layout.view}' has changed 255 times since its rows were first written. Drop them "
                f"(`store.drop({layout.view!r})`) and fill the store again."
            )
        return msgspec.structs.replace(kept, layout=layout, past=(*kept.past, kept.layout))
    past = (*kept.past, kept.layout)
    changing = any(outdated(each, layout) for each in past)
    return msgspec.structs.replace(kept, layout=layout, past=past if changing else (), changing=changing)


def outdated(stored: RowLayout, asked: RowLayout) -> list[str]:
    """Features of `stored` whose values mean nothing under `asked`."""
    meant = dict(zip(asked.features, asked.meaning, strict=True))
    return [
        feature[0] for feature, how in zip(stored.features, stored.meaning, strict=True) if meant.get(feature) != how
    ]


def _same_entity(one: RowLayout, other: RowLayout) -> bool:
    return sorted(one.keys) == sorted(other.keys)


def encode_kept(kept: Kept) -> bytes:
    return msgspec.msgpack.encode(kept)


def kept_views(data: Mapping[bytes, bytes]) -> KeptViews:
    """The views from the hash that holds them."""
    views = {name.decode(): msgspec.msgpack.decode(each, type=Kept) for name, each in data.items() if name}
    return KeptViews(data.get(b"", b""), views)


def new_generation() -> bytes:
    """A mark that no other has."""
    return os.urandom(8).hex().encode()
