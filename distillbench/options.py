"""Turns plain mappings into a component's `Options`, and says in words what is wrong with them.

pydantic does the checking; it is imported by the first value that is checked, so that `distillbench --help` never
pays for it.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union

from distillbench.errors import DEFAULT, Mistake, Place, PluginError, nearest
from distillbench.fingerprint import expanded

_MOST_SHOWN = 80  # characters of a wrong value that a message repeats

_WORDS: Mapping[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false values"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
    Path: ("a path", "paths"),
    type(None): ("null", "nulls"),
    Any: ("anything", "values"),
}
_SIGNS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))


@dataclass(frozen=True, slots=True)
class Given:
    """One value that somebody wrote for an option.

    Attributes:
        value: Plain data, as YAML gives it.
        origin: Where it stands, as a user is told of it when it is right: `matrix.yaml:4: defaults.trainer.lr`.
        exact: Where it stands, as a user is told of it when it is wrong; None for the same.
        folder: What a relative path in it is relative to; None for the process's own folder.
    """

    value: Any
    origin: Place
    exact: Place | None = None
    folder: Path | None = None

    @property
    def place(self) -> Place:
        """Where a mistake about it points to."""
        return self.exact or self.origin


@dataclass(frozen=True, slots=True)
class OptionField:
    """One option of a component.

    Attributes:
        name: What a matrix calls it.
        annotation: Its type.
        required: Whether it has no default.
        default: Its default; None when it is required.
        in_key: False when it only affects speed or memory.
        is_shown: False where its value may be a secret, which no message repeats.
        component: The kind of component that it names; None where it names none.
        fits: The option whose component it goes with: left out, what fits that one is chosen.
    """

    name: str
    annotation: Any
    required: bool
    default: Any
    in_key: bool
    is_shown: bool = True
    component: str | None = None
    fits: str | None = None

    @property
    def wanted(self) -> str:
        """Its type in words."""
        words = describe(self.annotation)
        if self.component is None:
            return words
        article = "an" if self.component[0] in "aeiou" else "a"
        return words.replace("a string", f"the name of {article} {self.component}")

    def told(self, value: Any) -> str:
        """A wrong value as a message repeats it."""
        return _shown(value) if self.is_shown else f"{type(value).__name__} that is not shown, as it may hold a secret"


@dataclass(frozen=True, slots=True)
class Resolved:
    """What became of some layers of options.

    Attributes:
        options: The `Options` instance; None when there are mistakes.
        origins: For each option, where its value came from.
        mistakes: Everything that is wrong.
    """

    options: Any
    origins: Mapping[str, Place]
    mistakes: tuple[Mistake, ...]


@cache
def fields_of(cls: type) -> Mapping[str, OptionField]:
    """The options of an `Options` dataclass, by name.

    Raises:
        PluginError: A type that it names cannot be found when it is read.
    """
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except NameError as error:
        raise PluginError(
            f"{cls.__module__}.{cls.__qualname__}: {error}\n"
            f"    import what its options' types name at the module's top level, outside `if TYPE_CHECKING`"
        ) from error
    return {
        entry.name: OptionField(
            name=entry.name,
            annotation=hints[entry.name],
            required=(required := _is_required(entry)),
            default=None if required else _default(entry),
            in_key=bool(entry.metadata.get("key", True)),
            is_shown=bool(entry.metadata.get("shown", True)),
            component=entry.metadata.get("component"),
            fits=entry.metadata.get("fits"),
        )
        for entry in dataclasses.fields(cls)
        if entry.init
    }


def resolve_options(cls: type, layers: Sequence[Mapping[str, Given]], place: Place, owner: str) -> Resolved:
    """Makes an `Options` instance; a later layer's value replaces an earlier one's.

    Every layer is checked, the replaced values too: a mistake does not hide until the value above it goes away.

    Args:
        cls: The `Options` dataclass.
        layers: What was given for some options, from the weakest to the strongest.
        place: The place that a missing option is missing from.
        owner: Whose options they are, for the messages: `trainer 'lora'`.

    Raises:
        PluginError: A type in `cls` is one that cannot be checked.
    """
    known = fields_of(cls)
    origins = dict.fromkeys(known, DEFAULT)
    values: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    for name, given in ((name, given) for layer in layers for name, given in layer.items()):
        if name not in known:
            place_of_name = given.origin if given.origin.file else given.place  # an axis tells all its values once
            mistakes.append(Mistake(place_of_name, f"an option of {owner}", repr(name), nearest(name, known)))
            continue
        value, mistake = _check(cls, known[name], given)
        if mistake:
            mistakes.append(mistake)
        values[name], origins[name] = value, given.origin
    for name, field in known.items():
        if field.required and name not in values:
            mistakes.append(Mistake(place, f"`{name}`: {field.wanted}", "nothing", f"{owner} needs it"))
    if mistakes:
        return Resolved(None, origins, tuple(mistakes))
    try:
        return Resolved(cls(**values), origins, ())
    except (ValueError, OSError) as error:  # an OSError: `Options` that look at a path no system could have
        wanted, hint = f"options of {owner} that go together", _given_values(known, values, origins)
        return Resolved(None, origins, (Mistake(place, wanted, str(error), hint),))


def _given_values(known: Mapping[str, OptionField], values: Mapping[str, Any], origins: Mapping[str, Place]) -> str:
    """What was given, and where, as a hint; empty where nothing was that can be shown."""
    shown = {name: value for name, value in values.items() if known[name].is_shown}
    told = ", ".join(f"{name}={_shown(value)} ({origins[name]})" for name, value in shown.items())
    return f"given: {told}" if shown else ""


def describe(annotation: Any) -> str:
    """A type in words: `a number > 0`, `one of: lora, full`, `a list of strings or null`."""
    return _words(annotation)[0]


def _check(cls: type, field: OptionField, given: Given) -> tuple[Any, Mistake | None]:
    """The value as its type wants it, or the mistake."""
    import pydantic

    try:
        # JSON mode is strict about types and yet takes lists for tuples and strings for paths.
        text = json.dumps(given.value, allow_nan=False)
        value = _adapter(cls, field.name).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        return None, _wrong(field, given, error.errors(include_url=False, include_context=False)[0]["loc"])
    except ValueError:  # from `dumps`: an infinity or a NaN, which have no place in a key
        return None, Mistake(given.place, f"{field.wanted}, finite", field.told(given.value))
    except TypeError:  # from `dumps`: a date, a set or a `!function`, which a task's YAML can hold
        return None, Mistake(given.place, field.wanted, field.told(given.value), "write a plain value")
    if any("\0" in str(path) for path in _paths(value)):
        return None, Mistake(given.place, field.wanted, field.told(given.value), "no path holds a NUL")
    return (_anchored(value, given.folder) if given.folder else value), None


@cache
def _adapter(cls: type, name: str) -> Any:
    import pydantic

    try:
        return pydantic.TypeAdapter(fields_of(cls)[name].annotation)
    except pydantic.PydanticUserError as error:
        raise PluginError(
            f"{cls.__module__}.{cls.__qualname__}.{name}: not a type an option can have: {error.message}"
        ) from error


def _wrong(field: OptionField, given: Given, location: Sequence[str | int]) -> Mistake:
    items = [step for step in location if isinstance(step, int)]
    got = field.told(given.value) + (f", wrong at item {items[0] + 1}" if items else "")
    return Mistake(given.place, field.wanted, got, _hint(field.annotation, given.value) if field.is_shown else "")


def _hint(annotation: Any, value: Any) -> str:
    if isinstance(value, str) and (choices := [text for text in _choices(annotation) if isinstance(text, str)]):
        return nearest(value, choices)
    if isinstance(value, str) and value.lower() in {"yes", "no", "on", "off"} and bool in _members(annotation):
        return "write true or false"
    return ""


def _paths(value: Any) -> Iterator[Path]:
    """Every path in a value."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, tuple | list | dict):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _paths(entry)


