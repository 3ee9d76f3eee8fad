"""Building networks of which only the shapes are needed."""

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_META = torch.device("meta")


class UninitialisedParameters(TorchFunctionMode):
    """Creates the parameters of layers on the meta device and skips their initialisation, which may take seconds.

    Unlike `with torch.device("meta")`, it leaves other tensors alone: constructors read values from some of them.
    """

    _IN_PLACE = ("uniform_", "normal_", "erfinv_", "mul_", "add_", "clamp_", "fill_", "zero_")

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if function is torch.empty:
            return function(*args, **{**given, "device": _META})
        if function.__name__ in self._IN_PLACE:
            changed = args[0] if args else given["tensor"]  # the functions of torch.nn.init pass it by name
            if changed.device == _META:
                return changed
        return function(*args, **given)
