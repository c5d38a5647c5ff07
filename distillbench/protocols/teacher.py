"""Where traces come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice

from distillbench.protocols.component import Component, Context, OptionsT_co
from distillbench.records import Trace


class Teacher(Component[OptionsT_co]):
    """Where traces come from."""

    def task(self) -> str | None:
        """The task whose grader can verify its traces; None where there is none."""
        return None

    @abstractmethod
    def traces(self, context: Context, start: int) -> Iterator[Trace]:
        """Yields traces in a fixed order; each is stored as it comes.

        Args:
            context: What to work with.
            start: How many traces an interrupted run has stored already: they are not made, and not paid for, again.
        """

    def preview(self, context: Context, limit: int) -> Sequence[Trace]:
        """The first traces, where they cost nothing and come in seconds: what `check` renders before anything has run.

        A teacher that reads rows (it has `inputs`) gives the first ones, unless it says otherwise. One that has to be
        paid or that needs a GPU gives none; its rows are checked once they are there.

        Args:
            context: What to work with; its folder is thrown away afterwards.
            limit: How many traces are enough.
        """
        return list(islice(self.traces(context, 0), limit)) if self.inputs() else ()
