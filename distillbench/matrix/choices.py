"""Turns the names in a combination into `Choice`s: a component, its options, and its identity."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from distillbench.catalog import Catalog
from distillbench.errors import DEFAULT, Keys, Mistake, Place, PluginError, nearest
from distillbench.fingerprint import canonical_json, digest_path, expanded
from distillbench.matrix.axes import COMPONENT_AXES, Axes
from distillbench.matrix.chosen import GENERIC, Chosen, engine_of, preset_of, renderer_of_student
from distillbench.matrix.expand import Combination, Source
from distillbench.matrix.needed import left_to_fit, names_in, needing
from distillbench.matrix.sections import SECTIONS, Entry, Sections
from distillbench.options import Given, fields_of, resolve_options
from distillbench.protocols import Component, Student
from distillbench.records import Choice

Layers = Sequence[Mapping[str, Given]]
_CHOSEN = Place(words="chosen by the model's files")
_BY_COMPONENTS = "needed by components"
#: The dotted axis values of a combination that reach one component, each known by its place.
Picks = tuple[tuple[str, Source], ...]


class Choices:
    """Resolves components, each (kind, name, axis values that reach it) once.

    Args:
        catalog: The registered components.
        sections: The entries and defaults.
        axes: The `matrix:` section.
        mistakes: Gets what is wrong.
    """

    def __init__(self, catalog: Catalog, sections: Sections, axes: Axes, mistakes: list[Mistake]) -> None:
        self.catalog = catalog
        self.sections = sections
        self.axes = axes
        self.mistakes = mistakes
        self._resolved: dict[tuple[str, str, Picks, str], Choice | None] = {}
        self._default_renderers: dict[str, Chosen | None] = {}
        #: Whose components are being resolved, outermost first.
        self._owners: list[tuple[str, str]] = []
        #: What nobody named, and why it was chosen, by what it was chosen for.
        self.chosen: dict[str, str] = {}

    def of(self, axis: str, combination: Combination) -> Choice | None:
        """The component that an axis names in a combination; None when a mistake is in the way."""
        return self.named(COMPONENT_AXES[axis], combination.values[axis], axis, combination)

    def filters(self, combination: Combination) -> tuple[Choice, ...] | None:
        """The chain of filters of a combination; None when a mistake is in the way."""
        chain = [self.named("filter", label, "filters", combination) for label in combination.values["filters"]]
        whole = tuple(choice for choice in chain if choice)
        return whole if len(whole) == len(chain) else None

    def renderer(self, student: Choice, combination: Combination) -> Choice | None:
        """The renderer that a combination names, or else the one that its student asks for."""
        if "renderer" in combination.values:
            return self.of("renderer", combination)
        if student.identity not in self._default_renderers:
            place = self.axes.place("student", combination.sources["student"])
            self._default_renderers[student.identity] = self._own_renderer(student, place, "an axis `renderer`")
        chosen = self._default_renderers[student.identity]
        return self.named("renderer", chosen.name, "student", combination, chosen.options) if chosen else None

    def engine(self, student: Choice | None, combination: Combination) -> Choice | None:
        """The engine that a combination names, or else the best one that can serve its student."""
        if student is not None and not self.axes.names_engine:
            chosen = engine_of(self.catalog.build(student), self.catalog)
            combination.values["engine"] = chosen.name
            self.chosen[f"engine of {student.label}"] = str(chosen)
        return self.of("engine", combination)

    def named(
        self, kind: str, label: str, axis: str, combination: Combination, chosen: Mapping[str, Any] | None = None
    ) -> Choice | None:
        """The component of a name, under the options that the combination gives it.

        Args:
            kind: Its kind.
            label: An entry's name or a registered component's.
            axis: The axis that led to it.
            combination: One that uses it.
            chosen: Options that were chosen for it; whatever is written outweighs them.
        """
        picks = self.axes.picks(combination, kind, label)
        key = (kind, label, picks, canonical_json(chosen or {}))
        if key not in self._resolved:
            entry = self.sections.entries[kind].get(label)
            place = entry.place if entry else self.axes.place(axis, combination.sources[axis])
            of_choice = {name: Given(value, _CHOSEN) for name, value in (chosen or {}).items()}
            written = entry.options if entry else {}
            layers = (of_choice, self._preset(kind, entry), written, self.axes.layer(combination, picks))
            self._resolved[key] = self._with_defaults(kind, label, layers, place)
        return self._resolved[key]

    def _preset(self, kind: str, entry: Entry | None) -> Mapping[str, Given]:
        """The options of a known model, where a student's entry gives its Hub id."""
        cls = self.catalog.kind(kind).get(entry.component or "") if entry else None
        if kind != "student" or entry is None or cls is None:
            return {}
        name, options = preset_of(cls, entry.options, self.catalog)
        if name:
            told = ", ".join(f"{option}: {one.value}" for option, one in options.items())
            self.chosen[f"student {entry.label}"] = f"{told} (preset {name}, by its Hub id)"
        return options

    def make(self, kind: str, label: str, component: str, layers: Layers, place: Place) -> Choice | None:
        """A registered component under some layers of options; None when a mistake is in the way.

        Raises:
            PluginError: Its `Options` cannot be read, or hold what has no canonical form.
        """
        found = choice_of(self.catalog, kind, label, component, layers, place)
        if isinstance(found, Choice):
            return self._completed(found)
        self.mistakes.extend(found)
        return None

    def _completed(self, owner: Choice) -> Choice | None:
        """A choice with the components that its options name; None when a mistake is in the way."""
        found: dict[str, Choice] = {}
        self._owners.append((owner.kind, owner.label))
        try:
            for name in names_in(owner, self.catalog):
                one = self._needed(name.kind, name.label, name.place)
                if one is None:
                    return None
                found[name.option] = one
            for option, kind, beside in left_to_fit(owner, self.catalog):
                if beside in found:
                    one = self._fitting(kind, found[beside], owner.place)
                    if one is None:
                        return None
                    found[option] = one
        finally:
            self._owners.pop()
        return needing(owner, found) if found else owner

    def _fitting(self, kind: str, student: Choice, place: Place) -> Choice | None:
        """What nobody named and a student goes with; None when a mistake is in the way.

        Raises:
            PluginError: There is no choosing a component of this kind.
        """
        if kind == "engine":
            chosen = engine_of(self.catalog.build(student), self.catalog)
            self.chosen[f"engine of {student.label}"] = str(chosen)
        elif kind != "renderer":
            raise PluginError(f"an option names a {kind} that fits another component: only renderers and engines do")
        elif (found := self._own_renderer(student, place, "a `renderer`")) is None:
            return None
        else:
            chosen = found
        return self._needed(kind, chosen.name, place, chosen.options)

    def _needed(self, kind: str, label: str, place: Place, chosen: Mapping[str, Any] | None = None) -> Choice | None:
        """A component that another one needs, under its entry's options, the defaults, and what was chosen for it."""
        if kind not in COMPONENT_AXES.values():
            raise PluginError(f"an option names a component of kind {kind!r}: it can be one of {[*SECTIONS]}")
        if (kind, label) in self._owners:
            circle = [*self._owners[self._owners.index((kind, label)) :], (kind, label)]
            told = " needs ".join(f"{each} {name!r}" for each, name in circle)
            self.mistakes.append(Mistake(place, "components that do not need themselves", told))
            return None
        key = (kind, label, (), f"{_BY_COMPONENTS} {canonical_json(chosen or {})}")
        if key not in self._resolved and self.check_name(kind, label, place):
            entry = self.sections.entries[kind].get(label)
            of_choice = {name: Given(value, _CHOSEN) for name, value in (chosen or {}).items()}
            layers = (of_choice, self._preset(kind, entry), entry.options if entry else {})
            self._resolved[key] = self._with_defaults(kind, label, layers, entry.place if entry else place)
        return self._resolved.get(key)

    def launcher(self) -> Choice | None:
        """The launcher; None when a mistake is in the way."""
        entry, known = self.sections.launcher, self.catalog.kind("launcher")
        label = entry.component
        if label is None:
            return None
        if label not in known:
            self.mistakes.append(_unknown_component(entry.use_place, "launcher", label, known))
            return None
        return self.make("launcher", label, label, [entry.options], entry.place)

    def check_names(self) -> None:
        """Notes every name that is neither an entry's nor a component's."""
        for kind in COMPONENT_AXES.values():
            known = self.catalog.kind(kind)
            for entry in self.sections.entries[kind].values():
                if entry.component is not None and entry.component not in known:
                    self.mistakes.append(_unknown_component(entry.use_place, kind, entry.component, known))
        for axis, kind in COMPONENT_AXES.items():
            for value, keys in self.axes.uses(axis):
                for name, keys_of_name in _names(axis, value, keys):
                    self.check_name(kind, name, self.axes.document.place(*keys_of_name))
        for key, target in self.axes.targets.items():
            if target.kind == "filter" and target.name is not None:
                self.check_name("filter", target.name, self.axes.document.place(*self.axes.first_place(key)))

    def check_name(self, kind: str, name: str, place: Place) -> bool:
        """Whether a name is an entry's or a registered component's; notes it when it is not."""
        known = {**self.sections.entries[kind], **self.catalog.kind(kind)}
        if name not in known:
            wanted = f"a {kind}: an entry of `{SECTIONS[kind]}`, or a registered {kind}"
            self.mistakes.append(Mistake(place, wanted, repr(name), nearest(name, known)))
        return name in known

    def check_unused(self) -> None:
        """Checks the options of entries that no cell uses, and those defaults that no component has."""
        used = {(kind, label) for kind, label, *_ in self._resolved}
        for kind in COMPONENT_AXES.values():
            for label, entry in self.sections.entries[kind].items():
                cls = self.catalog.kind(kind).get(entry.component or "")
                if cls and entry.component and (kind, label) not in used:
                    owner = _owner(kind, label, entry.component)
                    found = resolve_options(cls.Options, [self._defaults(kind, cls), entry.options], entry.place, owner)
                    self.mistakes.extend(found.mistakes)
            self._check_defaults(kind, {label for each, label in used if each == kind})

    def _check_defaults(self, kind: str, used: set[str]) -> None:
        entries = self.sections.entries[kind]
        components = {entry.component for entry in entries.values()} | {name for name in used if name not in entries}
        known = self.catalog.kind(kind)
        classes = [known.get(component or "") for component in components]
        options = {name for cls in classes if cls for name in fields_of(cls.Options)}
        if kind in self.sections.broken or not all(classes):
            return  # the component that has the option may be the one whose name is wrong
        for name, given in self.sections.defaults[kind].items():
            if name not in options:
                wanted, hint = f"an option of a {kind} that this file uses", nearest(name, options)
                if (kind, name) == ("student", "sampling"):
                    hint = "it stands in a student's entry; what is for all of them stands in `defaults.evaluation`"
                self.mistakes.append(Mistake(given.place, wanted, repr(name), hint))

    def _with_defaults(self, kind: str, label: str, layers: Layers, place: Place) -> Choice | None:
        entry = self.sections.entries[kind].get(label)
        component = entry.component if entry else label
        cls = self.catalog.kind(kind).get(component or "")
        if cls is None or component is None:
            return None  # `check_names` tells of it
        return self.make(kind, label, component, [self._defaults(kind, cls), *layers], place)

    def _defaults(self, kind: str, cls: type[Component]) -> Mapping[str, Given]:
        known = fields_of(cls.Options)
        return {name: given for name, given in self.sections.defaults[kind].items() if name in known}

    def _own_renderer(self, student: Choice, place: Place, instead: str) -> Chosen | None:
        """The renderer that a student asks for, or that fits it; without one, `instead` is wanted."""
        built: Student = self.catalog.build(student)
        label = built.renderer()
        if label is None:
            self.mistakes.append(Mistake(place, f"{instead}, since this student names none", student.label))
            return None
        chosen = Chosen(label, "the student's own")
        if label == GENERIC and student.origins.get("renderer") == DEFAULT:
            chosen = renderer_of_student(built, self.catalog)
            self.chosen[f"renderer of {student.label}"] = str(chosen)
        return chosen if self.check_name("renderer", chosen.name, place) else None


