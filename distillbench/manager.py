"""Makes the plugin manager. There is no global one: the command line, a worker or a test makes its own.

Built-ins go through the same registration as third parties. Nothing is skipped silently: a plugin that fails to
import, a hook without `@hookimpl`, a misspelled hook and a wrong argument name each stop the program.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pluggy

from distillbench import hookspecs
from distillbench.errors import PluginError, nearest

ENTRY_POINT_GROUP = "distillbench"
BLOCK_VARIABLE = "DISTILLBENCH_BLOCK_PLUGINS"
PREFIX = "distillbench_"

BUILTIN_MODULES = (
    "distillbench.cli.run",
    "distillbench.cli.eval",
    "distillbench.cli.export",
    "distillbench.cli.gc",
    "distillbench.cli.plan",
    "distillbench.cli.show",
    "distillbench.cli.check",
    "distillbench.cli.tasks",
    "distillbench.cli.tokens",
    "distillbench.cli.report",
    "distillbench.cli.samples",
    "distillbench.cli.status",
    "distillbench.cli.data",
    "distillbench.cli.plugins",
    "distillbench.cli.init",
    "distillbench_plugins.teachers.asking",
    "distillbench_plugins.teachers.synthetic",
    "distillbench_plugins.students.hf",
    "distillbench_plugins.students.tiny_qwen3",
    "distillbench_plugins.students.hosted",
    "distillbench_plugins.renderers.chat",
    "distillbench_plugins.renderers.qwen",
    "distillbench_plugins.renderers.llama3",
    "distillbench_plugins.renderers.r1_distill",
    "distillbench_plugins.renderers.plain",
    "distillbench_plugins.renderers.hosted",
    "distillbench_plugins.filters.max_tokens",
    "distillbench_plugins.filters.correct_only",
    "distillbench_plugins.trainers.sft",
    "distillbench_plugins.trainers.existing",
    "distillbench_plugins.benchmarks.math_boxed",
    "distillbench_plugins.benchmarks.lm_eval_metric",
    "distillbench_plugins.benchmarks.judge",
    "distillbench_plugins.benchmarks.code_evalplus",
    "distillbench_plugins.benchmarks.code_kodcode",
    "distillbench_plugins.benchmarks.code_livecodebench",
    "distillbench_plugins.benchmarks.code_codeforces",
    "distillbench_plugins.engines.transformers",
    "distillbench_plugins.engines.vllm",
    "distillbench_plugins.engines.api",
    "distillbench_plugins.launchers.local",
    "distillbench_tasks",
)


class DistillbenchManager(pluggy.PluginManager):
    """A pluggy manager that knows distillbench's hooks and refuses functions that only look like them."""

    def __init__(self) -> None:
        super().__init__("distillbench")
        self.add_hookspecs(hookspecs)
        self.distributions: dict[str, str] = {}  # by plugin, who brought it

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> pluggy.HookimplOpts | None:
        """Refuses a hook-named function that lacks `@hookimpl`, which pluggy would ignore."""
        options = super().parse_hookimpl_opts(plugin, name)
        if options is None and name.startswith(PREFIX) and callable(getattr(plugin, name)):
            raise PluginError(
                f"plugin {_describe(plugin)}: {name} has no @hookimpl, so it would never be called\n"
                f"    put `from distillbench.hookspecs import hookimpl` and `@hookimpl` before it, or rename it"
            )
        return options


def make_manager(block: Iterable[str] = (), builtins: Iterable[str] = BUILTIN_MODULES) -> DistillbenchManager:
    """Makes a manager with the built-ins and every installed plugin.

    Args:
        block: Names of plugins to leave out; those in `DISTILLBENCH_BLOCK_PLUGINS` (comma separated) are added.
        builtins: The module names of the built-in plugins.

    Raises:
        PluginError: A plugin cannot be imported, a hook of it is not what `hookspecs` says, or a name to block is
            that of no plugin.
    """
    manager = DistillbenchManager()
    modules = {short_name(module_name): module_name for module_name in builtins}
    entry_points = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    known = [*modules, *(entry_point.name for entry_point in entry_points)]
    for name in sorted({*block, *_blocked_by_environment()}):
        if name not in known:
            raise PluginError(f"no plugin is named {name!r}, so it cannot be blocked; {nearest(name, known)}")
        manager.set_blocked(name)
    for name, module_name in modules.items():
        if not manager.is_blocked(name):
            register(manager, importlib.import_module(module_name), name)
    for entry_point in entry_points:
        if not manager.is_blocked(entry_point.name):
            register(manager, _load(entry_point), entry_point.name)
            manager.distributions[entry_point.name] = _distribution(entry_point)
    _refuse_unknown_hooks(manager)
    return manager


