"""The adapters of a session of the `vllm` engine, and those that it has room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from distillbench.errors import StageError
from distillbench_plugins.models.adapters import Adapter

_UNFORESEEN = "it came when the engine was open already, which had been started without room for it"


@dataclass(frozen=True, slots=True)
class Room:
    """What adapters a started engine can hold.

    Attributes:
        rank: The largest rank; 0 where it has room for none.
        modules: The last names of the modules that may be changed.
        most: The largest rank that any engine with these options would have had room for.
    """

    rank: int
    modules: frozenset[str]
    most: int

    def has(self, adapter: Adapter) -> bool:
        """Whether an adapter can be attached."""
        return adapter.rank <= self.rank and self.modules.issuperset(adapter.suffixes)


@dataclass(slots=True)
class Adapters:
    """Reads adapters, each once.

    Attributes:
        known: Those that were there when the engine was started, and what is wrong with spoiled ones.
        read: Reads another.
        room: What the engine can hold.
    """

    known: Mapping[Path, Adapter | StageError]
    read: Callable[[Path], Adapter | StageError]
    room: Room
    _found: dict[Path, Adapter | StageError] = field(default_factory=dict)

    def of(self, path: Path) -> Adapter:
        """An adapter; one for which there happens to be no room is to be merged.

        Raises:
            StageError: It is spoiled, or larger than this engine may hold.
        """
        if path not in self._found:
            self._found[path] = self.known[path] if path in self.known else self.read(path)
        found = self._found[path]
        if isinstance(found, StageError):
            raise found
        if found.why_merge is not None or self.room.has(found):
            return found
        if found.rank > self.room.most:
            raise StageError(
                f"adapter {path} has rank {found.rank}, and this engine has room for {self.room.most}\n"
                f"    hint: raise max_lora_rank of the engine; vLLM's own limit is 512. Above it, merge the adapter "
                f"(`distillbench export CELL@step --merge`) and evaluate the merged checkpoint"
            )
        return replace(found, why_merge=_UNFORESEEN)