def choice_of(
    catalog: Catalog, kind: str, label: str, component: str, layers: Layers, place: Place
) -> Choice | tuple[Mistake, ...]:
    """A registered component under some layers of options, or what is wrong with these.

    Raises:
        PluginError: Its `Options` cannot be read, or hold what has no canonical form.
    """
    cls = catalog.kind(kind)[component]
    resolved = resolve_options(cls.Options, layers, place, _owner(kind, label, component))
    if resolved.mistakes:
        return resolved.mistakes
    built = cls(resolved.options)
    try:
        digests = [(path.name, digest_path(path, remember=True)) for path in built.inputs()]
    except OSError as error:
        path = Path(error.filename or "")
        giver = _giver_of(path, resolved.options, resolved.origins)
        return (
            Mistake(
                giver if giver and giver.file else place,
                "a file or folder that can be read",
                f"{path}: {error.strerror or error}",
            ),
        )
    return Choice(kind, label, component, resolved.options, identity_of(built, digests), resolved.origins, place)


def _names(axis: str, value: Any, keys: Keys) -> Iterator[tuple[str, Keys]]:
    if axis != "filters":
        yield value, keys
    else:
        yield from ((name, (*keys, index)) for index, name in enumerate(value))


def _owner(kind: str, label: str, component: str) -> str:
    word = "grader" if kind == "benchmark" else kind
    return f"{word} {label!r}" if label == component else f"{word} {label!r} ({component})"