def _anchored(value: Any, folder: Path) -> Any:
    """A value whose relative paths start at a folder."""
    if isinstance(value, Path):
        return folder / expanded(value)
    if isinstance(value, tuple | list):
        return type(value)(_anchored(entry, folder) for entry in value)
    if isinstance(value, dict):
        return {key: _anchored(entry, folder) for key, entry in value.items()}
    return value


def _words(annotation: Any) -> tuple[str, str]:
    """A type in words, as one and as many."""
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        one, many = _words(arguments[0])
        limits = _limits(arguments[1:])
        return one + limits, many + limits
    if (choices := list(_choices(annotation))) and _is_one_of(annotation):
        one = "one of: " + ", ".join(_shown(choice) if not isinstance(choice, str) else choice for choice in choices)
        return one, f"values, each {one}"
    if origin in (Union, types.UnionType):
        return " or ".join(describe(entry) for entry in arguments), " or ".join(_words(entry)[1] for entry in arguments)
    return _container_words(origin or annotation, arguments)


def _container_words(origin: Any, arguments: tuple[Any, ...]) -> tuple[str, str]:
    if dataclasses.is_dataclass(origin):
        keys = ", ".join(entry.name for entry in dataclasses.fields(origin))
        return f"a mapping with the keys {keys}", f"mappings with the keys {keys}"
    if not isinstance(origin, type):
        return str(origin), f"values like {origin}"
    if issubclass(origin, Mapping):
        content = f" of {_words(arguments[0])[1]} to {_words(arguments[1])[1]}" if arguments else ""
        return f"a mapping{content}", f"mappings{content}"
    if issubclass(origin, tuple) and arguments and arguments[-1] is not Ellipsis:
        content = ", ".join(describe(entry) for entry in arguments)
        return f"a list holding {content}", f"lists holding {content}"
    if issubclass(origin, Collection):
        content = f" of {_words(arguments[0])[1]}" if arguments else ""
        return f"a list{content}", f"lists{content}"
    return f"a {origin.__name__}", f"{origin.__name__} values"


