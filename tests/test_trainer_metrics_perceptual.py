"""LPIPS, DISTS, TOPIQ and NIQE: files, messages before the start, how images are passed to pyiqa, and printed values.

tests/peers/test_pyiqa.py compares the values with other implementations.
"""

import hashlib
import logging
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import fake_pyiqa
import pytest
import torch
from click.testing import CliRunner
from fake_pyiqa import PACKAGE
from helpers import SMALL, events, trainer
from torch import Tensor

from srshards.errors import UsageError
from trainer.commands.options import METRIC_WEIGHTS
from trainer.evaluation import perceptual
from trainer.evaluation.perceptual import PerceptualMetrics, load_metrics
from trainer.metrics_table import METRICS, OWN, PERCEPTUAL
from trainer.weights_table import WEIGHTS_FILES

CPU = torch.device("cpu")
FILES = {file.name: file for metric in METRICS.values() for file in metric.files}
ALEXNET, LPIPS = "alexnet-owt-7be5be79.pth", "LPIPS_v0.1_alex-df73285e.pth"
VGG16, DISTS = "vgg16-397923af.pth", "DISTS_weights-f5e65c96.pth"


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PyTorch's hub cache, empty. pyiqa is not installed."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    return tmp_path / "hub"


@pytest.fixture
def use_pyiqa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install the stand-in, with the given code."""
    return partial(fake_pyiqa.use_pyiqa, tmp_path / "site", monkeypatch)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all files, each with a number; the table has their digests."""
    folder = tmp_path / "my weights"
    folder.mkdir()
    for number, name in enumerate(FILES):
        torch.save({"value": torch.tensor(float(number))}, folder / name)
    expect_these(folder, monkeypatch)
    return folder


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:8]


