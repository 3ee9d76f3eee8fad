"""Validation during training: results, previews, and that the host waits for the device only once."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import generate
from torch.utils._python_dispatch import TorchDispatchMode

from srshards.errors import RunError, UsageError
from srshards.shards.folder import Shards
from srshards.shards.opening import open_shards
from trainer.evaluation import evaluate
from trainer.evaluation.evaluate import evaluate_batches, evaluate_pairs
from trainer.evaluation.metrics import Quality, mean_quality, measure
from trainer.evaluation.pairs import Pair, shard_pairs
from trainer.evaluation.transfer import download, upload
from trainer.inference.image_function import as_function
from trainer.inference.tiles import TileRule
from trainer.models import Network, network_spec
from trainer.training import validation
from trainer.training.stopping import StopRequest
from trainer.training.validation import Validation

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """At 2x, with nine validation images."""
    output = tmp_path_factory.mktemp("shards")
    generate(photos, output, "-s", 2, "--val-fraction", 0.3)
    found = open_shards(output / "scale_2x")
    assert len(found.val) == 9
    return found


def network(scale: int = 2) -> Network:
    return network_spec("ultra_lite", scale).build(seed=3).eval()


def pairs(shards: Shards, upsampled: bool = False, limit: int | None = None) -> list[Pair]:
    return list(shard_pairs(shards, "val", upsampled, limit))


def quality(output: np.ndarray, pair: Pair) -> Quality:
    return Quality(*measure(upload([output], CPU), upload([pair.hr], CPU), pair.scale)[0].tolist())


def one_by_one(model: Network, wanted: list[Pair]) -> list[tuple[Quality, Quality]]:
    """The metrics of the network and of bicubic, from the images themselves."""
    function = as_function(model, CPU, None)
    return [(quality(function(pair.input), pair), quality(pair.bicubic(), pair)) for pair in wanted]


def approximately(quality: Quality) -> Quality:
    """Rounding in the network may differ with the size of the batch."""
    bounds = {"psnr_rgb": 1e-4, "psnr_y": 1e-4, "ssim_rgb": 1e-5, "ssim_y": 1e-5}
    return Quality(**{name: pytest.approx(getattr(quality, name), abs=bound) for name, bound in bounds.items()})


@pytest.fixture(params=[1, 4])
def batch_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One, and several with a smaller one at the end."""
    monkeypatch.setattr(evaluate, "_batch_size", lambda *args: request.param)
    return int(request.param)


# ---- results


@pytest.mark.parametrize("upsampled", [False, True])
def test_results_are_those_of_single_images(shards: Shards, upsampled: bool, batch_size: int) -> None:
    model = network(1 if upsampled else 2)
    wanted = pairs(shards, upsampled)
    expected = one_by_one(model, wanted)
    found = list(evaluate_pairs(model, wanted))
    assert [one.name for one in found] == [pair.name for pair in wanted]
    for one, (by_network, by_bicubic) in zip(found, expected, strict=True):
        assert one.network == approximately(by_network) and one.bicubic == by_bicubic
    run = Validation(shards, upsampled, 100)
    for _ in range(2):  # the second time with the remembered metrics of bicubic
        result = run.run(model, StopRequest())
        assert result is not None
        assert result.network == approximately(mean_quality([one for one, _ in expected]))
        assert result.bicubic == mean_quality([one for _, one in expected])


