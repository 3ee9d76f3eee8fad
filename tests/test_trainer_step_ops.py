"""What a training step launches: number of operations, dtypes, memory layout, and no wait for the device.

Forward passes run on fake tensors on a CUDA device, which need no GPU. Backward passes do, so that whole steps are
counted on the CPU.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import pytest
import torch
from torch._ops import OpOverload
from torch._subclasses import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from srshards import PatchBatch
from trainer.loss_terms import LossTerm
from trainer.models import network_spec
from trainer.models.blocks import BuiltInSpec
from trainer.training.captured import NUM_WARM_UPS, Captured, ImagePair
from trainer.training.device import Precision
from trainer.training.learner import Learner, StepSettings
from trainer.training.objective import Objective
from trainer.training.sharpen import Sharpen
from trainer.training.step_loss import loss_function
from trainer.training.step_mode import StepMode

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SYNCHRONISING = {aten._local_scalar_dense.default, aten.nonzero.default, aten.is_nonzero.default, aten.equal.default}


class Image(NamedTuple):
    """Dtype and layout of a tensor that is passed to an operation. The tensor itself must not be kept: autograd copies
    a gradient that is also referenced elsewhere.
    """

    dtype: torch.dtype
    is_channels_last: bool


class Call(NamedTuple):
    """An operation and the N x C x H x W tensors among its arguments."""

    operation: OpOverload
    images: list[Image]


class Log(TorchDispatchMode):
    """Records the operations, except those that only create a view or allocate memory."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if func.namespace == "aten" and not is_view and "empty" not in func.name():
            tensors = [value for value in args if isinstance(value, torch.Tensor) and value.dim() == 4]
            self.calls.append(Call(func, [Image(one.dtype, is_channels_last(one)) for one in tensors]))
        return result

    def of(self, operation: OpOverload) -> list[Call]:
        return [call for call in self.calls if call.operation is operation]

    @property
    def operations(self) -> list[OpOverload]:
        return [call.operation for call in self.calls]


def settings(dtype: torch.dtype | None, loss: str = "l1", **changes: Any) -> StepSettings:
    values: dict[str, Any] = {"micro_batches": 1, "clip": 1.0, "ema": 0.999, "mode": StepMode()} | changes
    return StepSettings(100, 1e-3, 0, Objective([LossTerm(loss)]), Precision(dtype), **values)


# ---- forward and loss, on a fake GPU


class IndexByNarrowing(TorchFunctionMode):
    """Replaces `x[:, :, :h, :w]`, for which Python's indexing requires a PyTorch with CUDA."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__getitem__:
            tensor, (_, _, rows, columns) = args
            return tensor.narrow(2, 0, rows.stop).narrow(3, 0, columns.stop)
        return func(*args, **(kwargs or {}))


def is_channels_last(tensor: torch.Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


def layout_of_cudnn(images: torch.Tensor, weight: torch.Tensor, backend: Any) -> torch.memory_format:
    """Return the layout of a convolution's result, which a PyTorch without CUDA does not know."""
    on_nhwc = is_channels_last(images) or is_channels_last(weight)
    return torch.channels_last if on_nhwc else torch.contiguous_format


@pytest.fixture
def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch._C, "_conv_determine_backend_memory_format", layout_of_cudnn)
    with FakeTensorMode(), IndexByNarrowing():
        yield


def forward(spec: BuiltInSpec, loss: str) -> tuple[Log, torch.Tensor, torch.Tensor]:
    """Return the operations of forward pass and loss under bfloat16 autocast, the network's output, and the loss."""
    network = spec._on_meta_device()
    parameters = {
        name: torch.empty(
            size, device=CUDA, memory_format=torch.channels_last if len(size) == 4 else torch.contiguous_format
        )
        for name, size in spec.shapes().items()
    }
    outputs: list[torch.Tensor] = []

    def call(images: torch.Tensor) -> torch.Tensor:
        outputs.append(torch.func.functional_call(network, parameters, images))
        return outputs[0]

    size = 4 * 12
    lr = torch.empty(2, size, size, 3, dtype=torch.uint8, device=CUDA)
    hr = torch.empty(2, size * spec.scale, size * spec.scale, 3, dtype=torch.uint8, device=CUDA)
    with Log() as log:
        objective = settings(torch.bfloat16, loss).objective
        result, _, _ = loss_function(call, None, objective, Precision(torch.bfloat16))(hr, lr, (0,))  # type: ignore[arg-type]
    return log, outputs[0], result


def rrdb(scale: int) -> BuiltInSpec:
    """Return `standard` with two blocks instead of 23, each of which has the same operations."""
    return replace(network_spec("standard", scale), depth=2)


# With the maximum number of operations. A higher number is not wrong, but should be intended: raise it then.
FORWARD = [
    (network_spec("ultra_lite", 4), 61),
    (network_spec("ultra_lite", 1), 61),
    (network_spec("lite", 4), 101),
    (rrdb(4), 194),
    (rrdb(3), 189),
    (rrdb(2), 207),
    (rrdb(1), 207),
]


