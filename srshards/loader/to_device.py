"""From a slot of the ring to the device."""

import warnings
from contextlib import suppress
from typing import Any

import torch

from srshards.loader.ring import Ring, Wait, nothing


class Transfer:
    """Brings batches to a device. For a CPU they stay where they are.

    The ring becomes page-locked memory for a CUDA device, so that its copy engine reads the slots itself, on a stream
    of its own, while the device computes.
    """

    def __init__(self, ring: Ring, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._address = 0
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            memory = torch.from_numpy(ring.everything())
            with torch.cuda.device(device):
                refusal = _runtime().cudaHostRegister(memory.data_ptr(), memory.numel(), 0)
            if refusal == _runtime().cudaError.success:
                self._address = memory.data_ptr()
            else:
                self._do_without(refusal)

    def send(self, host: tuple[torch.Tensor, ...]) -> tuple[tuple[torch.Tensor, ...], Wait]:
        """The tensors on the device, ready for its current stream, and what waits until the host's may be changed."""
        if self._stream is None:
            return tuple(tensor.to(self._device) for tensor in host), nothing
        with torch.cuda.stream(self._stream):
            sent = tuple(tensor.to(self._device, non_blocking=True) for tensor in host)
            arrived = self._stream.record_event()
        current = torch.cuda.current_stream(self._device)
        current.wait_event(arrived)
        for tensor in sent:
            tensor.record_stream(current)  # its memory is not to be used again before that stream is done with it
        return sent, arrived.synchronize

    def close(self) -> None:
        """After this the ring is ordinary memory, which may be given back to the system."""
        if self._address and self._stream is not None:
            with suppress(RuntimeError):  # of a device that has failed, which is being reported already
                self._stream.synchronize()
            _runtime().cudaHostUnregister(self._address)
            self._address = 0

    def _do_without(self, refusal: object) -> None:
        warnings.warn(f"batches cannot be page-locked ({refusal}): copying them to the GPU takes longer", stacklevel=2)
        with suppress(RuntimeError):  # CUDA says what was refused once more, to whatever is done next
            torch.zeros(1, device=self._device)


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]
