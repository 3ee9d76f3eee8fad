"""What a network is computed on, and in which precision."""

import os
from dataclasses import dataclass

import torch

from srshards.errors import UsageError
from srshards.process.resources import available_cpus


@dataclass(frozen=True)
class Precision:
    """`dtype` is that of the autocast forward pass, None for float32 throughout; float16 needs its loss scaled."""

    dtype: torch.dtype | None

    @property
    def scales_loss(self) -> bool:
        return self.dtype is torch.float16

    def __str__(self) -> str:
        return {None: "float32", torch.bfloat16: "bfloat16 autocast", torch.float16: "float16 autocast"}[self.dtype]


def choose_device(name: str, local_rank: int | None = None) -> torch.device:
    """`auto` is the first CUDA device, or the CPU. UsageError for a device that is not there.

    With its `local_rank`, that of one of several processes on this machine, which have a CUDA device each.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if local_rank is not None:
        name = _own_device(name, local_rank)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if not torch.cuda.is_available() or (device.index or 0) >= count:
            built = "" if torch.version.cuda else "; this PyTorch is built without CUDA"
            raise UsageError(f"--device {name}: there are {count} CUDA devices here{built}; take --device cpu, or auto")
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: there is no such device here; take --device cpu, or auto")
    return device


def _own_device(name: str, local_rank: int) -> str:
    if name == "cuda":
        count = torch.cuda.device_count()
        if 0 < count <= local_rank:
            raise UsageError(
                f"there is no CUDA device {local_rank} for local rank {local_rank}: {count} are here; take "
                f"--nproc-per-node {count}"
            )
        return f"cuda:{local_rank}"
    if name != "cpu":
        raise UsageError(f"--device {name}: each process under torchrun takes its own; expected auto, cuda or cpu")
    return name


def choose_precision(amp: str, device: torch.device) -> Precision:
    """`auto` is bfloat16 where the device computes in it, float16 on other CUDA devices, float32 on other CPUs."""
    if amp == "off":
        return Precision(None)
    if amp == "fp16":
        if device.type == "cpu":
            raise UsageError("--amp fp16 is for CUDA devices; take --amp bf16, auto or off on a CPU")
        return Precision(torch.float16)
    if amp == "bf16":
        if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UsageError(
                f"--amp bf16: {torch.cuda.get_device_name(device)} does not compute in it; take fp16 or auto"
            )
        return Precision(torch.bfloat16)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision(torch.bfloat16 if native else torch.float16)
    return Precision(torch.bfloat16 if device.type == "cpu" and _cpu_has_bf16() else None)


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def limit_threads(processes: int = 1) -> None:
    """As many threads as OMP_NUM_THREADS says, or as there really are CPUs: PyTorch knows no container's limit.

    So many processes share them.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(max(1, available_cpus() // processes))


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX-512 BF16, AMX, or Arm's): emulation is slow."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(has and name.endswith("bf16") for name, has in capabilities.items())
