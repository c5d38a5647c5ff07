"""check: every row of a training against what its checkpoints will be asked, as soon as the rows are there."""

from __future__ import annotations

from dataclasses import field

from distillbench.bench import Bench
from distillbench.plan.plan import Pairing
from distillbench.plan.stage import UNKEYED, Stage
from distillbench.preflight.look import refuse_mismatch
from distillbench.protocols import Progress
from distillbench.stages.render import Render
from distillbench.store.store import Made


class Check(Stage):
    """The preflight of the rows of a training, before anything is trained on them. It leaves no file.

    Attributes:
        rows: What is looked at.
        pairings: What they are compared with.
        looked: Names, by content, everything that is compared, and what the matrix accepts.
    """

    kind = "check"

    rows: Render
    pairings: tuple[Pairing, ...] = field(metadata=UNKEYED)
    looked: tuple[str, ...]

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Looks at all rows.

        Raises:
            StageError: They do not fit what some evaluation will ask.
        """
        renderer = bench.renderer(self.rows.student, self.rows.renderer, self.rows.built)
        refuse_mismatch(self.pairings, bench, renderer)
        return Made((), {"pairings": len(self.pairings)})
