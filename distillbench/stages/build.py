"""student: the model and tokenizer of a student that is made here."""

from __future__ import annotations

from distillbench.bench import MODEL, Bench
from distillbench.plan.stage import Pace, Stage, alike
from distillbench.protocols import Progress, Student
from distillbench.records import Choice
from distillbench.stages.weights import weight_files
from distillbench.store.store import Made


class Build(Stage):
    """Makes a student that is made here.

    Attributes:
        student: Whose `build` makes it.
    """

    kind = "student"
    is_heavy = True

    student: Choice

    def pace(self) -> Pace:
        """One student."""
        return Pace(1.0, alike(self.kind, self.student))

    def run(self, bench: Bench, progress: Progress) -> Made:
        """Has the student write its files."""
        student: Student = bench.catalog.build(self.student)
        work = bench.store.work(self)
        (work / MODEL).mkdir(exist_ok=True)
        with bench.catalog.blaming(self.student):
            student.build(work / MODEL, bench.context(self, self.student, progress))
        return Made(weight_files(work), {})
