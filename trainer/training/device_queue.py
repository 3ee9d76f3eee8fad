"""Whether a device still executes the work that was queued on it."""

import torch


class DeviceQueue:
    """The work queued on a CUDA device. Other devices have finished it when the call that queued it returns."""

    def __init__(self, device: torch.device) -> None:
        self._end = torch.cuda.Event() if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def mark(self) -> None:
        """Let `is_busy` refer to the work queued so far."""
        if self._end is not None:
            self._end.record()

    def is_busy(self) -> bool:
        """Return whether the device has yet to finish the marked work. Does not synchronise."""
        return self._end is not None and not self._end.query()  # type: ignore[no-untyped-call]
