"""What there is to choose from: every component that the plugins declare, by kind and name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import pluggy

from distillbench.errors import DistillbenchError, PluginError
from distillbench.manager import whose
from distillbench.protocols import COMPONENT_KINDS, Component
from distillbench.records import Choice

_T = TypeVar("_T")


class Catalog:
    """The components of one plugin manager."""

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self.manager = manager
        self._kinds = {kind: self._collect(kind) for kind in COMPONENT_KINDS}

    def kind(self, kind: str) -> Mapping[str, type[Component]]:
        """The classes of one kind, by name."""
        return self._kinds[kind]

    def provider(self, kind: str, name: str) -> str:
        """The name of the plugin that declares a component."""
        return self._providers[kind, name]

    def build(self, choice: Choice) -> Any:
        """The component that a cell chose."""
        return self._kinds[choice.kind][choice.component](choice.options)

    def needed(self, choice: Choice) -> dict[str, Any]:
        """The components that a chosen one needs, by the option that names each."""
        return {name: self.build(one) for name, one in choice.components.items()}

    @contextmanager
    def blaming(self, choice: Choice) -> Iterator[None]:
        """Names the component, and the plugin that it is of, in whatever it raises.

        Raises:
            PluginError: It raised something that is not meant for users.
        """
        try:
            yield
        except DistillbenchError:
            raise
        except Exception as error:  # a plugin may raise anything
            plugin = whose(self.manager, self.provider(choice.kind, choice.component))
            raise PluginError(
                f"{type(error).__name__}: {error}\n    in {choice.kind} {choice.component!r} of plugin {plugin}"
            ) from error

    def given_by(self, choice: Choice, values: Iterable[_T]) -> Iterator[_T]:
        """What a component gives one by one; what it raises meanwhile is named as by `blaming`."""
        iterator, end = iter(values), object()
        while True:
            with self.blaming(choice):
                value = next(iterator, end)
            if value is end:
                return
            yield cast(_T, value)

    @cached_property
    def task_roots(self) -> tuple[Path, ...]:
        """Folders of task YAML that the plugins bring."""
        groups = self.manager.hook.distillbench_task_roots()
        return tuple(Path(str(root)) for group in groups for root in group)

    @cached_property
    def _providers(self) -> dict[tuple[str, str], str]:
        return {}

    def _collect(self, kind: str) -> dict[str, type[Component]]:
        found: dict[str, type[Component]] = {}
        caller = getattr(self.manager.hook, f"distillbench_{kind}s")
        for implementation in caller.get_hookimpls():
            for component in _declared(implementation, kind):
                _validate(component, kind, implementation.plugin_name)
                if component.name in found:
                    other = self._providers[kind, component.name]
                    raise PluginError(
                        f"{kind} {component.name!r} is declared by two plugins: {other!r} and "
                        f"{implementation.plugin_name!r}\n    block one of them with -p no:NAME"
                    )
                found[component.name] = component
                self._providers[kind, component.name] = implementation.plugin_name
        return found


def _declared(implementation: pluggy.HookImpl, kind: str) -> list[Any]:
    """What a plugin's hook returns for a kind."""
    try:
        found = implementation.function()
    except Exception as error:  # a plugin's hook may raise anything; it is said which plugin's
        problem = f"{type(error).__name__}: {error}"
        raise PluginError(f"plugin {implementation.plugin_name!r}, {kind}s: {problem}") from error
    if isinstance(found, type | str) or not isinstance(found, Iterable):
        raise PluginError(f"plugin {implementation.plugin_name!r}, {kind}s: wanted a list of classes, got {found!r}")
    return list(found)


def _validate(component: Any, kind: str, plugin_name: str) -> None:
    """Refuses what is not a component class of this kind."""
    base = COMPONENT_KINDS[kind]
    problem = None
    if not (isinstance(component, type) and issubclass(component, base)):
        problem = f"{component!r} is not a subclass of distillbench.protocols.{base.__name__}"
    elif not isinstance(getattr(component, "name", None), str):
        problem = f"{component.__qualname__} has no `name`"
    elif not dataclasses.is_dataclass(component.Options):
        problem = f"the options of {component.__qualname__} are not a dataclass: {component.Options!r}"
    elif not (component.__doc__ or "").strip():
        problem = f"{component.__qualname__} has no docstring; its first line is its summary"
    elif missing := component.lacks():
        problem = f"{component.__qualname__} lacks {', '.join(f'{name}()' for name in missing)}"
    if problem:
        raise PluginError(f"plugin {plugin_name!r}, {kind}s: {problem}")
