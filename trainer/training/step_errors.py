"""Errors of a training step that another setting avoids."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from srshards.errors import UsageError
from srshards.process.shortages import is_out_of_memory
from trainer.training.step_mode import StepMode

_COMPILERS = ("torch._dynamo", "torch._inductor")  # modules of their exceptions; importing them takes seconds
_CAPTURE_ERRORS = ("captur", "cuda graph")  # in messages of CUDA and PyTorch


@contextmanager
def explain_step_errors(step: int, device: torch.device, mode: StepMode, memory_advice: str) -> Iterator[None]:
    """Raise UsageError for out of memory in this step, or a failed compilation or capture."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise UsageError(f"out of memory in step {step:,} on {device}; {memory_advice}") from error
        failed_to_compile = mode.compiles and type(error).__module__.startswith(_COMPILERS)
        failed_to_capture = mode.captures and any(word in str(error).lower() for word in _CAPTURE_ERRORS)
        if not (failed_to_compile or failed_to_capture):
            raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        action = "compiled" if failed_to_compile else "captured"
        raise UsageError(f"the step cannot be {action} ({reason}); pass --step eager") from error
