"""How a training step is executed: kernel by kernel, compiled, or as a CUDA graph."""

import math
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from srshards.errors import UsageError

# Steps from which compilation is worth its start-up time, measured with batches of 16 on an H200.
_MIN_STEPS_TO_COMPILE = {"compact": 20_000, "rrdb": 4_000}
# Architectures whose steps are known to work as a CUDA graph. Those of spandrel that are missing compute their
# attention masks on the CPU in each step.
_CAPTURED_BY_AUTO = {"compact", "rrdb", "SPAN", "PLKSR", "RealPLKSR", "MoSR", "SAFMN", "OmniSR"}
_CAPTURING = ("graph", "compiled-graph")


@dataclass(frozen=True)
class StepMode:
    """`compiles`: forward, loss and backward are compiled. `captures`: the step is captured as a CUDA graph."""

    compiles: bool = False
    captures: bool = False

    def __str__(self) -> str:
        return {
            (False, False): "eager",
            (False, True): "CUDA graph",
            (True, False): "compiled",
            (True, True): "compiled, CUDA graph",
        }[self.compiles, self.captures]


def choose_step_mode(
    name: str, device: torch.device, world_size: int, architecture: str, steps: int, optimizer: str = "adamw"
) -> StepMode:
    """Return the mode called `name`, one of `config.STEP_MODES`. UsageError if it is unavailable.

    `auto` is eager on a CPU, where compiled steps are no faster, with several processes, for architectures that cannot
    be captured, and for optimisers that count steps outside of tensors: all but AdamW. Otherwise it captures the step
    on a CUDA device, and also compiles that of its own architectures if the run has many `steps`.
    """
    on_gpu = device.type == "cuda"
    if name == "auto":
        captures = on_gpu and world_size == 1 and architecture in _CAPTURED_BY_AUTO and optimizer == "adamw"
        is_long = steps >= _MIN_STEPS_TO_COMPILE.get(architecture, math.inf)
        return StepMode(compiles=captures and is_long and find_spec("triton") is not None, captures=captures)
    if name in _CAPTURING and not on_gpu:
        raise UsageError(f"--step {name} requires a CUDA device, but the device is {device}; pass --step auto")
    if name in _CAPTURING and world_size > 1:
        raise UsageError(f"--step {name} is limited to a single process, but there are {world_size}; pass --step auto")
    if name in _CAPTURING and optimizer != "adamw":
        raise UsageError(f"--step {name} requires --optimizer adamw: {optimizer} cannot be captured; pass --step auto")
    return StepMode(compiles=name.startswith("compiled"), captures=name in _CAPTURING)
