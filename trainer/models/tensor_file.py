"""Files of tensors. They are written atomically, and read even if they are untrusted.

No code from a file runs, and memory use is proportional to the file size.
A few bytes can encode any number of values: an expanded tensor, a shape without data, compressed zeros.
"""

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from srshards.storage.files import replacing, writing
from trainer.models.weights_layout import first_few

_MAX_GROWTH = 4  # of the size in memory over the file's: some tools compress files or share storage between tensors
_PARAMETERS = ("weight", "bias")  # ends of names. Buffers may contain integers, e.g. positions in a window.
_BUFFER_BYTES = 1 << 20  # PyTorch writes a few bytes at a time between tensors


class NotPlain(Exception):
    """The file's tensors are not dense floating-point data stored in it. The message says which and why."""


def save_tensors(path: Path, content: Any) -> None:
    """Write what `torch.save` accepts, atomically and without a copy of it in memory. RunError if that fails."""
    with writing(path), replacing(path) as temporary, open(temporary, "wb", _BUFFER_BYTES) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if error.__context__ is None:
                raise
            raise error.__context__ from None  # why a write failed; `error` is from closing the archive after it


def load_tensors(path: Path) -> Any:
    """Load a .safetensors or PyTorch file to the CPU. Pass the result to `check_tensors`.

    NotPlain if its content is too large for the file. A damaged file raises almost any exception: UnpicklingError,
    RuntimeError, OSError, ...
    """
    if path.suffix == ".safetensors":
        return load_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _refuse_more_bytes(path, sum(entry.file_size for entry in archive.infolist()))
    with warnings.catch_warnings():  # about old file formats, which can still be read
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def check_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise NotPlain unless the tensors are dense data whose size is plausible for their file, and weights floats."""
    faults = {name: fault for name, tensor in tensors.items() if (fault := _fault(name, tensor))}
    if faults:
        first = next(iter(faults.values()))
        names = [name for name, fault in faults.items() if fault == first]
        raise NotPlain(f"expected floating-point weights, but {first_few(names)} {first}")
    _refuse_more_bytes(path, sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()))


def _refuse_more_bytes(path: Path, needed: int) -> None:
    size = path.stat().st_size
    if needed > _MAX_GROWTH * size:
        raise NotPlain(
            f"its tensors need {needed:,} bytes, but the file has {size:,}: the file is compressed, or its tensors are "
            "expanded or share storage"
        )


def _fault(name: str, tensor: Tensor) -> str | None:
    """Return why a tensor is not dense data, or a weight not of floating point; None if it is."""
    if tensor.is_nested:  # nested tensors have no shape
        return "are nested tensors"
    if tensor.layout is not torch.strided:
        return "are sparse"
    if tensor.device.type != "cpu":
        return f"have no values (device {tensor.device.type})"
    if tensor.is_complex():
        return "are complex"
    if not tensor.is_floating_point() and (tensor.is_quantized or name.endswith(_PARAMETERS)):
        return "are integers (quantised?)"
    if "float4" in str(tensor.dtype):
        return "are 4-bit floats (quantised?)"
    return None
