"""`pack`: tiles of given pairs, and everything that `generate` promises too."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import contract_files, make_photos, markers, run_cli, running, unfinished, wait_until
from pair_folders import write_lmdb
from pairs import hr_image, make_pairs, manifest, pack, samples, save, shrunk
from PIL import Image

from srshards.format import CODECS
from tests.drill.s3_server import Bucket

SEVERAL = ("--shard-bytes", "60KB")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pairs at 2x and 3x, HR of 99 x 130 px. Read-only."""
    return make_pairs(tmp_path_factory.mktemp("pairs"), 24)


@pytest.fixture(scope="module")
def packed(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `pairs` at both scales, several per scale. Read-only."""
    output = tmp_path_factory.mktemp("packed")
    pack(pairs, output, *SEVERAL, scales=(2, 3))
    return output


@pytest.fixture
def pairs_copy(pairs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pairs, tmp_path / "pairs"))


@pytest.mark.parametrize("scale", [2, 3])
def test_tiles_are_the_given_pixels_on_the_grid_of_lr(scale: int, pairs: Path, packed: Path) -> None:
    boxes: dict[str, list[list[int]]] = {}
    for sample in samples(packed / f"scale_{scale}x").values():
        json_, (x, y, width, height) = sample["json"], sample["json"]["box"]
        hr = np.asarray(Image.open(pairs / "HR" / json_["source"]))
        lr = np.asarray(Image.open(pairs / f"X{scale}" / json_["lr_source"]))
        assert not x % scale and not y % scale and (width, height) == (48, 48)
        assert (sample["hr"] == hr[y : y + 48, x : x + 48]).all()
        assert (sample["lr"] == lr[y // scale : (y + 48) // scale, x // scale : (x + 48) // scale]).all()
        assert sample["up"].shape == (48, 48, 3)
        assert json_["class"] == json_["source"].partition("/")[0] and json_["scale"] == scale
        boxes.setdefault(json_["source"], []).append([x, y])
    # HR of 99 x 130 px is cropped to 98 x 130 px at 2x, and to 99 x 129 px at 3x; the last tile is at the edge.
    bottom, right = (50, 82) if scale == 2 else (51, 81)
    expected = [[x, y] for y in (0, 48, bottom) for x in (0, 48, right)]
    assert len(boxes) == 24 and all(found == expected for found in boxes.values())


def test_up_is_computed_by_the_method_or_omitted(pairs: Path, tmp_path: Path) -> None:
    pack(pairs, tmp_path / "nearest", "--method", "nearest")
    for sample in samples(tmp_path / "nearest" / "scale_2x").values():
        assert (sample["up"] == sample["lr"].repeat(2, axis=0).repeat(2, axis=1)).all()
        assert sample["json"]["method"] == "nearest" and "up_source" not in sample["json"]
    pack(pairs, tmp_path / "none", "--no-up")
    assert all(set(sample) == {"hr", "lr", "json"} for sample in samples(tmp_path / "none" / "scale_2x").values())
    assert manifest(tmp_path / "none")["settings"]["up"] is False


def test_given_up_is_stored(pairs: Path, tmp_path: Path) -> None:
    for path in (pairs / "X2").rglob("*.png"):
        up = np.asarray(Image.open(path)).repeat(2, axis=0).repeat(2, axis=1)
        save(tmp_path / "up" / path.relative_to(pairs / "X2"), 255 - up)
    pack(pairs, tmp_path / "out", "--up", tmp_path / "up")
    for sample in samples(tmp_path / "out" / "scale_2x").values():
        assert (sample["up"] == 255 - sample["lr"].repeat(2, axis=0).repeat(2, axis=1)).all()
        assert sample["json"]["up_source"] == sample["json"]["source"]
    assert manifest(tmp_path / "out")["settings"]["pairs"]["up"] == "given"


def test_records_have_the_same_fields_in_all_samples(packed: Path) -> None:
    records = [sample["json"] for sample in samples(packed / "scale_3x").values()]
    types = {json.dumps({name: _types(value) for name, value in record.items()}) for record in records}
    assert len(types) == 1
    assert all(type(value) is float for value in records[0]["pair"].values()), "an integer would make another column"


def _types(value: object) -> object:
    return {name: _types(one) for name, one in value.items()} if isinstance(value, dict) else type(value).__name__


def test_manifest_and_output_count_pairs_cropped_images_and_the_worst(pairs: Path, tmp_path: Path) -> None:
    result = pack(pairs, tmp_path)
    found = manifest(tmp_path)
    assert found["totals"]["photos"] == found["pairs"]["checked"] == found["pairs"]["cropped"] == 24
    assert found["pairs"]["worst"]["path"].endswith(".png") and 0 <= found["pairs"]["worst"]["severity"] <= 1
    assert found["settings"]["pairs"] == {"up": "computed", "accept_misaligned": False}
    assert result.stdout.count("24 pairs checked, 24 with HR cropped to a multiple of the scale") == 1
    assert "Worst pair: class" in result.stdout and "24 of 24 in" in result.stdout
    assert "LR given, up by cubic" in result.stdout and "24 pairs in" in result.stdout


# ---- what generate promises


@pytest.mark.slow
def test_bytes_do_not_depend_on_workers(pairs: Path, packed: Path, tmp_path: Path) -> None:
    pack(pairs, tmp_path, *SEVERAL, "--workers", 2, scales=(2, 3))
    assert contract_files(tmp_path) == contract_files(packed) and len(markers(tmp_path)) > 4


@pytest.mark.slow
def test_killed_run_resumes(pairs: Path, packed: Path, tmp_path: Path) -> None:
    lrs = ("--lr", pairs / "X2", "--lr", pairs / "X3")
    args = ("pack", "--hr", pairs / "HR", *lrs, "-o", tmp_path, "--auto", "--size", 48, "--workers", 2, *SEVERAL)
    with running(*args) as process:
        wait_until(lambda: markers(tmp_path), process)
        process.kill()
        process.wait()
    finished = {path: path.stat().st_mtime_ns for path in markers(tmp_path)}
    result = pack(pairs, tmp_path, *SEVERAL, scales=(2, 3))
    assert contract_files(tmp_path) == contract_files(packed) and not unfinished(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "finished shards are not rebuilt"
    assert f"{len(finished)} kept" in result.stdout


def test_unchanged_shards_are_kept(pairs_copy: Path, packed: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(packed, tmp_path / "out"))
    assert "shards are up to date" in pack(pairs_copy, output, *SEVERAL, scales=(2, 3)).stdout
    changed = pairs_copy / "X3" / "class0" / "img0.png"
    save(changed, shrunk(hr_image(99, 130, 0), 3) ^ 1)
    result = pack(pairs_copy, output, *SEVERAL, scales=(2, 3))
    assert "Shards: 1 built" in result.stdout, "a changed LR image affects its shard at its scale alone"
    assert contract_files(output).keys() == contract_files(packed).keys()


def test_an_added_scale_keeps_the_others(pairs: Path, packed: Path, tmp_path: Path) -> None:
    pack(pairs, tmp_path, *SEVERAL, scales=(3,))
    result = pack(pairs, tmp_path, *SEVERAL, scales=(2, 3))
    kept = len(list((packed / "scale_3x").glob("*.tar")))
    assert f"{kept} kept, 0 removed" in result.stdout
    assert contract_files(tmp_path) == contract_files(packed)


def test_sample_and_exclude(pairs: Path, tmp_path: Path) -> None:
    exclude = tmp_path / "exclude.txt"
    exclude.write_text("class0/img0.png\nclass1/img1.png\nclass1/none.png\n")
    result = pack(pairs, tmp_path / "out", "--sample", 0.5, "--exclude", exclude)
    assert "11 of 22 in" in result.stdout and "Exclude 2 pairs listed in exclude.txt" in result.stdout
    assert "1 path in exclude.txt not found in the input: class1/none.png" in result.stdout
    used = {sample["json"]["source"] for sample in samples(tmp_path / "out" / "scale_2x").values()}
    assert len(used) == 11 and not used & {"class0/img0.png", "class1/img1.png"}


@pytest.mark.parametrize("codec", [name for name in CODECS if name != "npy"])
def test_codecs_hold_the_same_pixels(codec: str, pairs: Path, tmp_path: Path) -> None:
    pack(pairs, tmp_path / codec, "--codec", codec, "--sample", 0.2)
    pack(pairs, tmp_path / "npy", "--sample", 0.2)
    assert run_cli("unpack", tmp_path / codec, "-o", tmp_path / "a").returncode == 0
    assert run_cli("unpack", tmp_path / "npy", "-o", tmp_path / "b").returncode == 0
    found = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.png")}
    assert found and all((tmp_path / "b" / name).read_bytes() == content for name, content in found.items())


def test_dry_run_changes_nothing(pairs: Path, tmp_path: Path) -> None:
    result = pack(pairs, tmp_path / "out", "--dry-run")
    assert "shard" in result.stdout and not (tmp_path / "out").exists()


def test_other_settings_require_force(pairs: Path, packed: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(packed, tmp_path / "out"))
    result = pack(pairs, output, *SEVERAL, "--accept-misaligned", expect=2)
    assert "pairs LR given, up computed -> LR given, up computed, misaligned pairs accepted" in result.stderr
    photos = make_photos(tmp_path / "photos", 4)
    result = run_cli("generate", "-i", photos, "-o", output, "-s", 2, "--auto", "--size", 48)
    assert result.returncode == 2 and "pairs LR given, up computed -> none" in result.stderr


def test_pairs_and_shards_in_a_store(pairs: Path, packed: Path, s3: Bucket, tmp_path: Path) -> None:
    source, target = s3.put_folder(pairs, "pairs"), f"{s3.address}/shards"
    lrs = ("--lr", f"{source}/X2", "--lr", f"{source}/X3")
    args = ("--hr", f"{source}/HR", *lrs, "-o", target, "--auto", "--size", 48, "--workers", 0, *SEVERAL)
    result = run_cli("pack", *args)
    assert result.returncode == 0, result.stderr
    s3.download("shards", tmp_path / "copy")
    assert contract_files(tmp_path / "copy") == contract_files(packed)
    assert "shards are up to date" in run_cli("pack", *args).stdout


@pytest.mark.slow
def test_pairs_in_an_lmdb(pairs: Path, packed: Path, tmp_path: Path) -> None:
    """The same bytes, also for several processes, which each open the LMDB."""
    for name in ("HR", "X2"):
        write_lmdb(tmp_path / f"{name}.lmdb", sorted((pairs / name).rglob("*.png")), pairs / name)
    args = ("--hr", tmp_path / "HR.lmdb", "--lr", tmp_path / "X2.lmdb", "-o", tmp_path / "out", "--auto", "--size", 48)
    result = run_cli("pack", *args, "--workers", 2, *SEVERAL)
    assert result.returncode == 0, result.stderr
    assert contract_files(tmp_path / "out" / "scale_2x") == contract_files(packed / "scale_2x")


# ---- commands that read packed shards


def test_packed_shards_pass_verify_and_describe_themselves(packed: Path) -> None:
    assert "all intact" in run_cli("verify", packed).stdout
    folder = packed / "scale_2x"
    overview = run_cli("inspect", folder).stdout
    assert "LR given, up computed" in overview and "checks of the given pairs" in overview
    key = next(iter(samples(folder)))
    sample = run_cli("inspect", folder, "--sample", key).stdout
    assert "lr source" in sample and "pair: displacement" in sample
    result = run_cli("rebuild", key, folder)
    assert result.returncode == 2 and f"LR of {key} was given, not made" in result.stderr


def test_report_and_preview_of_packed_shards(packed: Path, tmp_path: Path) -> None:
    assert run_cli("preview", packed / "scale_2x", "-o", tmp_path / "preview.png").returncode == 0
    assert run_cli("report", packed, "-o", tmp_path / "report.html").returncode == 0
    page = (tmp_path / "report.html").read_text()
    assert "LR, as given" in page and "pairs failed" not in page and "The last run of <code>pack</code>" in page
