"""Shards with `--codec tlc`: the samples and batches of `npy` shards, from every reader, and named damage."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL, generate, make_photos, read_images, run_cli, trainer

import srshards
from srshards.format import image_codec, load_manifest
from srshards.imaging import tlc
from srshards.shards.tar_index import load_index

OPTIONS = ("-s", 2, "--val-fraction", 0.2)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same photos as `tlc` and as `npy`: folders of one scale."""
    root = tmp_path_factory.mktemp("both")
    photos = make_photos(root / "photos", 12)
    for codec in ("tlc", "npy"):
        generate(photos, root / codec, *OPTIONS, "--codec", codec)
    return root / "tlc/scale_2x", root / "npy/scale_2x"


@pytest.fixture(scope="module")
def opened(both: tuple[Path, Path]) -> list[srshards.Shards]:
    return [srshards.open(folder) for folder in both]


def test_hr_and_up_are_tlc_and_lr_is_npy(both: tuple[Path, Path]) -> None:
    manifest = load_manifest(both[0])
    assert manifest.members("train") == ["hr.tlc", "lr.npy", "up.tlc", "json"]
    assert load_manifest(both[1]).members("val") == ["hr.npy", "lr.npy", "up.npy", "json"]
    assert [image_codec(name, "tlc") for name in ("hr", "lr", "lr1", "up")] == ["tlc", "npy", "npy", "tlc"]
    assert [image_codec(name, "png") for name in ("hr", "lr", "lr1", "up")] == ["png"] * 4
    for sample in load_index(both[0] / "train-000000.idx"):
        assert [member.extension for member in sample] == manifest.members("train")


def test_samples_equal_those_of_npy(opened: list[srshards.Shards]) -> None:
    assert [shards.codec for shards in opened] == ["tlc", "npy"]
    for ours, theirs in zip(*opened, strict=True):
        assert ours.key == theirs.key and ours.meta == theirs.meta
        for name in ("hr", "lr", "up"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name))


def test_the_core_does_not_change_shards(both: tuple[Path, Path], tmp_path: Path) -> None:
    photos = both[0].parent.parent / "photos"
    environment = {**os.environ, "SRSHARDS_NATIVE": "0"}
    arguments = ("-i", photos, "-o", tmp_path, "--size", 64, "--auto", "--workers", 1, *OPTIONS, "--codec", "tlc")
    assert run_cli("generate", *arguments, env=environment).returncode == 0
    for name in ("train-000000.tar", "val-000000.tar"):
        assert (tmp_path / "scale_2x" / name).read_bytes() == (both[0] / name).read_bytes()


@pytest.mark.parametrize("input_name", ["lr", "up"])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_equal_those_of_npy(opened: list[srshards.Shards], input_name: str, workers: int) -> None:
    found = []
    for shards in opened:
        arguments = {"batch_size": 3, "input": input_name, "workers": workers, "patches_per_sample": 1}
        with srshards.PatchLoader(shards, 32, **arguments) as loader:
            found.append([(batch.hr.numpy().copy(), batch.input.numpy().copy()) for batch in loader.steps(0, 6)])
    for ours, theirs in zip(*found, strict=True):
        assert all(map(np.array_equal, ours, theirs))


def test_datasets_and_pipelines_give_the_patches_of_npy(opened: list[srshards.Shards]) -> None:
    for ours, theirs in zip(*(srshards.PatchDataset(shards, 32) for shards in opened), strict=True):
        assert all(map(np.array_equal, ours, theirs))
    for ours, theirs in zip(*(srshards.webdataset(shards, 32, shuffle=0) for shards in opened), strict=True):
        assert all(map(np.array_equal, ours, theirs))


def test_decoded_cache_equals_npy(both: tuple[Path, Path], opened: list[srshards.Shards], tmp_path: Path) -> None:
    decoded = srshards.open(both[0], cache=tmp_path / "cache", decode=True)
    assert decoded.codec == "npy"
    for ours, theirs in zip(decoded, opened[1], strict=True):
        assert np.array_equal(ours.hr, theirs.hr) and np.array_equal(ours.up, theirs.up)
        assert np.array_equal(ours.lr, theirs.lr)
    cached = {path.read_bytes() for path in (tmp_path / "cache").glob("*.npy.tar")}
    assert cached == {path.read_bytes() for path in both[1].glob("*.tar")}


def test_commands_read_the_shards(both: tuple[Path, Path], tmp_path: Path) -> None:
    folder, key = both[0], "000000000003"
    assert "all intact" in run_cli("verify", folder).stdout
    assert "tlc" in run_cli("inspect", folder).stdout
    assert run_cli("preview", folder, "-o", tmp_path / "p.png").returncode == 0
    assert run_cli("report", folder, "-o", tmp_path / "r.html").returncode == 0
    assert "identical" in run_cli("rebuild", key, folder).stdout
    for source, target in ((folder, "a"), (both[1], "b")):
        assert run_cli("unpack", source, "-o", tmp_path / target).returncode == 0
    pictures = [{path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.png")} for name in "ab"]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 3 * 12


@pytest.mark.slow
def test_training_equals_that_on_npy(both: tuple[Path, Path], tmp_path: Path) -> None:
    for folder, run in zip(both, ("a", "b"), strict=True):
        steps = ("--steps", 3, "--patches-per-sample", 1)
        result = trainer("--shards", folder, "--out", tmp_path, "--run", run, *SMALL, *steps)
        assert result.code == 0, result.err
    assert (tmp_path / "a/model.pth").read_bytes() == (tmp_path / "b/model.pth").read_bytes()


def test_damage_is_named(both: tuple[Path, Path], tmp_path: Path) -> None:
    """A changed bit is found, in its sample alone."""
    folder = tmp_path / "scale_2x"
    folder.mkdir()
    for path in both[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    sample = load_index(folder / "train-000000.idx")[2]
    content = bytearray((folder / "train-000000.tar").read_bytes())
    content[sample[0].offset + sample[0].size - 20] ^= 4
    (folder / "train-000000.tar").write_bytes(content)
    result = run_cli("verify", folder)
    assert result.returncode == 1 and "its SHA-256 differs" in result.stderr
    shards = srshards.open(folder)
    with pytest.raises(srshards.RunError, match=r"000000000002\.hr\.tlc: expected 64 x 64 x 3, found damaged data"):
        _ = shards.train[2].hr
    assert np.array_equal(shards.train[1].hr, srshards.open(both[0]).train[1].hr)


def test_members_are_decoded_by_the_public_function(both: tuple[Path, Path]) -> None:
    expected = read_images(both[0] / "val-000000.tar")
    for sample in load_index(both[0] / "val-000000.idx"):
        data = (both[0] / "val-000000.tar").read_bytes()[sample[0].offset :][: sample[0].size]
        assert np.array_equal(srshards.decode_tlc(data), expected[sample[0].name])
        assert tlc.read_size(data) == (64, 64)
