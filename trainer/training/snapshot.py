"""Copies of a training's tensors in host memory, which a thread can write while the steps change the originals."""

from typing import Any

import torch

from srshards.process.shortages import is_out_of_memory


class Snapshot:
    """Host memory for a copy of a nested state. It is allocated once, and page-locked for tensors on a GPU."""

    def __init__(self) -> None:
        self._memory: dict[tuple[Any, ...], torch.Tensor] = {}  # by the keys that lead to the tensor

    def take(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return the state with its tensors copied after the work queued so far. Overwrites the previous copy.

        `state` consists of dicts, lists and tuples; the strides of its tensors are kept. The caller's thread makes all
        CUDA calls, because a call of another thread could invalidate the capture of a CUDA graph.
        """
        devices: set[torch.device] = set()
        try:
            copied: dict[str, Any] = self._copy(state, (), devices)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise MemoryError from error
            raise
        for device in devices:
            torch.cuda.current_stream(device).synchronize()
        return copied

    def _copy(self, value: Any, keys: tuple[Any, ...], devices: set[torch.device]) -> Any:
        if isinstance(value, dict):
            return {key: self._copy(inner, (*keys, key), devices) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._copy(inner, (*keys, number), devices) for number, inner in enumerate(value))
        if not isinstance(value, torch.Tensor):
            return value
        if value.is_cuda:
            devices.add(value.device)
        memory = self._memory.get(keys)
        if memory is None:
            memory = self._memory[keys] = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        return memory.copy_(value.detach(), non_blocking=True)
