"""Infer a network from its parameters: translate older names to Real-ESRGAN's, and derive the spec from shapes."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice

from torch import Tensor

from srshards.errors import UsageError
from trainer.models import BuiltInSpec

# Prefixes of all names: by torch.compile, by DataParallel and DistributedDataParallel, by GAN training scripts.
PREFIXES = ("_orig_mod.", "module.", "netG.")
_MAX_PREFIXES = 10
_MAX_SHOWN = 100  # characters of a name
_MAX_LAYERS = 250  # blocks, or convolutions and activations; several times the deepest known network

_LAYER = r"\.(weight|bias)"
_RENAMES = [
    # Later naming of ESRGAN and BSRGAN
    (r"RRDB_trunk\.(\d+)\.RDB(\d)\.conv(\d)" + _LAYER, r"body.\1.rdb\2.conv\3.\4"),
    (r"trunk_conv" + _LAYER, r"conv_body.\1"),
    (r"upconv([12])" + _LAYER, r"conv_up\1.\2"),
    (r"HRconv" + _LAYER, r"conv_hr.\1"),
    # First naming of ESRGAN at 4x: indices into a sequence of layers. At other scales the sequence has another length,
    # and its names remain unknown.
    (r"model\.0" + _LAYER, r"conv_first.\1"),
    (r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0" + _LAYER, r"body.\1.rdb\2.conv\3.\4"),
    (r"model\.1\.sub\.\d+" + _LAYER, r"conv_body.\1"),
    (r"model\.3" + _LAYER, r"conv_up1.\1"),
    (r"model\.6" + _LAYER, r"conv_up2.\1"),
    (r"model\.8" + _LAYER, r"conv_hr.\1"),
    (r"model\.10" + _LAYER, r"conv_last.\1"),
]
_GROWING = "body.0.rdb1.conv1.weight"  # by which RRDBNet is recognised
_SCALE_OF_CHANNELS = {3: 4, 12: 2, 48: 1}  # rrdb: scale by input channels of the first convolution
_KNOWN = (
    "supported are SRVGGNetCompact with PReLU at 1x to 8x, and RRDBNet at 1x, 2x and 4x with Real-ESRGAN's names, "
    "at 4x also with those of ESRGAN and BSRGAN, and at 3x as trained here; and the networks that spandrel knows"
)


def without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the prefixes that wrappers add to all names."""
    state = dict(state)
    for _ in range(_MAX_PREFIXES):
        if not any(all(name.startswith(prefix) for name in state) for prefix in PREFIXES):
            break
        state = {name.partition(".")[2]: tensor for name, tensor in state.items()}
    return state


def with_current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with older names of RRDBNet translated to Real-ESRGAN's; other networks keep theirs.

    UsageError if two names become equal.
    """
    state = without_prefixes(state)
    ours = {name: _current_name(name) for name in state}
    if _GROWING not in ours.values():
        return state
    twice = [name for name, count in Counter(ours.values()).items() if count > 1]
    if twice:
        raise UsageError(f"{first_few(twice)} occurs twice, by its name and by an older one; remove one of them")
    return {ours[name]: tensor for name, tensor in state.items()}


def _current_name(name: str) -> str:
    for older, ours in _RENAMES:
        if re.fullmatch(older, name):
            return re.sub(older, ours, name)
    return name


class UnknownNetwork(UsageError):
    """The parameters are not those of a built-in network, and not similar either."""


def built_in_spec(state: Mapping[str, Tensor]) -> BuiltInSpec:
    """Return the spec of the built-in network that has exactly these parameters, by their names and shapes.

    UsageError if they differ, UnknownNetwork if none is similar.
    """
    found = f"{len(state)} parameters: {first_few(_shown(name, tensor.shape) for name, tensor in state.items())}"
    try:
        spec = _guess(state)
    except UsageError as error:  # the architecture is clear, but it does not support this scale
        raise UsageError(f"{error}; found {found}") from error
    if spec is None:
        raise UnknownNetwork(f"weights of an unknown network; {_KNOWN}; found {found}")
    faults = differences(spec, state)
    if faults:
        raise UsageError(f"looks like {spec.name} at {spec.scale}x, but {faults}; {_KNOWN}")
    return spec


def _guess(state: Mapping[str, Tensor]) -> BuiltInSpec | None:
    """Return the spec suggested by a few characteristic parameters, without checking the others."""
    blocks = [int(match[1]) for match in (re.match(r"body\.([0-9]{1,18})\.", name) for name in state) if match]
    depth = max(blocks, default=-1) + 1
    if not 0 < depth <= _MAX_LAYERS:  # listing the missing parameters of a deeper network would take minutes
        return None
    first, growing = _conv(state, "conv_first"), _conv(state, "body.0.rdb1.conv1")
    if first and growing:
        scale = 3 if any(name.startswith("tail_3x.") for name in state) else _SCALE_OF_CHANNELS.get(first[1])
        return BuiltInSpec("rrdb", scale, first[0], depth, growing[0]) if scale else None
    first, last = _conv(state, "body.0"), _conv(state, f"body.{depth - 1}")
    if first and last and depth % 2 and depth >= 3 and first[1] == 3 and last[0] >= 3:
        return BuiltInSpec("compact", math.isqrt(last[0] // 3), first[0], (depth - 3) // 2)
    return None


def _conv(state: Mapping[str, Tensor], name: str) -> tuple[int, int] | None:
    """Return the output and input channels of the convolution called `name`."""
    weight = state.get(f"{name}.weight")
    return None if weight is None or weight.ndim != 4 or 0 in weight.shape else (weight.shape[0], weight.shape[1])


def differences(spec: BuiltInSpec, state: Mapping[str, Tensor]) -> str:
    """Describe which parameters are missing, unexpected or of another shape than those of `spec`; "" if none."""
    expected = spec.shapes()
    missing = [name for name in expected if name not in state]
    extra = [name for name in state if name not in expected]
    other = [
        f"{_shown(name, state[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    kinds = (("missing", missing), ("unexpected", extra), ("of another shape", other))
    return "; ".join(f"{len(names)} {kind} ({first_few(names)})" for kind, names in kinds if names)


def first_few(names: Iterable[str]) -> str:
    """Return the first few of `names`, made printable and shortened, with "..." if there are more."""
    listed = list(islice(names, 5))
    return ", ".join(map(_legible, listed[:4])) + (", ..." if len(listed) > 4 else "")


def _legible(name: str) -> str:
    short = name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}..."
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in short)


def _shown(name: str, shape: Iterable[int]) -> str:
    return f"{name[:_MAX_SHOWN]} {list(shape)}"