def label(value: object) -> str | None:
    return f"{value.name} {value.scale}x" if isinstance(value, BuiltInSpec) else None


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "ceiling"), FORWARD, ids=label)
def test_forward_on_a_gpu(spec: BuiltInSpec, ceiling: int, fake_gpu: None) -> None:
    log, output, loss = forward(spec, "charbonnier")
    assert output.dtype is loss.dtype is torch.float32
    assert output.device.type == loss.device.type == "cuda"
    assert not SYNCHRONISING.intersection(log.operations)
    is_rrdb = spec.architecture == "rrdb"
    if is_rrdb:  # compact repeats the pixels of its input, which are float32
        assert {call.images[0].dtype for call in log.of(aten.upsample_nearest2d.default)} == {torch.bfloat16}
    convolutions = log.of(aten.convolution.default)
    assert [call.images[0].dtype for call in convolutions].count(torch.float32) == is_rrdb, "the last one"
    unshuffles = is_rrdb and spec.scale < 3  # its result is contiguous on a GPU
    assert all(image.is_channels_last for call in convolutions[unshuffles:] for image in call.images)
    assert len(log.calls) <= ceiling


def test_full_precision_allows_tf32_in_convolutions_only() -> None:
    """PyTorch's defaults, which docs/how-to/training.md states and the trainer does not change."""
    assert torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


# ---- whole steps, on the CPU


def steps(spec: BuiltInSpec, dtype: torch.dtype | None, count: int, **changes: Any) -> list[Log]:
    """Return the operations of each of the first steps."""
    network, average = (spec.build().to(memory_format=torch.channels_last) for _ in range(2))  # type: ignore[call-overload]
    learner = Learner(network, average, settings(dtype, **changes))
    draw = partial(torch.randint, 0, 256, dtype=torch.uint8)
    size = 8
    batch = PatchBatch(draw((1, size * spec.scale, size * spec.scale, 3)), draw((1, size, size, 3)), ())
    logs = []
    for step in range(count):
        with Log() as log:
            learner.step(step, repeat(batch))
        logs.append(log)
    return logs


# With the maximum number of operations, as above; PReLU is composed of several on a CPU.
STEPS = [
    (network_spec("ultra_lite", 4), torch.bfloat16, {}, 178),
    (network_spec("ultra_lite", 4), torch.float16, {}, 190),
    (network_spec("ultra_lite", 4), None, {"clip": 0, "loss": "charbonnier"}, 115),
    (network_spec("ultra_lite", 4), None, {"clip": 0, "loss": "charbonnier", "sharpen": Sharpen(32)}, 135),
    (network_spec("lite", 4), torch.bfloat16, {}, 306),
    (network_spec("lite", 4), torch.bfloat16, {"micro_batches": 2}, 660),
    (rrdb(4), torch.bfloat16, {}, 420),
]


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "dtype", "changes", "ceiling"), STEPS, ids=label)
def test_step(spec: BuiltInSpec, dtype: torch.dtype | None, changes: dict[str, Any], ceiling: int) -> None:
    """Every step but the first, which creates the state of the optimiser, performs the same operations."""
    _, second, *others = steps(spec, dtype, 4, **changes)
    assert not SYNCHRONISING.intersection(second.operations)
    assert not second.of(aten.copy_.default), "gradients are taken over, not copied"
    assert all(other.operations == second.operations for other in others)
    assert len(second.calls) <= ceiling


# ---- captured steps, with a CUDA graph in plain Python


class Stream:
    """A CUDA stream."""

    device = CPU

    def wait_stream(self, stream: "Stream") -> None:
        pass


class Graph:
    """Replays by calling the captured function again, whose result has a fixed place in memory."""

    captured: Callable[[], torch.Tensor]
    result: torch.Tensor

    def replay(self) -> None:
        self.result.copy_(self.captured())


def test_captured_work_reads_the_latest_batches_from_fixed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []

    def work(batches: Sequence[ImagePair]) -> torch.Tensor:
        calls.append(tuple(image.data_ptr() for batch in batches for image in batch))
        return sum((hr.sum() + 10 * lr.sum() for hr, lr in batches), torch.zeros(()))

    @contextmanager
    def capture(graph: Graph, stream: Stream) -> Iterator[None]:
        yield
        (batches,) = captures
        graph.captured = partial(work, batches)
        graph.result = captured._result

    captures: list[Sequence[ImagePair]] = []
    for name, value in {
        "Stream": lambda device: Stream(),
        "current_stream": lambda device: Stream(),
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": Graph,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    captured = Captured(work, CPU)
    captures.append(captured._inputs)
    results = []
    for step in range(NUM_WARM_UPS + 3):
        for number in range(2):
            captured.load(number, (torch.full((2, 2), float(step)), torch.full((1, 1), float(number))))
        results.append(captured())
    assert [result.item() for result in results] == [8 * step + 10 for step in range(NUM_WARM_UPS + 3)]
    assert len(set(calls)) == 1 and len(set(calls[0])) == 4
    assert len(calls) == NUM_WARM_UPS + 1 + 3, "each step once, except that the capture itself does nothing on a GPU"
