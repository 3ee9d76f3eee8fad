"""`python -m trainer evaluate` with several sets, networks and metrics: table, JSON, wins, refusals before any work."""

import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import generate, make_photo, trainer
from PIL import Image
from torch import Tensor

from trainer.commands.tables import Group, table
from trainer.evaluation import compare, perceptual
from trainer.evaluation.compare import Comparison
from trainer.evaluation.evaluate import BatchResult
from trainer.evaluation.names import short_names
from trainer.evaluation.pairs import Pair
from trainer.evaluation.results import ImageResult, SetResult, best_of, value_text
from trainer.evaluation.sets import PhotoSet
from trainer.metrics_table import METRICS
from trainer.models import Network, network_spec
from trainer.models.weights import save_weights

NAMES = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")


def network(seed: int, scale: int = 2) -> Network:
    return network_spec("ultra_lite", scale).build(seed).eval()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.pth of runs `a` and `b`, which take LR, of `up`, which takes upsampled LR, and of `four`, all untrained."""
    folder = tmp_path_factory.mktemp("runs")
    for seed, (name, scale) in enumerate((("a", 2), ("b", 2), ("up", 1), ("four", 4))):
        (folder / name).mkdir()
        save_weights(folder / name / "best.pth", network(seed, scale).state_dict(), None)
    return folder


@pytest.fixture(scope="module")
def data(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards at 2x in `shards/scale_2x`, and photos of different sizes in `Set2`."""
    folder = tmp_path_factory.mktemp("data")
    generate(photos, folder / "shards", "-s", 2, "--val-fraction", 0.1)
    (folder / "Set2").mkdir()
    for number, size in enumerate(((60, 81), (72, 50))):
        Image.fromarray(make_photo(*size, number)).save(folder / "Set2" / f"{number}.png")
    return folder