def _members(annotation: Any) -> Iterator[Any]:
    """The plain types that a type is made of, past `Annotated` and unions."""
    if typing.get_origin(annotation) in (typing.Annotated, Union, types.UnionType):
        arguments = typing.get_args(annotation)
        for entry in arguments[:1] if typing.get_origin(annotation) is typing.Annotated else arguments:
            yield from _members(entry)
    else:
        yield annotation


def _choices(annotation: Any) -> Iterator[Any]:
    """The values that a `Literal` or an `Enum` allows."""
    if typing.get_origin(annotation) is Literal:
        yield from typing.get_args(annotation)
    elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        yield from (member.value for member in annotation)
    elif typing.get_origin(annotation) in (Union, types.UnionType, typing.Annotated):
        for member in _members(annotation):
            yield from _choices(member)


def _is_one_of(annotation: Any) -> bool:
    """Whether there is nothing beside a `Literal` or an `Enum` but null."""
    others = (one for one in _members(annotation) if one is not type(None))
    return all(any(True for _ in _choices(one)) for one in others)


def _limits(constraints: Sequence[Any]) -> str:
    """annotated_types' and pydantic's constraints in words: ` > 0 and <= 1`."""
    found = []
    for constraint in constraints:
        for holder in (constraint, *getattr(constraint, "metadata", ())):
            found += [
                f"{sign} {getattr(holder, name)!r}" for name, sign in _SIGNS if getattr(holder, name, None) is not None
            ]
            if getattr(holder, "pattern", None) is not None:
                found.append(f"matching {holder.pattern}")
            if getattr(holder, "min_length", None):
                found.append(f"of length >= {holder.min_length}")
    return " " + " and ".join(dict.fromkeys(found)) if found else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _is_required(entry: dataclasses.Field[Any]) -> bool:
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def _default(entry: dataclasses.Field[Any]) -> Any:
    return entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
