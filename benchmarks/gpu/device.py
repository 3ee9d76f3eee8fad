"""Describe the device that tasks run on."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from trainer.training.device import choose_device, describe_device

_DRIVER = Path("/sys/module/nvidia/version")


def describe(device: str) -> Iterator[dict[str, Any]]:
    """Yield the name of the device, its memory and driver, and the versions of PyTorch, CUDA and cuDNN."""
    on = choose_device(device)
    found: dict[str, Any] = {
        "device": describe_device(on),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }
    if on.type == "cuda":
        found["memory_bytes"] = torch.cuda.get_device_properties(on).total_memory
        found["driver"] = _driver()
    yield found


def _driver() -> str | None:
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    with suppress(OSError):
        return _DRIVER.read_text().strip()
    return None
