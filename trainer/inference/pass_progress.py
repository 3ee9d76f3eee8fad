"""Follow the progress of a forward pass by the multiplications of its layers: a pass may take a minute."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from trainer.inference.probe import probe_px, run_probe

Follow = Callable[[Tensor, float, float], None]

_known: WeakKeyDictionary[nn.Module, float] = WeakKeyDictionary()


@contextmanager
def following_passes(model: nn.Module, on_progress: Callable[[float], None] | None) -> Iterator[Follow]:
    """Yield a function to call before each forward pass in the block, with its input and two numbers `start` and `end`.

    During the pass, `on_progress` then gets numbers that rise from `start` to `end`, one after each layer.
    """
    if on_progress is None or not _layers(model):
        yield _report_nothing
        return
    report, per_pixel = on_progress, multiplications_per_pixel(model)
    total, done, bounds = 1.0, 0, (0.0, 0.0)

    def begin(images: Tensor, start: float, end: float) -> None:
        nonlocal total, done, bounds
        total, done, bounds = per_pixel * images[:, 0].numel(), 0, (start, end)

    def count(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal done
        done += _multiplications(layer, output)
        start, end = bounds
        report(start + (end - start) * min(done / total, 1))

    with _hooked(model, count):
        yield begin


def multiplications_per_pixel(model: nn.Module) -> float:
    """Return the multiplications of all convolutions and linear layers in a forward pass, per pixel of its input."""
    if model not in _known:
        total = 0

        def count(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            nonlocal total
            total += _multiplications(layer, output)

        with _hooked(model, count):
            run_probe(model)
        _known[model] = total / probe_px(model) ** 2
    return _known[model]


@contextmanager
def _hooked(model: nn.Module, hook: Callable[[nn.Module, Any, Tensor], None]) -> Iterator[None]:
    """Call the hook after each convolution and linear layer of the model in the block."""
    with ExitStack() as hooks:
        for layer in _layers(model):
            hooks.enter_context(layer.register_forward_hook(hook))
        yield


def _layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that take nearly all of a pass. Attention between them takes a share of its own."""
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _multiplications(layer: Any, output: Tensor) -> int:
    return output.numel() * layer.weight.shape[1:].numel()  # type: ignore[no-any-return]


def _report_nothing(images: Tensor, start: float, end: float) -> None:
    """Do nothing, because nobody wants to know the progress, or the model has no such layers."""
