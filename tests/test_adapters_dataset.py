"""The datasets that adapters register in other frameworks, without these frameworks."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import framework_stand_ins
import numpy as np
import pytest
import torch
import yaml
from framework_stand_ins import ADAPTERS, PairedImageDataset, adapter
from helpers import generate, make_photos
from PIL import Image
from torch.utils.data import DataLoader

import srshards
from srshards.imaging.upsampling import upsample

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SIZES = {"basicsr": {"gt_size": 32}, "neosr": {"patch_size": 16}, "trainner_redux": {"gt_size": 32, "lq_size": 16}}
BATCH = {"basicsr": "batch_size_per_gpu", "neosr": "batch_size", "trainner_redux": "batch_size_per_gpu"}


@pytest.fixture(scope="module")
def opened(shards: Path) -> srshards.Shards:
    """39 training and 1 validation sample, 2x, HR of 64 px."""
    return srshards.open(shards / "scale_2x")


@pytest.fixture(params=list(ADAPTERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dataset_class(name: str) -> Iterator[Any]:
    with adapter(name) as (module, registry):
        assert registry == {"ShardsDataset": module.ShardsDataset}
        yield module.ShardsDataset


def options(name: str, shards: srshards.Shards, phase: str = "train", **changed: Any) -> dict[str, Any]:
    """Return the options of a dataset at scale 2, as a framework passes them."""
    return {
        "name": phase,
        "type": "ShardsDataset",
        "phase": phase,
        "scale": 2,
        "io_backend": {"type": "shards", "path": str(shards.path)},
        **({**SIZES[name], BATCH[name]: 4} if phase == "train" else {}),
        **changed,
    }


def as_framework_passes(name: str, opt: dict[str, Any]) -> Any:
    """Return options as a dict or, for traiNNer-redux, as a struct with fields."""
    return SimpleNamespace(**opt, __struct_fields__=tuple(opt)) if name == "trainner_redux" else opt


def make(dataset_class: Any, name: str, shards: srshards.Shards, *args: Any, **changed: Any) -> Any:
    return dataset_class(as_framework_passes(name, options(name, shards, *args, **changed)))


def to_uint8(image: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Convert 3 x H x W floats in [0, 1] to H x W x 3, exactly."""
    levels = image.double().numpy().transpose(1, 2, 0) * 255
    assert np.abs(levels - levels.round()).max() < 1e-4
    return levels.round().astype(np.uint8)


def test_training_items_are_matching_patches(dataset_class: Any, name: str, opened: srshards.Shards) -> None:
    """Without flips, an item is a crop of its sample, at the same place in both images, as floats divided by 255."""
    dataset = make(dataset_class, name, opened, use_hflip=False, use_rot=False)
    assert len(dataset) == 39
    random.seed(0)
    places = set()
    for number in (0, 7, 38, 38):
        item = dataset[number]
        sample = opened.train[number]
        assert sorted(item) == ["gt", "gt_path", "lq", "lq_path"]
        assert item["lq_path"] == item["gt_path"] == f"{opened.path}/{sample.key}.png"
        assert item["gt"].dtype == item["lq"].dtype == torch.float32
        assert item["gt"].is_contiguous() and item["gt"].shape == (3, 32, 32) and item["lq"].shape == (3, 16, 16)
        gt, lq = to_uint8(item["gt"]), to_uint8(item["lq"])
        found = [
            (top, left)
            for top in range(17)
            for left in range(17)
            if np.array_equal(sample.hr[2 * top : 2 * top + 32, 2 * left : 2 * left + 32], gt)
        ]
        assert len(found) == 1
        top, left = found[0]
        assert np.array_equal(sample.lr[top : top + 16, left : left + 16], lq)
        places.add((number, top, left))
    assert len(places) == 4


def test_patches_follow_the_seed_of_random(dataset_class: Any, name: str, opened: srshards.Shards) -> None:
    dataset = make(dataset_class, name, opened)

    def drawn() -> list[bytes]:
        random.seed(3)
        return [dataset[number]["gt"].numpy().tobytes() for number in (0, 0, 0, 1)]

    assert drawn() == drawn()
    assert len(set(drawn())) == 4


def test_validation_items_are_whole_images_named_after_the_photo(
    dataset_class: Any, name: str, opened: srshards.Shards
) -> None:
    dataset = make(dataset_class, name, opened, "val")
    (batch,) = DataLoader(dataset, batch_size=1)
    sample = opened.val[0]
    assert np.array_equal(to_uint8(batch["gt"][0]), sample.hr)
    assert np.array_equal(to_uint8(batch["lq"][0]), sample.lr)
    assert batch["gt_path"] == [f"{opened.path}/{Path(sample.meta['source']).stem}_{sample.key}.png"]
    assert Path(batch["lq_path"][0]).name == Path(batch["gt_path"][0]).name


