"""What a report reads of a store: what is finished, still holds, and is not damaged."""

from __future__ import annotations

import json
import time
from calendar import timegm
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillbench.errors import DamagedError
from distillbench.outcomes import GRADER_ERROR
from distillbench.plan.stage import Stage
from distillbench.report.results import NllPoint
from distillbench.report.scores import Scores
from distillbench.report.stored import StoredSamples
from distillbench.stages.grade import Grade
from distillbench.store.failures import failure
from distillbench.store.rows import METRICS, SAMPLES, VERDICTS, iterate
from distillbench.store.store import FINISHED_AT, Store

#: Characters of an error.
_MOST_SHOWN = 160


class Reader:
    """Reads a store, and notes what is damaged in the place of failing.

    Args:
        store: Which one.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._damaged: dict[str, str] = {}
        self._current: dict[str, bool] = {}
        self._scores: dict[str, Scores] = {}

    def is_there(self, stage: Stage) -> bool:
        """Whether a stage has a result whose manifest can be read."""
        return self._store.lookup(stage) is not None

    def is_current(self, stage: Stage) -> bool:
        """Whether a result was made from the results that its needs have now; what is not there says nothing."""
        if stage.key not in self._current:
            own = self._store.lookup(stage)
            self._current[stage.key] = own is None or all(
                self.is_current(need) and self._store.digest(need) in (None, own.inputs.get(need.key))
                for need in stage.needs
            )
        return self._current[stage.key]

    def failure(self, stage: Stage) -> str | None:
        """Why the last attempt at a stage failed; None where none did, or where there is nothing left to do."""
        why = failure(self._store, stage)
        found = None if why is None else self._store.lookup(stage)
        is_done = found is not None and not found.holes and self.is_current(stage)
        return None if is_done else why

    def damage(self, stage: Stage) -> str | None:
        """What is wrong with a stage's result as far as it was read, in words; None where nothing is."""
        return self._damaged.get(stage.key) or self._store.damage(stage)

    def facts(self, stage: Stage) -> Mapping[str, Any]:
        """The facts of a result; none where there is no result."""
        return self._store.facts(stage) or {}

    def holes(self, stage: Stage) -> int:
        """How many samples of a result are missing."""
        found = self._store.lookup(stage)
        return found.holes if found else 0

    def why_holes(self, stage: Stage) -> tuple[str, str]:
        """What could not be done with the samples of a stage, and the commonest reason, on one line."""
        done, name = ("graded", VERDICTS) if isinstance(stage, Grade) else ("generated", SAMPLES)
        path = self._file(stage, name)
        if path is None:
            return "read", ""
        if isinstance(stage, Grade):
            rows = iterate(path, ("outcome", "detail"))
            failed = (row["detail"] for row in rows if row["outcome"] == GRADER_ERROR)
        else:
            failed = (row["error"] for row in iterate(path, ("error",)) if row["error"])
        words = Counter(" ".join(why.split())[:_MOST_SHOWN] for why in failed).most_common(1)
        return done, words[0][0] if words else ""

    def device(self, stage: Stage) -> str | None:
        """What a stage's engine ran on, in its words."""
        device = self.facts(stage).get("engine", {}).get("device")
        return None if device is None else str(device)

    def processor(self, stage: Stage) -> str | None:
        """What a stage was given to run on."""
        gpus = (self._store.usable(stage) or {}).get("about", {}).get("granted", {}).get("gpus")
        return None if gpus is None else f"{gpus} GPU" if gpus else "cpu"

    def finished_at(self, stage: Stage) -> int:
        """When a result was made, in UNIX seconds; 0 where there is none."""
        manifest = self._store.usable(stage)
        return 0 if manifest is None else timegm(time.strptime(manifest["finished_at"], FINISHED_AT))

    def samples(self, grade: Grade) -> StoredSamples | None:
        """The graded samples of a stage; None where there are none that still hold."""
        if not self.is_there(grade) or not self.is_current(grade):
            return None
        verdicts, samples = self._file(grade, VERDICTS), self._file(grade.sample, SAMPLES)
        if verdicts is None or samples is None:
            return None
        return StoredSamples(verdicts, samples, grade.budget is not None)

    def scores(self, grade: Grade, stored: StoredSamples) -> Scores:
        """The numbers of these samples; cells share their baselines, which are read once."""
        if grade.key not in self._scores:
            self._scores[grade.key] = stored.scores()
        return self._scores[grade.key]

    def place(self, stage: Stage) -> str:
        """A stage's folder, seen from the store's."""
        return self._store.folder(stage).relative_to(self._store.root).as_posix()

    def losses(self, train: Stage) -> tuple[NllPoint, ...]:
        """The loss curve of a training; nothing where it left none."""
        path = self._file(train, METRICS) if self._store.has(train, METRICS) else None
        if path is None:
            return ()
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return tuple(
            NllPoint(row["step"], row.get("train_loss"), row.get("held_out_nll"), row.get("held_out_tokens"))
            for row in rows
        )

    def _file(self, stage: Stage, name: str) -> Path | None:
        """A file of a result; None where it is damaged, which the cells that need it are told."""
        try:
            return self._store.file(stage, name)
        except DamagedError as error:
            self._damaged[stage.key] = f"{error.path} {error.why}"
            return None