def expect_these(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, metric in METRICS.items():
        files = [
            replace(file, sha256=digest((folder / file.name).read_bytes())) if file.sha256 else file
            for file in metric.files
        ]
        monkeypatch.setitem(METRICS, name, replace(metric, files=tuple(files)))


def refusal(*names: str, weights: Path | None = None) -> str:
    with pytest.raises(UsageError) as refused:
        load_metrics(names, CPU, weights)
    return str(refused.value)


def curl(folder: Path, name: str) -> str:
    address = (
        "download.pytorch.org/models"
        if name in (ALEXNET, VGG16)
        else ("huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main")
    )
    quoted = f"'{folder / name}'" if " " in str(folder) else folder / name
    return f"run: curl -fL --create-dirs -o {quoted} https://{address}/{name}"


# ---- the table


def test_directions_and_targets() -> None:
    assert (*OWN, *PERCEPTUAL) == tuple(METRICS)
    assert [name for name in METRICS if not METRICS[name].higher_is_better] == ["lpips", "dists", "niqe"]
    assert [name for name in METRICS if not METRICS[name].needs_target] == ["niqe"]


@pytest.mark.slow
def test_the_table_and_the_option_do_not_import_torch() -> None:
    code = "import sys, trainer.metrics_table, trainer.commands.options; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_the_option_takes_a_path() -> None:
    @click.command()
    @METRIC_WEIGHTS
    def command(metric_weights: Path | None) -> None:
        click.echo(repr(metric_weights))

    result = CliRunner().invoke(command, ["--metric-weights", "a b"])
    assert result.output == f"{Path('a b')!r}\n"


# ---- before the start


def test_without_pyiqa() -> None:
    message = "pyiqa is not installed, which computes lpips and niqe; run `pip install 'sr-shards[metrics]'`"
    assert refusal("lpips", "niqe").startswith(message)


def test_missing_files_are_listed_at_once(hub: Path, use_pyiqa: Callable[..., None]) -> None:
    use_pyiqa()
    first, *lines = refusal("lpips", "dists", "topiq", "niqe").splitlines()
    assert first == (
        "without these files, lpips, dists, topiq and niqe cannot be computed; fetch them, or pass a folder that has "
        "them with --metric-weights:"
    )
    caches = {name: hub / ("checkpoints" if name in (ALEXNET, VGG16) else "pyiqa") for name in FILES}
    assert lines == [f"  {name} ({FILES[name].size}) is missing; {curl(caches[name], name)}" for name in FILES]


def test_a_missing_file_belongs_into_the_given_folder(hub: Path, weights: Path, use_pyiqa: Callable[..., None]) -> None:
    use_pyiqa()
    (weights / VGG16).unlink()
    first, line = refusal("lpips", "dists", weights=weights).splitlines()
    assert first.startswith("without these files, dists cannot be computed; ")
    assert line == f"  {VGG16} (553 MB) is missing; {curl(weights, VGG16)}"
    assert not hub.exists()


def test_a_damaged_file(weights: Path, use_pyiqa: Callable[..., None]) -> None:
    use_pyiqa()
    (weights / LPIPS).write_bytes(b"<html>404</html>")
    _, line = refusal("lpips", weights=weights).splitlines()
    expected = METRICS["lpips"].files[1].sha256
    found = f"(SHA-256 of {weights / LPIPS}: {digest(b'<html>404</html>')}..., not {expected}...)"
    assert line == f"  {LPIPS} (6 kB) is damaged {found}; {curl(weights, LPIPS)}"


def test_a_file_that_cannot_be_read(weights: Path, use_pyiqa: Callable[..., None]) -> None:
    use_pyiqa()
    (weights / LPIPS).unlink()
    (weights / LPIPS).symlink_to("/proc/self/mem")  # whose first page cannot be read, not even by root
    message = f"cannot read {weights / LPIPS}: Input/output error; check its permissions and the disk"
    assert refusal("lpips", weights=weights) == message


def test_metric_weights_that_cannot_be_used(tmp_path: Path, use_pyiqa: Callable[..., None]) -> None:
    use_pyiqa()
    start = f"--metric-weights {tmp_path / 'x'}: "
    assert refusal("niqe", weights=tmp_path / "x") == (
        f"{start}no such file or folder; pass a folder that has the files"
    )
    (tmp_path / "x").touch()
    assert refusal("niqe", weights=tmp_path / "x") == (
        f"{start}no published file has this name; pass a folder, or a file by its published name: "
        f"{', '.join(WEIGHTS_FILES)}"
    )


@pytest.mark.parametrize(
    ("package", "archs", "reason"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", ("lpips",), "operator torchvision::nms"),
        ("import a_package_that_it_needs", ("lpips",), "No module named 'a_package_that_it_needs'"),
        (PACKAGE, (), "No module named 'pyiqa.archs.lpips_arch'"),
    ],
)
def test_pyiqa_that_cannot_be_imported(
    package: str, archs: tuple[str, ...], reason: str, weights: Path, use_pyiqa: Callable[..., None]
) -> None:
    use_pyiqa(package, archs)
    message = refusal("lpips", weights=weights)
    assert message.startswith(f"cannot import pyiqa: {reason}")
    assert f"; check that torchvision fits PyTorch {torch.__version__}, and run `pip install 'sr-shards" in message


def test_a_file_that_pyiqa_cannot_load(weights: Path, use_pyiqa: Callable[..., None]) -> None:
    use_pyiqa()
    path = weights / "niqe_modelparameters.mat"  # the digest of which is not known
    torch.save({"other": torch.zeros(1)}, path)
    assert refusal("niqe", weights=weights).startswith(
        f"pyiqa 0.1.16 cannot load niqe from {path}: 'value'; delete and fetch these files again, or run `pip install"
    )


class Attack:
    """Makes a folder when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("attacked",)


def test_no_code_from_a_file_runs(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_pyiqa: Callable[..., None]
) -> None:
    use_pyiqa()
    monkeypatch.chdir(tmp_path)
    (weights / "niqe_modelparameters.mat").write_bytes(pickle.dumps({"value": Attack()}))
    assert "cannot load niqe" in refusal("niqe", weights=weights)
    assert not Path("attacked").exists()


def test_out_of_memory_while_loading(weights: Path, use_pyiqa: Callable[..., None]) -> None:
    use_pyiqa(PACKAGE.replace('print("Loading', 'raise MemoryError("'))
    assert refusal("niqe", weights=weights) == "out of memory for niqe on cpu; omit it, or close other programs"


# ---- loading


def calls() -> list[Any]:
    return list(sys.modules["pyiqa"].calls)


def test_files_come_from_the_folder_or_from_the_caches(
    hub: Path, weights: Path, use_pyiqa: Callable[..., None]
) -> None:
    use_pyiqa()
    numbers = {name: float(number) for number, name in enumerate(FILES)}
    for name, cache in ((ALEXNET, "checkpoints"), (LPIPS, "pyiqa")):
        (hub / cache).mkdir(parents=True)
        (weights / name).rename(hub / cache / name)
    load_metrics(["topiq", "lpips"], CPU, weights)
    (hub / "checkpoints" / VGG16).write_bytes(b"not used")
    load_metrics(["dists"], CPU, weights)
    cached, topiq = (hub / "pyiqa" / name for name in (LPIPS, "cfanet_fr_kadid_res50-2c4cc61d.pth"))
    assert cached.exists() and not topiq.exists()
    load_metrics(["lpips"], CPU, None)
    load_metrics(["lpips"], CPU, (hub / "checkpoints" / ALEXNET))  # one of the files; the other is in the cache
    lpips = {"name": "lpips", "device": CPU, "loaded": [numbers[LPIPS], numbers[ALEXNET]]}
    assert calls() == [
        {"name": "topiq_fr", "device": CPU, "loaded": [numbers[topiq.name]], "backbone_pretrain": False},
        lpips,
        {"name": "dists", "device": CPU, "loaded": [numbers[DISTS], numbers[VGG16]]},
        lpips,
        lpips,
    ]


def test_loading_is_quiet_and_changes_no_state(
    weights: Path,
    use_pyiqa: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    use_pyiqa()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    monkeypatch.setattr(logging.root.manager, "disable", 5)
    before = dict(os.environ), logging.root.manager.disable, torch.hub.get_dir()
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        load_metrics(["lpips"], CPU, weights)
    assert torch.equal(torch.rand(1), expected)
    assert (dict(os.environ), logging.root.manager.disable, torch.hub.get_dir()) == before
    assert recorded == [] and capfd.readouterr() == ("", "")


# ---- measuring


@pytest.fixture
def metrics(weights: Path, use_pyiqa: Callable[..., None]) -> PerceptualMetrics:
    use_pyiqa()
    return load_metrics(["niqe", "lpips", "topiq"], CPU, weights)


def images(seed: int, count: int = 2, size: tuple[int, int] = (106, 120)) -> Tensor:
    """Images as the trainer passes them: views in channels_last layout."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 200, (count, *size, 3), generator=generator, dtype=torch.uint8).permute(0, 3, 1, 2)


def test_values_are_those_of_the_images_inside_the_border(metrics: PerceptualMetrics) -> None:
    outputs, targets = images(1), images(2)
    values = metrics.measure(outputs, targets, 3)
    assert values.shape == (2, 3) and values.dtype == torch.float64
    inside, target = (one[:, :, 3:-3, 3:-3].double() / 255 for one in (outputs, targets))
    differences = (inside - target).mean((1, 2, 3))
    expected = torch.stack([inside.mean((1, 2, 3)), differences, differences], 1)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-7)
    assert calls()[-3:] == [
        ("niqe", (1, 3, 100, 114), True, True, 0),
        ("lpips", (1, 3, 100, 114), True, True, 1),
        ("topiq_fr", (1, 3, 100, 114), True, True, 1),
    ]
    assert torch.equal(metrics.measure(outputs, targets, 0)[1], metrics.measure(outputs[1:], targets[1:], 0)[0])


