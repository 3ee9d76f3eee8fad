"""From a slot of the ring to the device."""

from collections.abc import Callable
from typing import Any

import torch

from trainer.stream.ring import Ring

Wait = Callable[[], object]


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
                _check(_runtime().cudaHostRegister(memory.data_ptr(), memory.numel(), 0))
            self._address = memory.data_ptr()

    def send(self, host: tuple[torch.Tensor, ...]) -> tuple[tuple[torch.Tensor, ...], Wait]:
        """The tensors on the device, ready for its current stream, and what waits until the host's may be changed."""
        if self._stream is None:
            return tuple(tensor.to(self._device) for tensor in host), _nothing
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
            self._stream.synchronize()
            _check(_runtime().cudaHostUnregister(self._address))
            self._address = 0


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _check(error: Any) -> None:
    torch.cuda.check_error(error)


def _nothing() -> None:
    pass
