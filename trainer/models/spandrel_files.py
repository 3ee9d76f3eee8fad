"""Find the network in a weights file by spandrel, which infers architecture and size from names and shapes."""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from srshards.errors import UsageError
from srshards.process.shortages import is_out_of_memory
from srshards.terminal.text import plural
from trainer.models.allocation_limit import AllocationLimit, TooLarge
from trainer.models.architectures import SizeRequirements
from trainer.models.blocks import COLOURS
from trainer.models.spandrel_import import load_spandrel
from trainer.models.spandrel_network import SpandrelNetwork, spec_of_model
from trainer.models.weights_layout import first_few

# Limits on building the network of a file, whose masks and indices need not be in the file. The factors are four and
# three times what any architecture tried takes; the constants let small files pass, in which these have a larger share.
_MAX_GROWTH = 16  # bytes allocated per byte of the file
_FREE_BYTES = 256 << 20
_CALLS_PER_TENSOR = 60
_FREE_CALLS = 5_000
_MAX_NUMBER = 1000  # in a name, from which spandrel derives the number of blocks; several times that of any network


def open_network(state: Mapping[str, Tensor]) -> SpandrelNetwork | None:
    """Return the network that spandrel finds in these weights, with them loaded; None if it knows none.

    UsageError without spandrel, for damaged weights, and for networks that do not map RGB to RGB.
    """
    spandrel = load_spandrel()
    if any(_largest_number(name) > _MAX_NUMBER or 0 in tensor.shape for name, tensor in state.items()):
        return None
    architecture = _detect(spandrel, state)
    if architecture is None:
        return None
    descriptor = _load(architecture, state)
    _refuse_other_images(spandrel, descriptor)
    model, needs = descriptor.model, descriptor.size_requirements
    _refuse_quantised(model, state)
    requirements = SizeRequirements(max(1, needs.minimum), needs.multiple_of, needs.square)
    spec = spec_of_model(model, descriptor.architecture.id, descriptor.scale, requirements)
    return SpandrelNetwork(spec, model, descriptor._call_fn)


def _largest_number(name: str) -> int:
    """Return the largest number among the parts of a name, which spandrel reads by `int` and counts up to."""
    largest = 0
    for part in name.split("."):
        with suppress(ValueError):  # not a number, or one of thousands of digits
            largest = max(largest, int(part))
    return largest


def _detect(spandrel: Any, state: Mapping[str, Tensor]) -> Any:
    """Return the architecture of spandrel whose names these are, or None."""
    supports = spandrel.MAIN_REGISTRY.architectures("detection")
    return next((support.architecture for support in supports if support.detect(dict(state))), None)


def _load(architecture: Any, state: Mapping[str, Tensor]) -> Any:
    """Return spandrel's descriptor of the network with the weights loaded. UsageError beyond the limits above."""
    held = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    limit = AllocationLimit(_FREE_BYTES + _MAX_GROWTH * held, _FREE_CALLS + _CALLS_PER_TENSOR * len(state))
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), limit:
            warnings.simplefilter("ignore")
            return architecture.load(dict(state))
    except TooLarge:
        reason = f"its {len(state)} parameters suggest a network that is far larger than they are"
    except Exception as error:  # those of spandrel and PyTorch have no common base class
        reason = "out of memory" if is_out_of_memory(error) else f"spandrel cannot load it ({_first_line(error)})"
    raise UsageError(f"looks like {architecture.name}, but {reason}; download it again, or save it with another tool")


def _first_line(error: Exception) -> str:
    """Return the type and the beginning of the message, without the first line of PyTorch's, which says little."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith("Error(s) in loading")]
    return first_few([f"{type(error).__name__}: {' '.join(lines)}"])


def _refuse_other_images(spandrel: Any, descriptor: Any) -> None:
    name = descriptor.architecture.name
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise UsageError(f"{name} fills in masked parts of images; pass a network that upscales or restores them")
    if descriptor.purpose == "FaceSR":
        raise UsageError(f"{name} restores cropped and aligned faces only; pass a network for any image")
    channels = (descriptor.input_channels, descriptor.output_channels)
    if channels != (COLOURS, COLOURS):
        given = plural(channels[0], "channel")
        raise UsageError(f"this {name} maps images of {given} to {channels[1]}; pass a network for RGB images")


def _refuse_quantised(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise UsageError if numbers of the network are integers in the file, which PyTorch would convert as they are."""
    ours = model.state_dict()
    quantised = [
        name
        for name, tensor in state.items()
        if not tensor.is_floating_point() and name in ours and ours[name].is_floating_point()
    ]
    if quantised:
        raise UsageError(f"expected floating-point weights, but {first_few(quantised)} are integers (quantised?)")
