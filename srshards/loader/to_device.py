"""Copy batches from the ring to the device."""

import warnings
from contextlib import suppress
from typing import Any

import torch

from srshards.loader.ring import Ring
from srshards.loader.slots import Wait, no_wait


class Transfer:
    """Transfers batches to a device; for a CPU it copies nothing.

    For a CUDA device the ring is page-locked, so that the copy engine reads the slots directly, on a separate stream,
    while the device computes.
    """

    def __init__(self, ring: Ring, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._address = 0
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            memory = torch.from_numpy(ring.all_bytes())
            with torch.cuda.device(self._stream.device):  # the current device at the start, if it has no index
                result = _runtime().cudaHostRegister(memory.data_ptr(), memory.numel(), 0)
            if result == _runtime().cudaError.success:
                self._address = memory.data_ptr()
            else:
                self._use_pageable_memory(result)

    def send(self, host: tuple[torch.Tensor, ...]) -> tuple[tuple[torch.Tensor, ...], Wait]:
        """Return the tensors on the device, and a function that waits until the host memory may be overwritten.

        On a CPU, they are the tensors that were given.

        Work on the device's current stream is ordered after the copy.
        """
        if self._device.type == "cpu":
            return host, no_wait
        if self._stream is None:
            return tuple(tensor.to(self._device) for tensor in host), no_wait
        with torch.cuda.stream(self._stream):
            sent = tuple(tensor.to(self._device, non_blocking=True) for tensor in host)
            arrived = self._stream.record_event()
        current = torch.cuda.current_stream(self._device)
        current.wait_event(arrived)
        for tensor in sent:
            tensor.record_stream(current)  # keep the allocator from reusing its memory before that stream is done
        return sent, arrived.synchronize

    def close(self) -> None:
        """Unlock the ring's memory, so that it may be freed. Ignores device failures, which are reported already."""
        if self._address and self._stream is not None:
            with suppress(RuntimeError):
                self._stream.synchronize()
            with suppress(RuntimeError), torch.cuda.device(self._stream.device):
                _runtime().cudaHostUnregister(self._address)
            self._address = 0

    def _use_pageable_memory(self, result: object) -> None:
        warnings.warn(f"cannot page-lock batches ({result}): copying them to the GPU takes longer", stacklevel=2)
        with suppress(RuntimeError):  # CUDA reports the error again at the next call; clear it
            torch.zeros(1, device=self._device)


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
