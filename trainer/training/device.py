"""Choice of the compute device, the precision and the number of threads."""

import os
from dataclasses import dataclass

import torch

from srshards.errors import UsageError
from srshards.process.resources import available_cpus
from srshards.terminal.text import plural


@dataclass(frozen=True)
class Precision:
    """Numeric precision: `dtype` of the autocast forward pass, None for pure float32. float16 needs loss scaling."""

    dtype: torch.dtype | None

    @property
    def scales_loss(self) -> bool:
        return self.dtype is torch.float16

    def __str__(self) -> str:
        return {None: "float32", torch.bfloat16: "bfloat16 autocast", torch.float16: "float16 autocast"}[self.dtype]


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """Return the device called `name`; `auto` is the first CUDA device, else the CPU. UsageError if unavailable.

    With a `local_rank`, for torchrun's processes: each gets the CUDA device of that index, or its only one where a
    scheduler shows every process a different GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if local_rank is not None:
        name = _device_of_rank(name, local_rank)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or (device.index or 0) >= count:
            built = "" if torch.version.cuda else " (this PyTorch is built without CUDA)"
            devices = plural(count, "CUDA device") if count else "no CUDA device"
            raise UsageError(f"--device {name}: this machine has {devices}{built}; pass --device cpu or auto")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: this machine has no MPS device; pass --device cpu or auto")
    return device


def _device_of_rank(name: str, local_rank: int) -> str:
    if name == "cuda":
        count = torch.cuda.device_count()
        if count == 1:
            return "cuda:0"
        if 0 < count <= local_rank:
            raise UsageError(
                f"no CUDA device for local rank {local_rank}: this machine has {plural(count, 'CUDA device')}; pass "
                f"--nproc-per-node {count} to torchrun"
            )
        return f"cuda:{local_rank}"
    if name != "cpu":
        raise UsageError(f"--device {name}: with torchrun, each process has its own device; pass auto, cuda or cpu")
    return name


def choose_precision(amp: str, device: torch.device) -> Precision:
    """Return the precision; `auto` is bfloat16 where native, else float16 on CUDA devices and float32 on CPUs."""
    if amp == "off":
        return Precision(None)
    if amp == "fp16":
        if device.type == "cpu":
            raise UsageError("--amp fp16 requires a CUDA device; on a CPU, pass --amp bf16, auto or off")
        return Precision(torch.float16)
    if amp == "bf16":
        if device.type == "cuda" and not _gpu_has_bf16(device):
            raise UsageError(
                f"--amp bf16: {torch.cuda.get_device_name(device)} does not support it; pass --amp fp16 or auto"
            )
        return Precision(torch.bfloat16)
    if device.type == "cuda":
        return Precision(torch.bfloat16 if _gpu_has_bf16(device) else torch.float16)
    return Precision(torch.bfloat16 if device.type == "cpu" and _cpu_has_bf16() else None)


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def limit_threads(processes: int = 1) -> None:
    """Set PyTorch's threads to the available CPUs divided by `processes`, unless OMP_NUM_THREADS is set.

    PyTorch itself ignores the CPU limits of containers.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(1, available_cpus() // processes))


def _gpu_has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):  # the question is about the current device
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bfloat16 natively (AVX-512 BF16, AMX or Arm BF16); emulation is slow."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(has and name.endswith("bf16") for name, has in capabilities.items())