def test_scale_1_reads_the_upsampled_image(dataset_class: Any, name: str, opened: srshards.Shards) -> None:
    size = {"patch_size": 32} if name == "neosr" else {}
    item = make(dataset_class, name, opened, scale=1, use_hflip=False, use_rot=False, **size)[0]
    assert item["gt"].shape == item["lq"].shape == (3, 32, 32)
    validation = make(dataset_class, name, opened, "val", scale=1)[0]
    assert np.array_equal(to_uint8(validation["lq"]), opened.val[0].up)


def test_items_are_on_the_cpu_whatever_the_default_device(
    dataset_class: Any, name: str, opened: srshards.Shards
) -> None:
    """neosr makes the GPU the default device, in data workers too."""
    with torch.device("meta"):
        dataset = make(dataset_class, name, opened)
        assert dataset[0]["gt"].device == dataset[0]["lq"].device == torch.device("cpu")


def test_redux_can_copy_the_file_of_a_validation_item(opened: srshards.Shards) -> None:
    """It computes metrics for a PairedImageDataset, and copies LR next to the images that it saves."""
    with adapter("trainner_redux") as (module, _):
        dataset = make(module.ShardsDataset, "trainner_redux", opened, "val")
    assert isinstance(dataset, PairedImageDataset) and dataset.label == "image pairs"
    path = Path(dataset[0]["lq_path"])
    assert dataset.opt.dataroot_lq == [str(path.parent)]
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), opened.val[0].lr)
    del dataset
    assert not path.parent.exists()


def test_examples_name_options_that_the_adapters_take(opened: srshards.Shards) -> None:
    """Each example trains and validates on shards, in the three lines that the documentation shows."""
    files = {"basicsr": "basicsr.yml", "trainner_redux": "trainner_redux.yml"}
    configs = {
        name: yaml.safe_load((EXAMPLES / file).read_text().replace("!!float", "")) for name, file in files.items()
    }
    if sys.version_info >= (3, 11):
        configs["neosr"] = tomllib.loads((EXAMPLES / "neosr.toml").read_text())
    for name, config in configs.items():
        for phase in ("train", "val"):
            opt = config["datasets"][phase]
            assert (opt.pop("type"), opt.pop("io_backend")) == (
                "ShardsDataset",
                {"type": "shards", "path": "shards/scale_4x"},
            )
            assert opt[BATCH[name]] == 16 if phase == "train" else opt == {"name": "val"}
            with adapter(name) as (module, _):
                opt = {**options(name, opened, phase), **opt, **(SIZES[name] if phase == "train" else {})}
                assert len(module.ShardsDataset(as_framework_passes(name, opt))) == len(opened.split(phase))


def test_data_times_of_the_documentation_are_those_of_the_result() -> None:
    cases = json.loads((ROOT / "benchmarks" / "results" / "basicsr.json").read_text())["cases"]
    page = (ROOT / "docs/how-to/other-trainers.md").read_text()
    for name, times in cases.items():
        assert f"| {name} | {times['data_s']['median']:.3f} s | {times['iteration_s']['median']:.3f} s |" in page


