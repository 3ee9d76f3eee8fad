"""Weight files: written as Real-ESRGAN writes them, read from whatever tool trained them. Only tensors are loaded."""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srshards.errors import UsageError
from srshards.process.resources import is_out_of_memory
from srshards.process.shortages import shortage
from srshards.storage.files import write_atomically, writing
from trainer.models import Network
from trainer.models.tensor_file import NotPlain, check_tensors, load_tensors
from trainer.models.weights_layout import some, spec_of, with_our_names, without_prefixes

__all__ = ["load_into", "load_network", "read_weights", "save_weights", "spec_of"]

SUFFIXES = (".pth", ".pt", ".safetensors")
# Under what other tools keep the parameters, the better ones first: an average of the last steps (EMA) before the
# parameters themselves.
_WRAPPERS = ("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net", "generator")
_MAX_WRAPPERS = 3
_SAVE_AGAIN = "where it was made, save its state_dict again, each tensor dense, in float32 and cloned"


def save_weights(path: Path, params: Mapping[str, Tensor], params_ema: Mapping[str, Tensor] | None) -> None:
    """Write the parameters, and their running average if there is one, so that other tools load the file.

    The file holds `{"params": ..., "params_ema": ...}` and plain float32 tensors, whatever is given: compiled or
    distributed names, half precision, channels_last, another device.
    """
    kinds = {"params": params, "params_ema": params_ema}
    content = {kind: _plain(state) for kind, state in kinds.items() if state is not None}
    stream = io.BytesIO()  # a full disk is then an OSError, which PyTorch's own writing hides
    torch.save(content, stream)
    with writing(path):
        write_atomically(path, stream.getbuffer())


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # A clone, because a view would take all of the storage behind it into the file.
    return {
        name: tensor.detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)
        for name, tensor in without_prefixes(state).items()
    }


def read_weights(path: Path) -> dict[str, Tensor]:
    """The parameters in a .pth, .pt or .safetensors file: float32, on the CPU, under Real-ESRGAN's names.

    If the file has several, the average (`params_ema`) is taken. UsageError if it has none.
    """
    content = _unwrap(path, _load(path))
    with _named(path):
        check_tensors(path, content)
        renamed = with_our_names(content)
    return {name: tensor.float() for name, tensor in renamed.items()}


def load_network(path: Path) -> Network:
    """The network in a weights file, with its parameters, on the CPU in evaluation mode. `.spec` says which it is."""
    state = read_weights(path)
    with _named(path):
        network = spec_of(state).build()
    _refuse_non_finite(path, state)
    network.load_state_dict(state)
    return network.eval()


def load_into(model: Network, path: Path) -> None:
    """Give `model` the parameters of a weights file, all of them. UsageError if they are another network's."""
    state = read_weights(path)
    with _named(path):
        spec = spec_of(state)
    if spec != model.spec:
        raise UsageError(
            f"weights {path} are for {spec.name} at {spec.scale}x; this run trains {model.spec.name} at "
            f"{model.spec.scale}x: give other weights, or the same model and scale as theirs"
        )
    _refuse_non_finite(path, state)
    model.load_state_dict(state)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What is wrong with parameters is said of their file."""
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
            f"{path}: {len(broken)} of {len(state)} parameters hold values that are not finite ({some(broken)}): "
            "that training had diverged; take weights from before"
        )


def _load(path: Path) -> Any:
    """What the file holds, its tensors on the CPU. Never runs code from the file."""
    if path.is_dir():
        inside = some(
            sorted(entry.name for entry in path.iterdir() if entry.suffix in SUFFIXES and entry.name != "state.pt")
        )
        raise UsageError(f"{path} is a folder: give a weights file in it ({inside or 'there is none'})")
    if not path.is_file():
        raise UsageError(f"there are no weights at {path}: give a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UsageError(f"cannot read weights from {path}: {error.strerror or error}") from error
    # A header of JSON after its length; a zip archive; a pickle, as PyTorch wrote before 1.6.
    if start[8:] != b"{" if path.suffix == ".safetensors" else not start.startswith((b"PK", b"\x80")):
        kind = "a .safetensors file" if path.suffix == ".safetensors" else "a file that PyTorch saved"
        found = f"a file that begins with {start!r}" if start else "an empty file"
        raise UsageError(f"{path} is not a weights file: expected {kind}, found {found}")
    try:
        with _named(path):
            return load_tensors(path)
    except UsageError:
        raise
    except Exception as error:
        if shortage(error) or is_out_of_memory(error):
            raise UsageError(f"cannot read weights from {path}: {shortage(error) or 'out of memory'}") from None
        raise UsageError(
            f"cannot read weights from {path}: the file is damaged or cut off, or it holds something else than "
            "tensors. Get it again, or save its state_dict alone where it was made"
        ) from error


def _unwrap(path: Path, content: Any) -> dict[str, Tensor]:
    """The tensors by their names, out of what tools wrap around them."""
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(content, Mapping):
            break
        if "state_dict" not in content and any(isinstance(key, str) and key.startswith("optim") for key in content):
            raise UsageError(
                f"{path} is a training state, with which a run goes on, not weights: give the .pth file beside it"
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
            found = some(key if isinstance(key, str) else f"a {type(key).__name__}" for key in content) or "nothing"
        raise UsageError(
            f"{path} holds no weights: expected parameters by their names, alone or under one of "
            f"{', '.join(_WRAPPERS)}; found {found}"
        )
    return tensors