def _blocked_by_environment() -> list[str]:
    return [name.strip() for name in os.environ.get(BLOCK_VARIABLE, "").split(",") if name.strip()]


def short_name(module_name: str) -> str:
    """The name a built-in is blocked by: `teachers.synthetic`, `cli.run`."""
    return module_name.removeprefix("distillbench_plugins.").removeprefix("distillbench.")


def register(manager: DistillbenchManager, plugin: ModuleType | object, name: str) -> None:
    """Registers one plugin.

    Raises:
        PluginError: A hook takes an argument that its specification has not, or the name is taken.
    """
    try:
        manager.register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {name!r}: {error}\n    {_how_to_block(name)}") from error
    except ValueError as error:
        raise PluginError(f"two plugins are named {name!r}: {error}\n    {_how_to_block(name)}") from error


def _load(entry_point: importlib.metadata.EntryPoint) -> Any:
    try:
        return entry_point.load()
    except (Exception, SystemExit) as error:  # whatever a third party's import raises stops the program, with its name
        raise PluginError(
            f"plugin {entry_point.name!r} of {_distribution(entry_point)} ({entry_point.value}) cannot be imported\n"
            f"    cause: {type(error).__name__}: {error}\n"
            f"    {_how_to_block(entry_point.name)}"
        ) from error


def _distribution(entry_point: importlib.metadata.EntryPoint) -> str:
    return entry_point.dist.name if entry_point.dist else "unknown distribution"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one plugin's hook returned, or what went wrong in it.

    Attributes:
        plugin: The plugin's name.
        value: What it returned; where it is a generator and raised, what had come of it; None where nothing had.
        error: Names the plugin, its distribution and its module; None where it returned.
    """

    plugin: str
    value: Any = None
    error: PluginError | None = None


def ask_each(manager: pluggy.PluginManager, hook: str, **arguments: Any) -> Iterator[Answer]:
    """Calls a hook of each plugin by itself, so that what one raises costs no other its call, last registered first."""
    everyone = manager.get_plugins()
    for implementation in reversed(getattr(manager.hook, hook).get_hookimpls()):
        plugin, name = implementation.plugin, implementation.plugin_name
        caller = manager.subset_hook_caller(hook, everyone - {plugin})
        came: list[Any] = []
        try:
            value = next(iter(caller(**arguments)), None)
            if isinstance(value, Iterator):  # a generator runs now, while it is known whose it is
                came.extend(value)
                value = came
            answer = Answer(name, value)
        except (Exception, SystemExit) as error:  # a plugin may raise anything; it is said which one
            answer = Answer(name, came or None, hook_error(manager, name, hook, error))
        yield answer


def hook_error(manager: pluggy.PluginManager, name: str, hook: str, error: BaseException | str) -> PluginError:
    """An error that names the plugin whose hook it comes from."""
    why = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    made = PluginError(f"plugin {whose(manager, name)}, {hook}: {why}\n    {_how_to_block(name)}")
    made.__cause__ = None if isinstance(error, str) else error
    return made


def whose(manager: pluggy.PluginManager, name: str) -> str:
    """A plugin by name, distribution and module."""
    plugin = manager.get_plugin(name)
    module = getattr(plugin, "__name__", type(plugin).__module__)
    distribution = getattr(manager, "distributions", {}).get(name, module.partition(".")[0])
    return f"{name!r} of {distribution} ({module})"


def _refuse_unknown_hooks(manager: DistillbenchManager) -> None:
    known = [name for name in vars(hookspecs) if name.startswith(PREFIX)]
    for plugin_name, plugin in manager.list_name_plugin():
        if plugin is None:
            continue
        for caller in manager.get_hookcallers(plugin) or ():
            if caller.name not in known:
                raise PluginError(
                    f"plugin {plugin_name!r}: no hook is named {caller.name!r}; {nearest(caller.name, known)}\n"
                    f"    {_how_to_block(plugin_name)}"
                )


def _how_to_block(name: str) -> str:
    return f"to go on without it: -p no:{name}, or {BLOCK_VARIABLE}={name}"


def _describe(plugin: Any) -> str:
    return getattr(plugin, "__name__", type(plugin).__name__)
