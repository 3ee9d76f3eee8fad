"""Limit the memory and the work of building a network whose size comes from an untrusted file."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class TooLarge(Exception):
    """The network needs more memory or operations than allowed."""


class AllocationLimit(TorchFunctionMode):
    """Within the block, PyTorch's functions may return new tensors of `max_bytes` in total, in `max_calls` calls.

    A larger tensor is refused before it is allocated, if the arguments say its size: those of factories such as
    torch.empty, of `repeat`, and of operations that broadcast.
    """

    def __init__(self, max_bytes: int, max_calls: int) -> None:
        super().__init__()
        self._bytes = max_bytes
        self._calls = max_calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        leaves = tree_leaves((args, kwargs or {}))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        self._calls -= 1
        if self._calls < 0 or _expected_bytes(func.__name__, leaves, tensors) > self._bytes:
            raise TooLarge
        result = func(*args, **(kwargs or {}))
        known = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self._bytes -= sum(storage.nbytes() for storage in _storages(result) if storage.data_ptr() not in known)
        if self._bytes < 0:
            raise TooLarge
        return result


def _storages(result: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


def _expected_bytes(name: str, leaves: list[Any], tensors: list[Tensor]) -> int:
    """Return an estimate of the result's bytes from the arguments: 0 if it is not larger than these."""
    numbers = [abs(leaf) for leaf in leaves if isinstance(leaf, int) and not isinstance(leaf, bool) and leaf]
    width = max((tensor.element_size() for tensor in tensors), default=4)
    if name == "repeat":
        return width * tensors[0].numel() * math.prod(numbers)
    if not tensors or name.startswith("new_"):
        return width * (max(numbers, default=0) if name in ("arange", "linspace") else math.prod(numbers))
    try:
        shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))  # type: ignore[no-untyped-call]
        return int(width * math.prod(shape))
    except RuntimeError:  # of an operation that does not broadcast
        return 0