@pytest.fixture
def without_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if an image is evaluated."""

    def evaluated(*args: object) -> None:
        pytest.fail("an image was evaluated")

    monkeypatch.setattr(compare, "evaluate_batches", evaluated)


class FakePerceptual:
    """LPIPS as the mean difference of both images, and NIQE as the mean of the output, NaN for dark ones."""

    names = ("lpips", "niqe")

    def measure(self, outputs: Tensor, targets: Tensor, border: int) -> Tensor:
        assert outputs.dtype == torch.uint8 and border == 2
        means = outputs.double().mean((1, 2, 3))
        difference = (outputs.double() - targets.double()).abs().mean((1, 2, 3))
        return torch.stack([difference, means.where(means > 100, torch.nan)], 1)


def weights(runs: Path, *names: str) -> list[object]:
    return [word for name in names for word in ("--weights", runs / name / "best.pth")]


def evaluate(*args: object) -> Any:
    result = trainer("evaluate", *args, "--device", "cpu", "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def refused(*args: object) -> str:
    result = trainer("evaluate", *args, "--device", "cpu")
    assert result.code == 2 and result.out == "", result
    assert result.err.startswith(("Error: ", "Usage: ")) and "Traceback" not in result.err
    return result.err


# ---- names, means and wins


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["runs/a/best.pth", "runs/b/best.pth"], ["a", "b"]),
        (["runs/a/best.pth", "runs/a/model.pth"], ["best.pth", "model.pth"]),
        (["runs/a/best.pth", "runs/b/best.pth", "runs/b/model.pth"], ["a/best.pth", "b/best.pth", "b/model.pth"]),
        (["/x/w.pth", "/x/runs/w.pth"], ["w.pth", "runs/w.pth"]),
        (["/x/runs/w.pth", "/x/runs/runs/w.pth"], ["w.pth", "runs/w.pth"]),
        (["bicubic/w.pth", "HR/w.pth", "c/w.pth"], ["bicubic/w.pth", "HR/w.pth", "c/w.pth"]),
        (["a.pth", "/a.pth"], ["a.pth", "//a.pth"]),
        (["/x/bicubic", "/x/HR"], ["x/bicubic", "x/HR"]),
    ],
)
def test_names_are_the_distinguishing_parts_of_the_paths(paths: list[str], expected: list[str]) -> None:
    assert short_names([Path(path) for path in paths]) == expected


def result(*values: tuple[float, float]) -> SetResult:
    """Results with PSNR-Y and LPIPS, alternately of bicubic, `a` and `b`."""
    rows = [dict(zip(("psnr_y", "lpips"), pair, strict=True)) for pair in values]
    images = [rows[first : first + 3] for first in range(0, len(rows), 3)]
    versions = ("bicubic", "a", "b")
    return SetResult("s", "s", 2, [ImageResult("i", dict(zip(versions, image, strict=True))) for image in images])


def test_wins_are_those_of_the_best_version_and_ties_count_for_none() -> None:
    found = result((50, 0.0), (30, 0.3), (31, 0.2), (1, 1.0), (32, 0.1), (32, 0.2), (1, 1.0), (32, 0.1), (33, 0.1))
    assert found.wins() == {"psnr_y": {"bicubic": 1, "a": 0, "b": 1}, "lpips": {"bicubic": 1, "a": 1, "b": 0}}
    identical = result((1, 1), (math.inf, 0), (math.inf, 0), (1, 1), (math.inf, math.nan), (60, 0))
    assert identical.wins() == {"psnr_y": {"bicubic": 0, "a": 1, "b": 0}, "lpips": {"bicubic": 0, "a": 0, "b": 0}}
    assert best_of({"a": 0.2, "b": 0.1}, "lpips") == ["b"]


def test_means_exclude_infinite_and_undefined_values() -> None:
    found = result((30, 0.2), (math.inf, math.nan), (math.inf, 0.5), (20, 0.4), (20, math.nan), (math.inf, math.nan))
    means = found.means()
    assert means["bicubic"] == {"psnr_y": 25, "lpips": pytest.approx(0.3)}
    assert means["a"]["psnr_y"] == 20 and means["b"] == {"psnr_y": math.inf, "lpips": 0.5}
    assert value_text("lpips", means["a"]["lpips"]) == "\N{EN DASH}"
    assert [value_text("psnr_y", value) for value in (30.126, math.inf)] == ["30.13 dB", "inf dB"]


def test_columns_that_do_not_fit_are_below_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [Group("a title that may be longer than the terminal", {"name": ["1.00 dB", "0.5", "22.00 dB", "0.25"]})]
    wide = table(groups, NAMES).splitlines()
    assert wide == [
        "         PSNR-Y  SSIM-Y      PSNR  SSIM",
        "a title that may be longer than the terminal",
        "  name  1.00 dB     0.5  22.00 dB  0.25",
    ]
    monkeypatch.setattr("trainer.commands.tables.columns", lambda stream: 30)
    assert [line.split() for line in table(groups, NAMES).splitlines() if line[:2] != "a "] == [
        ["PSNR-Y", "SSIM-Y"],
        ["name", "1.00", "dB", "0.5"],
        ["PSNR", "SSIM"],
        ["name", "22.00", "dB", "0.25"],
    ]


# ---- the command


def test_several_sets_are_evaluated_as_each_alone(runs: Path, data: Path) -> None:
    shards = ("--shards", data / "shards/scale_2x")
    named = ("--val", f"Photos={data / 'Set2'}", "--val", f"Again={data / 'shards/scale_2x'}")
    found = evaluate(*weights(runs, "a"), *shards, *named)
    assert [one["name"] for one in found["sets"]] == ["val", "Photos", "Again"]
    assert "images" not in found and "wins" not in found["sets"][0]
    alone = [evaluate(*weights(runs, "a"), *shards), evaluate(*weights(runs, "a"), "--hr", data / "Set2")]
    for one, expected in zip(found["sets"], alone, strict=False):
        assert (one["data"], one["scale"], one["mean"]) == tuple(expected[key] for key in ("data", "scale", "mean"))
        assert expected["sets"][0]["images"] == one["images"], "the result for one set has the new fields, too"
        flat = [{"image": image["image"], **image["values"]} for image in one["images"]]
        assert flat == expected["images"]
    assert found["sets"][2]["mean"] == found["sets"][0]["mean"]
    lines = trainer("evaluate", *weights(runs, "a"), *shards, *named).out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        *("PSNR-Y", "val,", "bicubic", "network", "Photos,", "bicubic", "network", "Again,", "bicubic", "network")
    ]
    assert f"Photos, {data / 'Set2'}, 2 images at 2x" in lines


def test_several_networks_are_evaluated_as_each_alone(runs: Path, data: Path) -> None:
    """Also if some take LR and others upsampled LR."""
    sets = ("--shards", data / "shards/scale_2x", "--val", f"Photos={data / 'Set2'}")
    names = ("up", "a", "b")
    versions = ("bicubic", *names)
    found = evaluate(*weights(runs, *names), *sets)
    assert [(one["name"], one["scale"]) for one in found["networks"]] == [("up", 1), ("a", 2), ("b", 2)]
    assert found["metrics"]["psnr_y"] == {"higher_is_better": True}
    for name in names:
        scale = ("--scale", 2) if name == "up" else ()
        alone = evaluate(*weights(runs, name), *sets, *scale)
        for one, expected in zip(found["sets"], alone["sets"], strict=True):
            assert one["mean"][name] == pytest.approx(expected["mean"]["network"], abs=1e-6)
            assert one["mean"]["bicubic"] == expected["mean"]["bicubic"]
    table_of = trainer("evaluate", *weights(runs, *names), *sets).out
    for one in found["sets"]:
        assert len({image["image"] for image in one["images"]}) == len(one["images"]) > 1
        for metric in NAMES:
            values = [[image["values"][name][metric] for name in versions] for image in one["images"]]
            best = [versions[int(np.argmax(row))] for row in values if row.count(max(row)) == 1]
            assert one["wins"][metric] == {name: best.count(name) for name in versions}
        for name in versions:
            row = [one["wins"][metric][name] for metric in NAMES]
            assert any(line.split() == [name, *map(str, row)] for line in table_of.splitlines())
    assert f"up: {runs}/up/best.pth (ultra_lite, 1x)\na: {runs}/a/best.pth (ultra_lite, 2x)\n" in table_of
    assert "\nImages on which bicubic or a network is better than all others:\n" in table_of


def test_metrics_are_chosen_and_ordered(runs: Path, data: Path) -> None:
    args = (*weights(runs, "a"), "--hr", data / "Set2", "--metrics", "ssim_rgb,psnr_y")
    assert list(evaluate(*args)["mean"]["network"]) == ["ssim_rgb", "psnr_y"]
    assert trainer("evaluate", *args).out.splitlines()[1].split() == ["SSIM", "PSNR-Y"]


def test_perceptual_metrics_are_measured_with_the_others(
    runs: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each network and of bicubic, in tiles or not. Undefined values are null, and win nothing."""
    monkeypatch.setattr(perceptual, "load_metrics", lambda names, device, weights: FakePerceptual())
    for number, grey in enumerate((200, 20)):
        photo = make_photo(220, 210, number).astype(int) // 8 + grey
        Image.fromarray(photo.astype(np.uint8)).save(tmp_path / f"{number}.png")
    args = (*weights(runs, "a", "b"), "--hr", tmp_path, "--metrics", "lpips,psnr_y,niqe")
    found = evaluate(*args)
    light, dark = (image["values"] for image in found["sets"][0]["images"])
    for version in ("bicubic", "a", "b"):
        assert list(light[version]) == ["lpips", "psnr_y", "niqe"]
        assert light[version]["niqe"] > 100 and dark[version]["niqe"] is None
        assert found["sets"][0]["mean"][version]["niqe"] == light[version]["niqe"]
    better = min(light, key=lambda name: light[name]["lpips"])
    assert found["sets"][0]["wins"]["lpips"][better] >= 1 and sum(found["sets"][0]["wins"]["niqe"].values()) <= 1
    tiled = evaluate(*args, "--tile", 64)
    for version in ("bicubic", "a"):
        for name, value in tiled["sets"][0]["mean"][version].items():
            assert value == pytest.approx(found["sets"][0]["mean"][version][name], rel=0.01)


