"""Entities: the things features are about, known by one key or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.features.errors import DefinitionError


@dataclass(frozen=True, init=False)
class Entity:
    """What a feature vector belongs to: a driver, or a customer at a merchant.

    Attributes:
        name: the entity's name.
        keys: names of the event columns that together identify one, in the order of lookups.

    Raises:
        DefinitionError: no key, a key twice, a key that is no column name.

    >>> Entity("driver", key="driver_id")
    Entity('driver', keys=['driver_id'])
    >>> Entity("card_at_shop", keys=["card", "shop"]).keys
    ('card', 'shop')
    """

    name: str
    keys: tuple[str, ...]

    def __init__(self, name: str, *, key: str | None = None, keys: Sequence[str] | None = None) -> None:
        if not isinstance(name, str) or not name:
            raise DefinitionError(
                f"Entity: its name must be a word, got {name!r}. Write Entity('driver', key='driver_id')."
            )
        if (key is None) == (keys is None):
            raise DefinitionError(
                f"Entity '{name}': give either key= or keys=. Write Entity('{name}', key='{name}_id') "
                f"or Entity('{name}', keys=['a', 'b'])."
            )
        if isinstance(keys, str):
            raise DefinitionError(
                f"Entity '{name}': keys= is a list of names, got {keys!r}. For one key use key={keys!r}."
            )
        names = (key,) if key is not None else tuple(keys or ())
        if not names:
            raise DefinitionError(f"Entity '{name}': keys= is empty. Name at least one column of the event.")
        for each in names:
            if not isinstance(each, str) or not each.isidentifier():
                raise DefinitionError(
                    f"Entity '{name}': key {each!r} is no column name. Give the name of the event's column as text."
                )
        if len(set(names)) != len(names):
            raise DefinitionError(f"Entity '{name}': a key is named twice in {list(names)}. Name each once.")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "keys", names)

    def __repr__(self) -> str:
        return f"Entity({self.name!r}, keys={list(self.keys)!r})"