def _unknown_component(place: Place, kind: str, name: str, known: Mapping[str, Any]) -> Mistake:
    return Mistake(place, f"`use:` and the name of a registered {kind}", repr(name), nearest(name, known))


def identity_of(built: Component[Any], digests: list[tuple[str, str]]) -> str:
    """Canonical JSON of what a stage's key holds about a component."""
    options = {
        entry.name: getattr(built.options, entry.name)
        for entry in dataclasses.fields(built.options)
        if entry.metadata.get("key", True)
    }
    if digests:  # what lies at a path counts, not where it lies
        places = built.inputs()
        options = {name: value for name, value in options.items() if not _is_place(value, places)}
    whole = {
        "component": built.name,
        "version": built.version,
        "options": options,
        "inputs": digests,
        "packages": {name: package_version(name) for name in built.packages},
    }
    try:
        return canonical_json(whole)
    except (TypeError, ValueError) as error:
        raise PluginError(f"{type(built).__name__}: its options cannot be part of a key: {error}") from error


def _giver_of(path: Path, options: Any, origins: Mapping[str, Place]) -> Place | None:
    """The place that gave the option which holds a path, or a folder above it."""
    for name, origin in origins.items():
        if origin != DEFAULT and any(path.is_relative_to(each) for each in _paths_in(getattr(options, name))):
            return origin
    return None


def _is_place(value: Any, places: Sequence[Path]) -> bool:
    """Whether an option only says where an input lies: as a path, or as a text such as a model's folder."""
    return any(_paths_in(value)) or (isinstance(value, str) and expanded(value) in places)


def _paths_in(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, tuple | list | set | frozenset):
        for entry in value:
            yield from _paths_in(entry)
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _paths_in(entry)


@cache
def package_version(package: str) -> str | None:
    """A distribution's installed version; None where it is not installed, so that `plan` works without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