def test_networks_process_an_image_before_the_next_is_read(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that memory does not grow with the number of images."""
    num_batches = num_read = 0
    evaluate_batches = compare.evaluate_batches

    def counted(*args: Any) -> Iterator[BatchResult]:
        nonlocal num_batches
        for batch in evaluate_batches(*args):
            num_batches += 1
            yield batch

    class Counted(PhotoSet):
        def pairs(self, rank: int = 0, ranks: int = 1) -> Iterator[Pair]:
            nonlocal num_read
            for pair in super().pairs(rank, ranks):
                num_read += 1
                yield pair

    monkeypatch.setattr(compare, "evaluate_batches", counted)
    for number in range(8):
        Image.fromarray(make_photo(40, 40 + 2 * number, number)).save(tmp_path / f"{number}.png")
    comparison = Comparison({"a": network(1), "b": network(2)}, NAMES, None, "auto", with_versions=True)
    found = []
    for image in comparison.run({False: Counted("s", tmp_path, 2, upsampled=False)}):
        assert {version: pixels.shape for version, pixels in image.versions.items()} == dict.fromkeys(
            ("bicubic", "a", "b", "HR"), (40, 40 + 2 * len(found), 3)
        )
        found.append(image.result)
        assert num_batches == 2 * len(found)
        assert num_read <= len(found) + 1, "the next one shows that a batch of equal size ends"
    assert len(found) == 8


# ---- refusals


@pytest.mark.usefixtures("without_work")
def test_weights_that_cannot_be_compared_are_refused(runs: Path, data: Path, tmp_path: Path) -> None:
    hr = ("--hr", data / "Set2")
    one, four = runs / "a/best.pth", runs / "four/best.pth"
    assert f"{one} upscales 2x, but {four} upscales 4x; pass weights of the same scale" in refused(
        *weights(runs, "up", "a", "four"), *hr
    )
    assert f"{four} upscales 4x, but {data}/shards/scale_2x is 2x" in refused(
        *weights(runs, "a", "four"), "--shards", data / "shards/scale_2x"
    )
    link = tmp_path / "link.pth"
    link.symlink_to(one)
    for same in (one, one.parent / "../a/best.pth", link):
        message = f"--weights {one} and --weights {same} are the same file; pass each file once"
        assert message in refused("--weights", one, "--weights", same, *hr)
    assert "no such file: " in refused(*weights(runs, "a", "none"), *hr)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(one.read_bytes()[:3000])
    assert f"cannot read weights from {broken}: the file is damaged" in refused(
        *weights(runs, "a"), "--weights", broken, *hr
    )
    assert "takes upsampled images of any scale; pass the scale, e.g. --scale 4" in refused(*weights(runs, "up"), *hr)


@pytest.mark.usefixtures("without_work")
def test_sets_that_cannot_be_evaluated_are_refused(runs: Path, data: Path, shards: Path, tmp_path: Path) -> None:
    def refusal(*args: object) -> str:
        return refused(*weights(runs, "a"), *args)

    photos = data / "Set2"
    assert "two sets have the name 'x': " in refusal("--val", f"x={photos}", "--val", f"x={data}")
    assert f"two sets have the name 'Set2': {photos} and {photos}; name the second" in refusal(
        "--hr", photos, "--val", photos
    )
    assert "'val' is the name of the validation split" in refusal("--val", f"val={photos}")
    assert f"no photos in {tmp_path}" in refusal("--hr", photos, "--val", f"empty={tmp_path}")
    for name in ("hq", "lq"):
        shutil.copytree(photos, tmp_path / "pairs" / name)
    assert refusal("--hr", tmp_path / "pairs") == (
        f"Error: {tmp_path}/pairs has not only HR photos: 2 of 4 images are LR or upsampled images by their names, "
        f"e.g. lq/0; pass {tmp_path}/pairs/hq\n"
    )
    assert f"{shards / 'scale_3x'} is 3x, but the network upscales 2x" in refusal("--val", f"x={shards / 'scale_3x'}")


@pytest.mark.usefixtures("without_work")
def test_metrics_that_cannot_be_measured_are_refused(
    runs: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = (*weights(runs, "a"), "--hr", data / "Set2", "--metrics")
    assert "unknown metric 'psnr'; did you mean 'psnr_y' or 'psnr_rgb'?" in refused(*args, "psnr")
    assert "unknown metric 'lpip'; did you mean 'lpips'?" in refused(*args, "lpip")
    assert "expected names of metrics, separated by commas, e.g. lpips,dists" in refused(*args, "psnr_y,")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert "pyiqa" in refused(*args, "psnr_y,lpips") or "alexnet" in refused(*args, "psnr_y,lpips")


def unreadable(folder: Path) -> list[Path]:
    """Four files that cannot be read as photos, by name, and two that can, one of them with damaged pixels."""
    folder.mkdir()
    for name, content in (("a.png", b"no image"), ("b.jpg", b""), ("c.heic", b"0000ftypheic0000")):
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "d.png")
    Image.fromarray(make_photo(60, 60, 0)).save(folder / "e.png")
    (folder / "f.png").write_bytes((folder / "e.png").read_bytes()[:-100])
    return sorted(folder.iterdir())[:4]


@pytest.mark.usefixtures("without_work")
def test_unreadable_photos_are_found_before_the_evaluation(runs: Path, data: Path, tmp_path: Path) -> None:
    """All of them, in all sets, each once."""
    a, b, c, d = unreadable(tmp_path / "x")
    args = (*weights(runs, "a"), "--hr", data / "Set2", "--val", tmp_path / "x")
    reasons = (
        f"{a} (not an image, or its header is damaged), {b} (empty file), {c} (HEIC is not supported; convert it to "
        f"JPEG or PNG first), {d} (it is not a regular file)"
    )
    assert f"Error: cannot read 4 photos: {reasons}; remove them\n" in refused(*args)
    assert f"Error: cannot read 4 photos: {reasons}; remove them\n" in refused(*args, "--val", f"y={tmp_path / 'x'}")
    (tmp_path / "x/e.png").write_bytes(b"no image")
    assert f"Error: cannot read 5 photos: {reasons}, ...; remove them\n" in refused(*args)
    for path in (a, b, c, d):
        path.unlink()
    only = f"{tmp_path / 'x/e.png'} (not an image, or its header is damaged)"
    assert f"Error: cannot read 1 photo: {only}; remove it\n" in refused(*args)


@pytest.mark.usefixtures("without_work")
def test_photos_that_are_too_small_are_found_before_the_evaluation(runs: Path, data: Path, tmp_path: Path) -> None:
    """For the window of SSIM at this scale, after cropping to a multiple of it."""
    paths = [tmp_path / f"{width}.png" for width in (14, 15, 16)]
    listed = [f"{path} ({path.stem} x 40 px)" for path in paths]
    for path in paths:
        Image.fromarray(make_photo(40, int(path.stem), 0)).save(path)
    args = ("--hr", data / "Set2", "--val", f"x={tmp_path}")
    for name, scale, number in (("a", 2, 2), ("four", 4, 3)):
        found = refused(*weights(runs, name), *args)
        start = f"Error: cannot evaluate {number} photos (SSIM-Y needs 11 px inside a border of {scale} px): "
        assert f"{start}{', '.join(listed[:number])}; remove them\n" in found
    paths[0].write_bytes(b"no image")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.fromarray(make_photo(15, 40, 0)).save(paths[1], exif=exif)
    found = refused(*weights(runs, "a"), *args)
    assert f"cannot read 1 photo: {paths[0]} (not an image, or its header is damaged); remove it\n" in found
    needed = "(SSIM-Y needs 11 px inside a border of 2 px)"
    assert f"  cannot evaluate 1 photo {needed}: {listed[1]}; remove it\n" in found


@pytest.mark.usefixtures("without_work")
def test_photos_that_are_too_small_for_a_metric_are_found_before_the_evaluation(
    runs: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptual, "load_metrics", lambda names, device, weights: FakePerceptual())
    args = (*weights(runs, "a"), "--hr", data / "Set2", "--metrics", "psnr_y,niqe")
    listed = f"{data / 'Set2/0.png'} (81 x 60 px), {data / 'Set2/1.png'} (50 x 72 px)"
    needed = f"NIQE needs {METRICS['niqe'].min_px} px inside a border of 2 px"
    assert f"cannot evaluate 2 photos ({needed}): {listed}; remove them, or omit the metric\n" in refused(*args)


def test_an_output_that_is_not_finite_is_an_error_of_its_network(runs: Path, data: Path, tmp_path: Path) -> None:
    state = {name: tensor * 1e30 for name, tensor in network(1).state_dict().items()}
    save_weights(tmp_path / "huge.pth", state, None)
    failed = trainer("evaluate", *weights(runs, "a"), "--weights", tmp_path / "huge.pth", "--hr", data / "Set2")
    assert failed.code == 1 and failed.out == ""
    assert "huge.pth: the network's output is not finite" in failed.err
