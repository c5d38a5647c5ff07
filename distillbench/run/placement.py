"""Whether a plan's stages can run where they are to run."""

from __future__ import annotations

from distillbench.errors import DistillbenchError, Mistake, Place
from distillbench.plan.plan import Plan
from distillbench.protocols import Launcher


def refuse_missing_gpus(plan: Plan, launcher: Launcher) -> None:
    """Refuses a plan that asks for more GPUs than there are: on the CPU it would take weeks, and say nothing.

    Raises:
        DistillbenchError: With the stages that ask for them.
    """
    n_gpus = launcher.capacity().gpus
    asking = [stage for stage in plan.pending() if stage.resources.gpus > n_gpus]
    if not asking:
        return
    wanted = max(stage.resources.gpus for stage in asking)
    names = ", ".join(stage.name for stage in asking[:3]) + (", ..." if len(asking) > 3 else "")
    mistake = Mistake(
        Place(words=f"{len(asking)} stages ask for a GPU that is not there; nothing has run"),
        f"{wanted} GPU{'s' if wanted > 1 else ''}, for {names}",
        f"launcher {launcher.name!r} has {n_gpus or 'none'} here",
        "write `device: cpu` at the student to run without one; GPUs that are here and are not seen can be named in "
        "CUDA_VISIBLE_DEVICES",
    )
    raise DistillbenchError(str(mistake))