def test_the_preview_shows_three_images_with_their_psnr(
    shards: Shards, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    real = validation.grid
    monkeypatch.setattr(validation, "grid", lambda rows, titles: drawn.append(rows) or real(rows, titles))
    monkeypatch.setattr(validation, "_PREVIEW_PX", 40)
    model = network()
    wanted = pairs(shards, limit=9)
    run = Validation(shards, False, 9)
    for _ in range(2):
        assert run.run(model, StopRequest()) is not None
        rows = drawn.pop()
        assert [row.aside for row in rows] == [wanted[number].name for number in (0, 3, 6)]
        for row, number in zip(rows, (0, 3, 6), strict=True):
            pair, output = wanted[number], as_function(model, CPU, None)(wanted[number].input)
            shown = [image[12:52, 12:52].astype(int) for image in (pair.bicubic(), output, pair.hr)]
            assert pair.hr.shape == (64, 64, 3)
            assert all(np.abs(cell - image).max() <= 1 for cell, image in zip(row.cells, shown, strict=True))
            psnrs = (quality(image, pair).psnr_y for image in (pair.bicubic(), output))
            assert row.caption == "bicubic {:.2f} dB   network {:.2f} dB".format(*psnrs)


def test_images_of_different_sizes_are_in_separate_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_batch_size", lambda *args: 3)
    sizes = [(20, 24)] * 4 + [(24, 20)] * 2 + [(20, 24)]
    generator = np.random.default_rng(0)
    mixed = [random_pair(number, *size, generator) for number, size in enumerate(sizes)]
    found = [[pair.name for pair in batch.pairs] for batch in evaluate_batches(network(), mixed)]
    assert found == [["0", "1", "2"], ["3"], ["4", "5"], ["6"]]


def random_pair(number: int, height: int, width: int, generator: np.random.Generator) -> Pair:
    lr = generator.integers(0, 256, (height, width, 3), np.uint8)
    return Pair(str(number), 2, generator.integers(0, 256, (2 * height, 2 * width, 3), np.uint8), lr, lr)


# ---- failures


@pytest.mark.parametrize("tile", [None, 48])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_output_that_is_not_finite_is_an_error(shards: Shards, tile: int | None, value: float) -> None:
    """Both when it is found at the end and when it is found in a tile."""
    model = network()
    with torch.no_grad():
        next(model.parameters())[-1] = value
    wanted = pairs(shards, limit=3)
    with pytest.raises(RunError, match="the network's output is not finite: its weights are broken"):
        list(evaluate_pairs(model, wanted, tile))
    with pytest.raises(RunError, match="the network's output is not finite"):
        Validation(shards, False, 3).run(model, StopRequest())


def test_images_are_processed_in_tiles_when_memory_runs_out(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch fails, then each image; tiles of half an image fit."""
    monkeypatch.setattr(evaluate, "_batch_size", lambda *args: 4)
    monkeypatch.setattr(evaluate, "choose_tile", lambda *args: None)
    model, wanted = network(), pairs(shards, limit=5)
    expected = one_by_one(model, wanted)
    passes = Counter[tuple[int, ...]]()
    real = type(model).forward

    def forward(self: Network, images: torch.Tensor) -> torch.Tensor:
        passes[tuple(images.shape)] += 1
        if images.shape[0] * images.shape[2] > 31:
            raise RuntimeError("CUDA error: out of memory")
        return real(self, images)

    monkeypatch.setattr(type(model), "forward", forward)
    monkeypatch.setattr(TileRule, "smallest_px", 28)
    found = list(evaluate_pairs(model, wanted))
    assert passes[4, 3, 32, 32] == 1 and any(shape[2] < 32 for shape in passes)
    for one, (by_network, by_bicubic) in zip(found, expected, strict=True):
        assert one.network == approximately(by_network) and one.bicubic == by_bicubic
    monkeypatch.setattr(type(model), "forward", lambda self, images: images.view(-1, 7, 5))
    with pytest.raises(RuntimeError, match="invalid for input"):  # any other error is a bug
        list(evaluate_pairs(model, wanted))


def test_too_little_memory_is_explained(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: Network, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: out of memory")

    model = network()
    monkeypatch.setattr(evaluate, "choose_tile", lambda *args: None)
    monkeypatch.setattr(type(model), "forward", forward)
    with pytest.raises(UsageError, match="out of memory even with tiles of "):
        list(evaluate_pairs(model, pairs(shards, limit=1)))


def test_a_stop_ends_a_validation_after_the_current_batch(shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_batch_size", lambda *args: 1)
    stop, evaluated = StopRequest(), []
    real = validation.evaluate_batches

    def batches(*args: Any, **options: Any) -> Iterator[Any]:
        for batch in real(*args, **options):
            evaluated.append(len(batch.pairs))
            if len(evaluated) == 2:
                stop.adopt(15)
            yield batch

    monkeypatch.setattr(validation, "evaluate_batches", batches)
    run = Validation(shards, False, 10)
    assert run.run(network(), stop) is None and evaluated == [1, 1]
    assert run.run(network(), StopRequest()) is not None and len(evaluated) == 11


# ---- waiting for the device


class Reads(TorchDispatchMode):
    """Counts the operations that read a value, for which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


def test_a_validation_reads_from_the_device_once(
    shards: Shards, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads = []
    monkeypatch.setattr(validation, "download", lambda tensors: downloads.append(len(tensors)) or download(tensors))
    for limit in (3, 9):
        run = Validation(shards, False, limit)
        for _ in range(2):
            with Reads() as reads:
                assert run.run(network(), StopRequest()) is not None
            assert reads.count == 0 and len(downloads) == 1
            downloads.clear()


def test_batches_never_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the meta device have no values: an operation that reads one, or copies it to the host, fails."""
    device = torch.device("meta")
    generator = np.random.default_rng(0)
    wanted = [random_pair(number, 70, 80, generator) for number in range(5)]
    monkeypatch.setattr(evaluate, "choose_tile", lambda *args: None)
    (result,) = evaluate_batches(network().to(device), wanted)
    assert result.pairs == wanted and result.bicubic is not None
    assert all(tensor.device == device for tensor in (result.outputs, result.network, result.bicubic))
    assert result.network.shape == (5, 4) and result.outputs.shape == (5, 3, 140, 160)


def test_batches_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def fits(largest_px: int) -> Callable[..., int | None]:
        def choose(model: Network, height: int, width: int, device: torch.device) -> int | None:
            asked.append(height * width)
            return None if height * width <= largest_px else 100

        return choose

    pair = random_pair(0, 20, 30, np.random.default_rng(0))
    for largest, size, on_cpu in ((600 * 100, 16, 3), (600 * 7, 4, 3), (600 * 2, 2, 1), (600, 1, 1), (1, 1, 1)):
        monkeypatch.setattr(evaluate, "choose_tile", fits(largest))
        monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
        assert evaluate._batch_size(network(), torch.device("cuda"), pair, "auto") == size
        assert evaluate._batch_size(network(), CPU, pair, "auto") == on_cpu
    assert max(asked) == 16 * 600
    assert evaluate._batch_size(network(), torch.device("cuda"), pair, 64) == 1


def test_download_restores_shapes_and_dtypes() -> None:
    tensors = [
        torch.arange(3, dtype=torch.uint8),
        torch.tensor([[1.5, math.inf], [math.nan, -2]], dtype=torch.float64),
        torch.zeros(0, 4),
        torch.arange(24).view(2, 3, 4).permute(2, 0, 1),
    ]
    for found, expected in zip(download(tensors), tensors, strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert download([]) == []
