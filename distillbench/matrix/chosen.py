"""What is chosen where a user leaves it open: the renderer, the engine, a known model's options.

`run` and `eval` choose alike. Everything that is chosen is told, and gives way to whatever is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distillbench.catalog import Catalog
from distillbench.errors import DistillbenchError, Place, StageError
from distillbench.matrix.model_files import ModelFiles, read_model
from distillbench.options import Given, fields_of
from distillbench.protocols import Component, Engine, Renderer, Student

#: The renderer of any model with a chat template, and that of models without one.
GENERIC, TEMPLATELESS = "chat-template", "plain"
#: The engine where no registered one ranks itself.
_PLAIN_ENGINE = "transformers"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A component that nobody named.

    Attributes:
        name: Its name.
        why: Why it was chosen, in words.
        options: What goes with it.
    """

    name: str
    why: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        options = "".join(f", {name}: {value}" for name, value in self.options.items())
        return f"{self.name}{options} ({self.why})"


def renderer_of(files: ModelFiles, catalog: Catalog) -> Chosen:
    """The renderer that fits a model's chat template."""
    if files.template is None:
        return Chosen(TEMPLATELESS, "the model has no chat template")
    for name, cls in catalog.kind("renderer").items():
        if issubclass(cls, Renderer) and files.template_digest in cls.templates:
            return Chosen(name, "the model has its chat template")
    unknown = "of no family that is known by its template"
    if files.has_think_tokens:
        return Chosen(GENERIC, unknown)
    return Chosen(GENERIC, f"{unknown}; no think tokens", {"reasoning": "text"})


def renderer_of_student(student: Student, catalog: Catalog) -> Chosen:
    """The renderer that fits a student whose files can be read; the generic one where they cannot."""
    try:
        source = student.source(None)
        return renderer_of(read_model(source.name, source.revision), catalog)
    except StageError:
        return Chosen(GENERIC, "the student does not say where its files are")
    except DistillbenchError:
        return Chosen(GENERIC, "the model's files cannot be read from here; name a renderer to be independent of that")


def engine_of(student: Student, catalog: Catalog) -> Chosen:
    """The best engine that can serve a student on this machine."""
    ranked = sorted(_engines(catalog), key=lambda found: -found[1].rank)
    refused: list[str] = []
    for name, engine in ranked:
        why_not = engine.why_not(student)
        if not why_not:
            why = engine.why(student) or "; ".join(dict.fromkeys(refused)) or "the only engine there is"
            return Chosen(name, why)
        refused.append(why_not)
    return Chosen(_PLAIN_ENGINE, "; ".join(dict.fromkeys(refused)) or "nothing else is there")


def _engines(catalog: Catalog) -> Iterator[tuple[str, Engine]]:
    """The engines that may be chosen, with their default options."""
    for name, cls in catalog.kind("engine").items():
        if issubclass(cls, Engine) and cls.rank:
            yield name, cls(cls.Options())


def preset_of(cls: type[Component], options: Mapping[str, Given], catalog: Catalog) -> tuple[str, dict[str, Given]]:
    """The options that a student registered under a name of its own has for the Hub id that is given.

    Args:
        cls: The component that the entry uses: one that takes any model.
        options: What the entry says.
        catalog: The registered components.

    Returns:
        The name of the preset, and its options; an empty name where the model is none that is known.
    """
    given = options.get("model")
    if given is None or not isinstance(given.value, str):
        return "", {}
    for name, known in catalog.kind("student").items():
        own = fields_of(known.Options)
        is_one = known is not cls and issubclass(known, cls) and "model" in own
        if is_one and str(own["model"].default).lower() == given.value.lower():
            general = fields_of(cls.Options)
            return name, {
                option: Given(_as_yaml(entry.default), Place(words=f"preset {name}"))
                for option, entry in own.items()
                if option in general and option != "model" and entry.default != general[option].default
            }
    return "", {}


def _as_yaml(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