# ---- errors


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"io_backend": {"type": "disk"}}, "`io_backend`: expected type shards and the path of a folder of one scale"),
        ({"io_backend": None}, "found None; write e.g. `io_backend: {type: shards, path: shards/scale_4x}`"),
        (
            {"io_backend": {"type": "shards", "path": "missing"}},
            "`io_backend: path` missing: expected a folder of shar",
        ),
        (
            {"scale": 4},
            "`scale` 4: PATH has images for scale 2; set `scale` to 2, or to 1 for a network whose input is",
        ),
        ({"scale": None}, "`scale` None: PATH has images for scale 2"),
        ({"scale": "2"}, "`scale` '2': PATH has images for scale 2"),
        (
            {"io_backend": {"type": "shards", "path": "~nobody-here/shards"}},
            "`io_backend: path` ~nobody-here/shards: expected a folder of shar",
        ),
        (
            {"dataroot_gt": "HR", "dataroot_lq": "LR"},
            "`dataroot_gt` and `dataroot_lq` would have no effect: the shards contain HR and LR; delete the",
        ),
        ({"meta_info": "list.txt"}, "`meta_info` would have no effect: the shards contain HR and LR; delete it"),
        ({"mean": [0.5, 0.5, 0.5]}, "`mean` would have no effect: images are RGB in [0, 1]; delete it"),
        (
            {"use_rot": False},
            "`use_hflip` True and `use_rot` False: shards are read with both or neither; set them ali",
        ),
    ],
)
def test_option_that_does_not_fit_is_refused(
    dataset_class: Any, name: str, opened: srshards.Shards, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(srshards.ArgumentError) as refused:
        make(dataset_class, name, opened, **changed)
    assert message.replace("PATH", str(opened.path)) in str(refused.value)


def test_unknown_option_of_io_backend_is_refused(dataset_class: Any, name: str, opened: srshards.Shards) -> None:
    backend = {"type": "shards", "path": str(opened.path), "cach": "cache"}
    with pytest.raises(srshards.ArgumentError) as refused:
        make(dataset_class, name, opened, io_backend=backend)
    assert str(refused.value) == (
        "`io_backend`: unknown option cach; the options are type, path, cache, cache_bytes, decode, prefetch, "
        "patches_per_sample"
    )


def test_decode_must_be_a_boolean(dataset_class: Any, name: str, opened: srshards.Shards) -> None:
    backend = {"type": "shards", "path": str(opened.path), "decode": "no"}
    with pytest.raises(srshards.ArgumentError) as refused:
        make(dataset_class, name, opened, io_backend=backend)
    assert str(refused.value) == "`io_backend: decode` 'no': expected true or false"


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("basicsr", {"gt_size": 31}, "`gt_size` 31 is not divisible by the scale 2; try 30 or 32"),
        ("basicsr", {"gt_size": 96}, "`gt_size` 96: the stored HR images have 64 px; pass at most that, or generate"),
        ("basicsr", {"gt_size": None}, "`gt_size` is not set; a training dataset needs it"),
        ("basicsr", {"batch_size_per_gpu": None}, "`batch_size_per_gpu` is not set; a training dataset needs it"),
        ("basicsr", {"gt_size": 32.0}, "`gt_size` 32.0: expected an integer"),
        ("neosr", {"patch_size": None}, "`patch_size` is not set; a training dataset needs it"),
        ("neosr", {"patch_size": "16"}, "`patch_size` '16': expected an integer"),
        ("neosr", {"patch_size": 48}, "`patch_size` x `scale` 96: the stored HR images have 64 px; pass at most that"),
        ("trainner_redux", {"gt_size": 96}, "`gt_size` 96: the stored HR images have 64 px; pass at most that, or gen"),
    ],
)
def test_size_that_does_not_fit_is_refused(
    name: str, size: dict[str, Any], message: str, opened: srshards.Shards
) -> None:
    with adapter(name) as (module, _), pytest.raises(srshards.ArgumentError) as refused:
        make(module.ShardsDataset, name, opened, **size)
    assert str(refused.value).startswith(message)


def test_scale_1_upsamples_lr_of_shards_without_upsampled_images(tmp_path: Path) -> None:
    generate(make_photos(tmp_path / "photos", 3), tmp_path, "-s", 2, "--no-up", "--val-fraction", 0.4)
    shards = srshards.open(tmp_path / "scale_2x")
    with adapter("basicsr") as (module, _):
        validation = make(module.ShardsDataset, "basicsr", shards, "val", scale=1)[0]
        assert np.array_equal(to_uint8(validation["lq"]), upsample(shards.val[0].lr, 2, "cubic"))
        item = make(module.ShardsDataset, "basicsr", shards, scale=1)[0]
        assert item["gt"].shape == item["lq"].shape


def test_shards_without_validation_samples_are_refused(tmp_path: Path) -> None:
    generate(make_photos(tmp_path / "photos", 2), tmp_path, "-s", 2, "--val-fraction", 0)
    shards = srshards.open(tmp_path / "scale_2x")
    message = "has no validation samples; make the shards again with a"
    with adapter("basicsr") as (module, _), pytest.raises(srshards.ArgumentError, match=message):
        make(module.ShardsDataset, "basicsr", shards, "val")


# ---- without the framework


INSTALL = {
    "basicsr": "BasicSR is not installed; run `pip install basicsr`",
    "neosr": "neosr is not installed; run this in a clone of neosr, after its install_linux.sh",
    "trainner_redux": "traiNNer-redux is not installed; run this in a clone of traiNNer-redux, after its install.sh",
}


def test_importing_an_adapter_without_its_framework_says_how_to_install_it(name: str) -> None:
    with pytest.raises(ImportError) as refused:
        __import__(f"srshards.adapters.{name}")
    assert str(refused.value) == INSTALL[name]


@pytest.mark.slow
def test_command_without_its_framework_says_how_to_install_it(name: str) -> None:
    command = [sys.executable, "-m", f"srshards.adapters.{name}", "-opt", "train.yml"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"Error: {INSTALL[name]}\n"


def test_framework_that_is_broken_itself_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E.g. BasicSR with a torchvision that lacks what it imports."""
    (tmp_path / "basicsr").mkdir()
    (tmp_path / "basicsr" / "__init__.py").write_text("import torchvision.transforms.functional_tensor\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ImportError, match=r"BasicSR cannot be imported: No module named 'torchvision'; make its own tr"
    ):
        __import__("srshards.adapters.basicsr")
    sys.modules.pop("basicsr", None)


def test_stand_ins_leave_nothing_behind() -> None:
    with adapter("basicsr"):
        assert "basicsr.utils.registry" in sys.modules
    assert not [name for name in sys.modules if name.partition(".")[0] in framework_stand_ins.ADAPTERS.values()]
