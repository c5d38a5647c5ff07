"""The `hosted` student: a model that is only reached through an API."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Student
from distillbench.records import ModelSource, Resources
from distillbench_plugins.servers.options import check_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class HostedOptions:
    """Options of the `hosted` student.

    Attributes:
        model: The model's name at the API. Pin a dated name: an alias moves, and a key does not notice.
        renderer: The renderer a matrix gets when it names none.
    """

    model: str
    renderer: str = "hosted"

    def __post_init__(self) -> None:
        """Refuses a key in the place of the name."""
        check_model(self.model)


class HostedStudent(Student[HostedOptions]):
    """A model that is only reached through an API: it is evaluated by the `api` engine, and cannot be trained."""

    name = "hosted"
    has_tokenizer = False

    def renderer(self) -> str:
        """The renderer named in the options."""
        return self.options.renderer

    def served_name(self, built: Path | None) -> str:
        """The model's name at the API."""
        return self.options.model

    def preview_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """None: there is none, and there will be none."""
        return None

    def load_tokenizer(self, built: Path | None) -> PreTrainedTokenizerBase:
        """There is none.

        Raises:
            StageError: Always.
        """
        self._refuse("has no tokenizer here", "set `renderer: hosted`, which needs none")

    def load_model(self, built: Path | None, device: str, weights: Path | None = None) -> Any:
        """There is none.

        Raises:
            StageError: Always.
        """
        self._refuse(
            "has no weights here, so that it can neither be trained nor loaded",
            "evaluate it untouched with `engine: api`; to train, name a student with weights, such as `hf`",
        )

    def source(self, built: Path | None) -> ModelSource:
        """There is none.

        Raises:
            StageError: Always.
        """
        self._refuse("has no files here that an engine could load", "set `engine: api`")

    def resources(self) -> Resources:
        """Next to nothing: the work is done elsewhere."""
        return Resources(cpus=1, gpus=0, memory_gb=0.5)

    def _refuse(self, what: str, hint: str) -> NoReturn:
        raise StageError(f"student {self.options.model!r} is reached through an API and {what}\n    hint: {hint}")


@hookimpl
def distillbench_students() -> Iterable[type[Student]]:
    """Any model behind an API."""
    return [HostedStudent]
