"""Weights files: written in Real-ESRGAN's layout, read from most training tools. Only tensors are loaded."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srshards.errors import UsageError
from srshards.process.shortages import is_out_of_memory, shortage
from trainer.models import BuiltInSpec, Network
from trainer.models.spandrel_files import open_network
from trainer.models.spandrel_network import SpandrelNetwork
from trainer.models.tensor_file import NotPlain, check_tensors, load_tensors, save_tensors
from trainer.models.weights_layout import UnknownNetwork, built_in_spec, first_few, with_current_names, without_prefixes

__all__ = ["load_network", "read_weights", "save_weights"]

SUFFIXES = (".pth", ".pt", ".safetensors")
# Keys under which tools store the parameters, in order of preference: EMA weights before the parameters themselves.
_WRAPPERS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net", "generator")
_MAX_WRAPPERS = 3
_SAVE_AGAIN = "save its state_dict again with each tensor dense, in float32 and cloned"


def save_weights(path: Path, params: Mapping[str, Tensor], params_ema: Mapping[str, Tensor] | None) -> None:
    """Write the parameters, and their EMA if there is one, in a layout that other tools load.

    The file contains `{"params": ..., "params_ema": ...}` with contiguous CPU tensors, float32 except for integers.
    Names prefixed by torch.compile or DDP, half precision, channels_last and other devices are converted.
    """
    kinds = {"params": params, "params_ema": params_ema}
    save_tensors(path, {kind: _plain(state) for kind, state in kinds.items() if state is not None})


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Cloned, because saving a view would write its complete storage. Integers are positions in windows, or counts.
    return {
        name: tensor.detach()
        .to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
        .clone(memory_format=torch.contiguous_format)
        for name, tensor in without_prefixes(state).items()
    }


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the parameters from a .pth, .pt or .safetensors file: on the CPU, in float32, integers as they are.

    Names of the built-in networks are Real-ESRGAN's. If the file has several sets, the EMA (`params_ema`) is returned.
    UsageError if it has none.
    """
    content = _unwrap(path, _load(path))
    with _errors_about(path):
        check_tensors(path, content)
        renamed = with_current_names(content)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in renamed.items()}


def load_network(path: Path) -> Network:
    """Load the network in a weights file, on the CPU in evaluation mode. Its architecture is inferred (`.spec`)."""
    state = read_weights(path)
    with _errors_about(path):
        found = _find(state)
        network = found if isinstance(found, Network) else found.build()
    _refuse_non_finite(path, state)
    if network is not found:
        network.load_state_dict(state)
    return network.eval()


def _find(state: Mapping[str, Tensor]) -> BuiltInSpec | SpandrelNetwork:
    """Return the spec of the built-in network with these parameters, or the network that spandrel loads from them."""
    try:
        return built_in_spec(state)
    except UnknownNetwork:
        network = open_network(state)
        if network is None:
            raise
        return network
    except UsageError:
        # Of RRDBNet, spandrel knows more variants, e.g. at 2x with a single upsampling.
        network = None
        if "conv_first.weight" in state:
            with suppress(UsageError):
                network = open_network(state)
        if network is None:
            raise
        return network


@contextmanager
def _errors_about(path: Path) -> Iterator[None]:
    """Prefix error messages about parameters with the path of their file."""
    try:
        yield
    except NotPlain as error:
        raise UsageError(f"{path}: {error}; {_SAVE_AGAIN}") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _refuse_non_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    broken = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise UsageError(
            f"{path}: {len(broken)} of {len(state)} parameters have values that are not finite ({first_few(broken)}): "
            "the training diverged; use weights from an earlier step"
        )


def _load(path: Path) -> Any:
    """Load the file's content, with tensors on the CPU. Never runs code from the file."""
    if path.is_dir():
        inside = first_few(
            sorted(entry.name for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.name != "state.pt")
        )
        found = f"a file in it: {inside}" if inside else "a weights file, e.g. runs/lite-4x/best.pth"
        raise UsageError(f"{path} is a folder; pass {found}")
    if not path.is_file():
        raise UsageError(f"no such file: {path}; pass a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UsageError(f"cannot read weights from {path}: {error.strerror or error}") from error
    # safetensors: length and JSON header; PyTorch: a zip archive, or a pickle before version 1.6.
    if start[8:] != b"{" if path.suffix == ".safetensors" else not start.startswith((b"PK", b"\x80")):
        kind = "a .safetensors file" if path.suffix == ".safetensors" else "a file saved by PyTorch"
        found = f"a file that starts with {start!r}" if start else "an empty file"
        raise UsageError(f"{path} is not a weights file: expected {kind}, found {found}")
    try:
        with _errors_about(path):
            return load_tensors(path)
    except UsageError:
        raise
    except Exception as error:
        if shortage(error) or is_out_of_memory(error):
            raise UsageError(f"cannot read weights from {path}: {shortage(error) or 'out of memory'}") from None
        raise UsageError(
            f"cannot read weights from {path}: the file is damaged or truncated, or contains objects other than "
            "tensors; download it again, or save only its state_dict"
        ) from error


def _unwrap(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the tensors by name, without the containers that tools wrap around them."""
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(content, Mapping):
            break
        if "state_dict" not in content and any(isinstance(key, str) and key.startswith("optim") for key in content):
            raise UsageError(
                f"{path} is a training state, used to resume a run, not weights; pass a .pth file of the run"
            )
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {n: value for n, value in content.items() if isinstance(n, str) and isinstance(value, Tensor)}
    if not tensors:
        found = f"a {type(content).__name__}"
        if isinstance(content, Mapping):
            found = (
                first_few(key if isinstance(key, str) else f"a {type(key).__name__}" for key in content) or "nothing"
            )
        raise UsageError(
            f"{path} contains no weights: expected a dict of tensors, at the top level or under one of "
            f"{', '.join(_WRAPPERS)}; found {found}"
        )
    return tensors
