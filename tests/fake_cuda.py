"""A CUDA device for tests on a CPU: copies of its streams run only when something waits for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

SUCCESS, OUT_OF_MEMORY = "cudaSuccess", "cudaErrorMemoryAllocation"


class FakeCuda:
    """Stands in for the parts of `torch.cuda` that the loader uses. `calls` has the runtime's, with their device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = 0
        self.calls: list[tuple[Any, ...]] = []
        self.registering: str = SUCCESS  # the result of cudaHostRegister
        self.is_broken = False  # every call fails, as after an illegal access
        self.copying: Stream | None = None  # the stream of the block that is running
        self.ordered: list[Event] = []  # events that the compute stream waits for
        runtime = SimpleNamespace(
            cudaHostRegister=self._register,
            cudaHostUnregister=self._unregister,
            cudaError=SimpleNamespace(success=SUCCESS),
        )
        replaced = {
            "Stream": lambda device: Stream(self, device),
            "stream": self._stream,
            "device": self._device,
            "current_stream": lambda device: SimpleNamespace(wait_event=self.ordered.append),
            "cudart": lambda: runtime,
            "device_count": lambda: 2,
        }
        for name, value in replaced.items():
            monkeypatch.setattr(torch.cuda, name, value)
        to, zeros = torch.Tensor.to, torch.zeros
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
        monkeypatch.setattr(
            torch.Tensor,
            "to",
            lambda tensor, device, **kw: self._copy(tensor) if self.copying else to(tensor, device, **kw),
        )
        monkeypatch.setattr(torch, "zeros", lambda *size, device=None, **kw: self._zeros(zeros, size, device, kw))

    def check(self) -> None:
        """Raise the error of a broken device."""
        if self.is_broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def _copy(self, source: torch.Tensor) -> torch.Tensor:
        assert self.copying
        self.check()
        target = torch.empty_like(source)
        self.copying.copies.append((target, source))
        if self.registering != SUCCESS:  # pageable memory is read before the call returns
            self.copying.synchronize()
        return target

    def _zeros(self, zeros: Any, size: Any, device: Any, options: Any) -> torch.Tensor:
        if device is None or torch.device(device).type != "cuda":
            return zeros(*size, device=device, **options)  # type: ignore[no-any-return]
        self.calls.append(("zeros",))
        raise RuntimeError(f"CUDA error: {self.registering}")  # the last call's, reported once

    def _register(self, address: int, size: int, flags: int) -> str:
        self.calls.append(("register", self.current, address, size))
        return self.registering

    def _unregister(self, address: int) -> str:
        self.calls.append(("unregister", self.current, address))
        self.check()
        return SUCCESS

    @contextmanager
    def _stream(self, stream: "Stream") -> Iterator[None]:
        self.copying = stream
        try:
            yield
        finally:
            self.copying = None

    @contextmanager
    def _device(self, device: torch.device) -> Iterator[None]:
        former, self.current = self.current, self.current if device.index is None else device.index
        try:
            yield
        finally:
            self.current = former


class Stream:
    """A stream of copies: a target and a source each."""

    def __init__(self, cuda: FakeCuda, device: torch.device) -> None:
        self.device = torch.device("cuda", cuda.current if device.index is None else device.index)
        self.copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._cuda = cuda
        self._num_done = 0

    def record_event(self) -> "Event":
        return Event(self, len(self.copies))

    def synchronize(self) -> None:
        self.run(len(self.copies))

    def run(self, count: int) -> None:
        """Run the first copies that have been sent, those that have not run yet."""
        self._cuda.check()
        for target, source in self.copies[self._num_done : count]:
            target[:] = source
        self._num_done = max(self._num_done, count)


class Event:
    """An event after some copies."""

    def __init__(self, stream: Stream, num_copies: int) -> None:
        self._stream = stream
        self._num_copies = num_copies

    def synchronize(self) -> None:
        self._stream.run(self._num_copies)
