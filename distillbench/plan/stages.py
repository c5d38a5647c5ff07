"""A stage is what runs. Its key says everything that decides its result, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal

from distillbench.fingerprint import canonical_json, key_of
from distillbench.records import Cell, Choice, Evaluation, PreflightRules, Resources, Sampling

#: Part of every key; bumped when the meaning of stages or of their files changes.
KEY_FORMAT = 2
#: In the order in which data flows.
KINDS = ("student", "traces", "verify", "curate", "train", "sample", "grade")

_PENALTIES = frozenset({"repetition_penalty", "presence_penalty"})

State = Literal["done", "todo", "stale", "holes", "waits"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One unit of work whose result is stored under its key.

    Attributes:
        key: Names the result in the store.
        kind: One of `KINDS`.
        label: What a person reads.
        roles: The components and evaluations it uses, by role.
        params: Plain values it uses.
        needs: The keys of the stages whose results it reads, by their kind.
        extras: What else it reads; not in the key, because roles, params and needs already hold its meaning.
        session: Stages of one session run together in one process.
        resources: What it asks of the machine.
    """

    key: str
    kind: str
    label: str
    roles: Mapping[str, Any]
    params: Mapping[str, Any]
    needs: Mapping[str, str]
    extras: Mapping[str, Any]
    session: str
    resources: Resources


@dataclass(frozen=True, slots=True)
class Finished:
    """What the store knows of a finished stage.

    Attributes:
        digest: Of its outputs.
        inputs: The digests its inputs had, by key.
        holes: Samples whose generation failed, or whose grader did.
        freed: True when its large checkpoints were deleted after their evaluation.
        seconds: How long it ran.
        facts: Plain values that later stages or reports read, such as the number of kept traces.
    """

    digest: str
    inputs: Mapping[str, str]
    holes: int = 0
    freed: bool = False
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Status:
    """Whether a stage has to run, and why."""

    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Graded:
    """One checkpoint of a cell on one evaluation, and the keys of the stages that sample and grade it.

    Attributes:
        evaluation: The evaluation.
        step: The checkpoint's.
        sample: The key of the stage that samples it.
        grade: The key of the stage that grades it.
        budget: Tokens at which the completions are cut before they are graded; None where they are graded as they are.
    """

    evaluation: Evaluation
    step: int
    sample: str
    grade: str
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """What a preflight looks at together: how a cell's rows are made, and how it is asked. Seeds do not matter.

    Attributes:
        student: The student, with its tokenizer.
        renderer: The renderer.
        evaluations: What it is asked.
        rules: What the matrix lets pass.
        teacher: Whose traces become rows; None for a baseline.
        filters: What traces go through.
        trainer: Who cuts rows, and how; None for a baseline.
        needs: The keys of the stages that make the student, the traces and the kept traces, by kind.
    """

    student: Choice
    renderer: Choice
    evaluations: tuple[Evaluation, ...]
    rules: PreflightRules
    teacher: Choice | None = None
    filters: tuple[Choice, ...] = ()
    trainer: Choice | None = None
    needs: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """The stages of a matrix, needs first, and which cells share them.

    Attributes:
        matrix: The matrix's name.
        cells: The planned cells.
        stages: By key, in an order in which they can run.
        cell_stages: For each cell the keys of its stages.
        graded: For each cell its checkpoints on its evaluations.
        open_cells: Cells whose checkpoints are known only once their traces are curated.
        checks: For each cell what its preflight looks at.
        statuses: By key.
    """

    matrix: str
    cells: tuple[Cell, ...]
    stages: Mapping[str, Stage]
    cell_stages: Mapping[str, tuple[str, ...]]
    graded: Mapping[str, tuple[Graded, ...]]
    open_cells: frozenset[str]
    checks: Mapping[str, Check] = field(default_factory=dict)
    statuses: Mapping[str, Status] = field(default_factory=dict)

    def pending(self) -> list[Stage]:
        """The stages that are not known to be done."""
        return [stage for key, stage in self.stages.items() if self.statuses[key].state != "done"]


def stage_key(kind: str, roles: Mapping[str, Any], params: Mapping[str, Any], needs: Mapping[str, str]) -> str:
    """The key of a stage: components with versions and options, plain values, and the keys it needs."""
    identities = {role: _identity(value) for role, value in roles.items()}
    return key_of({"format": KEY_FORMAT, "kind": kind, "roles": identities, "params": params, "needs": needs})


def _identity(value: Any) -> Any:
    if isinstance(value, Choice):
        return _short(value.identity)
    if isinstance(value, tuple):
        return [_identity(entry) for entry in value]
    raise TypeError(f"a stage's role holds {type(value).__name__}")


@lru_cache(maxsize=65536)
def _short(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def effective_sampling(sampling: Sampling) -> Sampling:
    """What of it decides a completion: at temperature 0 no candidate is left out, and no seed is used."""
    if sampling.temperature > 0:
        return sampling
    return Sampling(
        max_tokens=sampling.max_tokens,
        stop=sampling.stop,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
    )


@lru_cache(maxsize=65536)
def sampling_params(evaluation: Evaluation) -> str:
    """Canonical JSON of everything in an evaluation that decides what is sampled.

    What asks for nothing is left out where it came later than stored results, so that these keep their keys.
    """
    drawn = asdict(effective_sampling(evaluation.sampling))
    later = {
        "problems": evaluation.problems,
        "num_fewshot": evaluation.num_fewshot,
        "system": evaluation.system or None,
    }
    return canonical_json(
        {
            "task": evaluation.sample_identity,
            "sampling": {name: value for name, value in drawn.items() if name not in _PENALTIES}
            | evaluation.sampling.penalties,
            "prefill": evaluation.prefill,
            "repeats": evaluation.repeats,
            "limit": evaluation.limit,
            "subset": evaluation.subset if evaluation.limit is not None else None,
        }
        | {name: value for name, value in later.items() if value is not None}
    )
