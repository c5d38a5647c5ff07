"""What generates completions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from distillbench.protocols.component import Component, Context, OptionsT_co
from distillbench.protocols.student import Student
from distillbench.records import AdapterShape, Batch, Checkpoint, Generation, Prompt, Resources


class EngineSession(Protocol):
    """A base model held in memory, with which every checkpoint of it is sampled.

    Attributes:
        facts: What a report names beside the numbers: the engine's version, the device, the number format.
    """

    @property
    def facts(self) -> Mapping[str, Any]:
        """See above."""

    def prepare(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """Loads a checkpoint as far as needed to be sure that all of it will be applied.

        Returns:
            What a report names: the rank and the number of modules of an adapter; `merged`, with the reason, where the
            engine cannot apply an adapter faithfully and merges it into the weights.

        Raises:
            StageError: It would not be applied, or not all of it: what was expected, and what is there.
        """

    def first_token_logprobs(
        self, prompts: Sequence[Prompt], checkpoint: Checkpoint | None
    ) -> Sequence[Mapping[int, float]]:
        """Log-probabilities of the likeliest first tokens (20 or more) after each prompt, in nats by token id.

        Two calls with the same arguments compute the same way. Never called while `generate` is going on.
        """

    def generate(self, batches: Iterable[Batch]) -> Iterator[tuple[str, Generation]]:
        """Yields (key of the stage, generation) for each request not skipped, as they finish.

        Args:
            batches: Read in the caller's thread, as far ahead as the engine has room for, so that requests of many
                stages and checkpoints may be under way together while memory stays flat. Every checkpoint among them
                has been prepared.

        What fails after its retries is yielded with its `error`. What is raised ends the session.
        """

    def loglikelihood(self, batch: Batch) -> Iterator[Generation]:
        """Yields one generation for each request not skipped, with the log-likelihoods of its continuations.

        Never called while `generate` is going on.
        """


class Engine(Component[OptionsT_co]):
    """Generates completions."""

    #: True where a server computes: the untouched student is then the server's affair, and is not looked at beforehand.
    is_remote: ClassVar[bool] = False
    #: Which is taken where a matrix names none: of those that can serve the student, the one of the highest rank. One
    #: of rank 0 is never taken by itself.
    rank: ClassVar[int] = 0

    def why_not(self, student: Student) -> str:
        """Why it cannot serve a student on this machine; empty where it can. Imports nothing heavy to find out."""
        return ""

    def why(self, student: Student) -> str:
        """What speaks for it, in words; empty where nothing does but that others cannot serve."""
        return ""

    def resources(self, student: Student) -> Resources:
        """What sampling a student needs."""
        return student.resources()

    @abstractmethod
    def open(
        self, student: Student, built: Path | None, checkpoints: Sequence[Checkpoint | AdapterShape], context: Context
    ) -> AbstractContextManager[EngineSession]:
        """Loads the student once, for all its checkpoints. Some of these may come only while the session is open.

        Args:
            student: The student.
            built: The folder its own stage made; None where there is none.
            checkpoints: Every checkpoint that will be asked for, so that limits can be set, and for adapters that are
                still to be trained their shapes, where the trainer tells them. `prepare` may be given others too. A
                spoiled one among them is no reason to fail: `prepare` refuses it by name.
            context: What to work with; `work` is the session's own and stays for its next run.
        """
