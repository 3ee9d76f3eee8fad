"""Tensors from files that anybody may have written: no code of theirs runs, and none takes memory out of proportion.

A few bytes can stand for any number of values: one that is repeated, a shape without any, zeros that are compressed.
"""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from trainer.models.weights_layout import some

_MAX_GROWTH = 4  # in memory: some tools compress their files, or let a few tensors share their values


class NotPlain(Exception):
    """The tensors of a file are not plain numbers that it holds. The message says which and why."""


def load_tensors(path: Path) -> Any:
    """What a .safetensors file, or else one of PyTorch's, holds, on the CPU; `check_tensors` is to look at it.

    NotPlain when it is compressed. A damaged file raises almost anything: UnpicklingError, RuntimeError, OSError, ...
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _refuse_more_bytes(path, sum(entry.file_size for entry in archive.infolist()))
    with warnings.catch_warnings():  # of old file formats, which are read all the same
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """NotPlain unless these are dense floating-point numbers, about as many as the file they come from can hold."""
    faults = {name: fault for name, tensor in tensors.items() if (fault := _fault(tensor))}
    if faults:
        first = next(iter(faults.values()))
        names = [name for name, fault in faults.items() if fault == first]
        raise NotPlain(f"expected floating-point weights, but {some(names)} {first}")
    _refuse_more_bytes(path, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))


def _refuse_more_bytes(path: Path, needed: int) -> None:
    size = path.stat().st_size
    if needed > _MAX_GROWTH * size:
        raise NotPlain(
            f"its tensors take {needed:,} bytes, but the file has {size:,}: it is compressed, or they are expanded or "
            "share values"
        )


def _fault(tensor: Tensor) -> str | None:
    """Why a tensor is not one of plain numbers."""
    if tensor.is_nested:  # which has no shape
        return "hold tensors in tensors (nested)"
    if tensor.layout is not torch.strided:
        return "are sparse"
    if tensor.device.type != "cpu":
        return f"have no values (device {tensor.device.type})"
    if tensor.is_complex():
        return "hold complex numbers"
    if not tensor.is_floating_point():
        return "hold integers (quantised?)"
    if "float4" in str(tensor.dtype):
        return "hold numbers of four bits (quantised?)"
    return None