def test_nan_where_a_metric_is_not_defined(metrics: PerceptualMetrics) -> None:
    outputs = images(1)
    outputs[0] = 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = metrics.measure(outputs, images(2), 4)
    assert values.isnan().tolist() == [[True, False, False], [False] * 3]


def test_images_that_are_too_small(metrics: PerceptualMetrics) -> None:
    small = images(1, size=(103, 200))
    with pytest.raises(UsageError) as refused:
        metrics.measure(small, small, 4)
    assert str(refused.value) == (
        "niqe needs at least 96 px inside the border, not 192 x 95 px; omit it, or evaluate larger images"
    )
    with pytest.raises(ValueError, match="expected images of equal shape"):
        metrics.measure(small, images(1), 4)


def test_images_that_are_too_large(metrics: PerceptualMetrics, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = "omit it, evaluate smaller images, or close other programs"
    bright = images(1) + 55
    bright[:, :, 50, 50] = 255
    with pytest.raises(UsageError) as refused:
        metrics.measure(bright, bright, 3)
    assert str(refused.value) == f"out of memory: lpips of 114 x 100 px on cpu; {advice}"
    monkeypatch.setattr(perceptual, "free_bytes", lambda device: 6_000_000)
    with pytest.raises(UsageError) as refused:
        metrics.measure(images(1), images(2), 3)
    assert str(refused.value) == (
        f"topiq of 114 x 100 px needs about 11.4 MB of memory on cpu, of which 6.0 MB are free; {advice}"
    )


# ---- training


def test_the_closing_table_has_the_metrics_that_were_chosen(
    shards: Path, weights: Path, tmp_path: Path, use_pyiqa: Callable[..., None]
) -> None:
    use_pyiqa(PACKAGE.replace("0.999", "2"))
    out = tmp_path / "runs"
    args = ("--shards", shards / "scale_2x", "--out", out, "--run", "r", *SMALL, "--steps", 2, "--device", "cpu")
    result = trainer(*args, "--best", "topiq", "--metrics", "lpips", "--metric-weights", weights)
    assert result.code == 0, result.err
    (line,) = events(out / "r", "val")
    metrics = [METRICS[name] for name in ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb", "lpips", "topiq")]
    rows = [[one.formatted(line[f"{prefix}{one.name}"]) for one in metrics] for prefix in ("bicubic_", "")]
    shown = [re.split("  +", text.strip()) for text in result.out.splitlines()[:3]]
    assert shown == [[one.label for one in metrics], ["bicubic", *rows[0]], ["network", *rows[1]]]
