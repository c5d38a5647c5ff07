"""The components that a component needs: an option of it holds the name of each."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from distillbench.catalog import Catalog
from distillbench.errors import Place
from distillbench.fingerprint import canonical_json
from distillbench.options import OptionField, fields_of
from distillbench.records import Choice


@dataclass(frozen=True, slots=True)
class Name:
    """A component's name that an option of another one gives.

    Attributes:
        option: The option.
        kind: The component's kind.
        label: Its name.
        place: Where it was given.
    """

    option: str
    kind: str
    label: str
    place: Place


def names_in(owner: Choice, catalog: Catalog) -> Iterator[Name]:
    """The components that a chosen one names."""
    for field in _fields(owner, catalog):
        label = getattr(owner.options, field.name)
        if field.component is not None and label is not None:
            origin = owner.origins[field.name]
            yield Name(field.name, field.component, label, origin if origin.file else owner.place)


def left_to_fit(owner: Choice, catalog: Catalog) -> Iterator[tuple[str, str, str]]:
    """The options that are left out and have what fits another option's component: option, kind, that other one."""
    for field in _fields(owner, catalog):
        if field.component is not None and field.fits and getattr(owner.options, field.name) is None:
            yield field.name, field.component, field.fits


def needing(owner: Choice, components: Mapping[str, Choice]) -> Choice:
    """A choice whose identity holds, in place of the names that its options give, what these name."""
    identity = json.loads(owner.identity)
    identity["options"] = {name: value for name, value in identity["options"].items() if name not in components}
    identity["components"] = {name: json.loads(one.identity) for name, one in components.items()}
    return dataclasses.replace(owner, identity=canonical_json(identity), components=components)


def _fields(owner: Choice, catalog: Catalog) -> Iterator[OptionField]:
    yield from fields_of(catalog.kind(owner.kind)[owner.component].Options).values()
