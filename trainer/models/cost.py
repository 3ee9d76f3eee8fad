"""Arithmetic and memory of training a network, from the shapes of its tensors: nothing is computed or allocated."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from trainer.models.blocks import COLOURS, Network, NetworkSpec, num_parameters
from trainer.models.uninitialised import UninitialisedParameters

_META = torch.device("meta")


@dataclass(frozen=True)
class Cost:
    """Size, arithmetic and memory of a network for inputs of one size. A multiply-add counts as two operations."""

    parameters: int
    forward_flops: int  # of one image: convolutions, matrix products and attention; backward takes about twice as many
    training_bytes: int  # peak of a training step in float32: parameters, EMA, AdamW, gradients, activations


def training_cost(spec: NetworkSpec, batch: int, input_px: int, has_ema: bool = True) -> Cost:
    """Return the cost of training on batches of `batch` images of `input_px` x `input_px` px.

    The memory is that of all tensors that exist at the worst moment of forward and backward. What kernels allocate
    internally is not included.
    """
    network = _on_meta_device(spec)
    target = _images(batch, input_px * spec.scale)
    tracer = _Tracer()
    weights = [*network.parameters(), *network.buffers()]
    for tensor in (*weights, target):
        tracer.add(tensor)
    with tracer:
        output = network(_images(batch, input_px))
        flops = tracer.flops
        (output - target).abs().mean().backward()
    moments = 2 * sum(map(_num_bytes, network.parameters()))
    ema = sum(map(_num_bytes, weights)) if has_ema else 0
    return Cost(num_parameters(network), flops // batch, tracer.peak_bytes + moments + ema)


def _on_meta_device(spec: NetworkSpec) -> Network:
    with UninitialisedParameters():
        network = spec.build()
    return network.to(_META)


def _images(batch: int, edge_px: int) -> Tensor:
    return torch.empty(batch, COLOURS, edge_px, edge_px, device=_META)


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the operations, and the bytes of all storages from their creation until they are freed.

    PyTorch infers many shapes in Python, which takes up to a millisecond, and networks repeat the same blocks. So an
    operation is executed once for arguments of the same shapes; afterwards its results are created directly.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.peak_bytes = 0
        self._bytes = 0
        self._storages: set[int] = set()
        self._known: dict[Any, _Traced] = {}

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = (args, kwargs or {})
        # Others have values, e.g. a mask that is computed on the CPU.
        is_meta = any(tensor.is_meta for tensor in _tensors(given))
        key = (operation, _signature(given)) if is_meta else None
        traced = self._known.get(key)
        result = traced.again() if traced else operation(*given[0], **given[1])
        if traced is None and key is not None:
            traced = _Traced.of(operation, given, result)
            if _is_new(operation):
                self._known[key] = traced
        self.flops += traced.flops if traced else 0
        for tensor in _tensors(result):
            self.add(tensor)
        return result

    def add(self, tensor: Tensor) -> None:
        """Count the storage of a tensor, once, until it is freed."""
        storage = tensor.untyped_storage()
        key = id(storage)  # the same object as long as the storage exists
        if key in self._storages:
            return
        self._storages.add(key)
        num_bytes = storage.nbytes()
        self._bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        weakref.finalize(storage, self._remove, key, num_bytes)

    def _remove(self, key: int, num_bytes: int) -> None:
        self._storages.discard(key)
        self._bytes -= num_bytes


@dataclass(frozen=True)
class _Traced:
    """Result and arithmetic of an operation: sizes, strides and dtypes of the tensors that it returns."""

    made: tuple[tuple[torch.Size, tuple[int, ...], torch.dtype] | None, ...]
    is_single: bool
    flops: int

    @classmethod
    def of(cls, operation: Any, given: tuple[tuple[Any, ...], dict[str, Any]], result: Any) -> "_Traced":
        is_single = not isinstance(result, tuple | list)
        made = tuple(
            (one.size(), one.stride(), one.dtype) if isinstance(one, Tensor) else None
            for one in ((result,) if is_single else result)
        )
        formula = flop_registry.get(operation.overloadpacket)
        return cls(made, is_single, int(formula(*given[0], **given[1], out_val=result)) if formula else 0)

    def again(self) -> Any:
        results = [
            None if one is None else torch.empty_strided(one[0], one[1], dtype=one[2], device=_META)
            for one in self.made
        ]
        return results[0] if self.is_single else tuple(results)


def _is_new(operation: Any) -> bool:
    """Return whether the operation returns only tensors of their own memory and changes none."""
    schema = operation._schema
    returned = all(one.alias_info is None and "Tensor" in str(one.type) for one in schema.returns)
    return returned and not schema.is_mutable


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


def _signature(value: Any) -> Any:
    """Return everything about arguments that shapes depend on, hashable; values of tensors do not matter."""
    if isinstance(value, Tensor):
        return (value.shape, value.stride(), value.dtype)
    if isinstance(value, tuple | list):
        return tuple(map(_signature, value))
    if isinstance(value, dict):
        return tuple((name, _signature(item)) for name, item in value.items())
    return (type(value), value)  # 1, 1.0 and True are equal
