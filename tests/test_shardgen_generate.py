"""Complete runs: reproducible bytes, and reuse of finished shards."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers import all_files, contract_files, generate, make_photo, make_photos, read_images, run_cli
from pairs import make_pairs, pack
from PIL import Image

from shardgen.shard.stages import STAGES
from srshards.format import load_json, load_manifest

SMALL = ("--shard-bytes", "300KB")


def counts(text: str) -> str:
    """Return the line with the numbers of shards built, kept and removed."""
    return next(line for line in text.splitlines() if line.startswith(("Shards:", "All ")))


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_bytes_do_not_depend_on_the_number_of_workers(workers: int, photos: Path, shards: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, 3, *SMALL, "--workers", workers)
    assert contract_files(tmp_path) == contract_files(shards)


def test_bytes_do_not_depend_on_folder_times_and_order(photos: Path, shards: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved photos"
    for path in sorted(photos.rglob("*.*"), reverse=True):  # some file systems list files in order of creation
        target = moved / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    generate(moved, tmp_path / "out", "-s", 3, 2, *SMALL)
    assert contract_files(tmp_path / "out") == contract_files(shards)


@pytest.mark.parametrize("first", [2, 3])
def test_added_scale_builds_only_its_own_shards(first: int, photos: Path, shards: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", first, *SMALL)
    expected = {name: digest for name, digest in contract_files(shards).items() if name.startswith(f"scale_{first}x")}
    assert {**contract_files(tmp_path), "README.md": ""} == {**expected, "README.md": ""}, "it lists the scales"
    result = generate(photos, tmp_path, "-s", 2, 3, *SMALL)
    num_shards = len(list((shards / "scale_2x").glob("*.tar")))
    assert counts(result.stdout) == f"Shards: {num_shards} built, {num_shards} kept, 0 removed."
    assert contract_files(tmp_path) == contract_files(shards)


def test_second_run_reports_up_to_date_shards(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, *SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*") if path.name != ".shardgen.lock"}
    result = generate(photos, tmp_path, "-s", 2, *SMALL)
    num_shards = len(list(tmp_path.rglob("*.tar")))
    assert counts(result.stdout) == f"All {num_shards} shards are up to date."
    assert result.stderr == ""
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.fixture
def photos_copy(photos: Path, tmp_path: Path) -> Path:
    """A copy of the photos that the test may change."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


def test_changed_photo_rebuilds_one_shard(photos_copy: Path, tmp_path: Path) -> None:
    generate(photos_copy, tmp_path / "out", "-s", 2, *SMALL)
    Image.fromarray(make_photo(90, 120, seed=999)).save(photos_copy / "class1" / "img1.jpg", quality=92)
    result = generate(photos_copy, tmp_path / "out", "-s", 2, *SMALL)
    kept = len(list(tmp_path.glob("out/scale_2x/*.tar"))) - 1
    assert counts(result.stdout) == f"Shards: 1 built, {kept} kept, 1 removed."
    generate(photos_copy, tmp_path / "fresh", "-s", 2, *SMALL)
    assert contract_files(tmp_path / "out") == contract_files(tmp_path / "fresh")


def test_added_or_removed_photo_rebuilds_one_shard(photos_copy: Path, tmp_path: Path) -> None:
    generate(photos_copy, tmp_path / "out", "-s", 2, *SMALL)
    total = len(list(tmp_path.glob("out/scale_2x/*.tar")))
    new = photos_copy / "class0" / "new.png"
    Image.fromarray(make_photo(90, 120, seed=998)).save(new)
    with_new = generate(photos_copy, tmp_path / "out", "-s", 2, *SMALL)
    new.unlink()
    without = generate(photos_copy, tmp_path / "out", "-s", 2, *SMALL)
    assert counts(with_new.stdout) == counts(without.stdout) == f"Shards: 1 built, {total - 1} kept, 1 removed."
    generate(photos_copy, tmp_path / "fresh", "-s", 2, *SMALL)
    assert contract_files(tmp_path / "out") == contract_files(tmp_path / "fresh")


@pytest.mark.parametrize(
    "change", [("--method", "area"), ("--codec", "png"), ("--size", "48"), ("--fit", "stretch"), ("--seed", "7")]
)
def test_changed_settings_replace_all_shards(
    change: tuple[str, str], photos: Path, shards: Path, shards_copy: Path, tmp_path: Path
) -> None:
    result = generate(photos, shards_copy, "-s", 2, 3, *SMALL, *change, "--force")
    old = len(list(shards.rglob("*.tar")))
    assert f"0 kept, {old} removed." in counts(result.stdout)
    generate(photos, tmp_path / "fresh", "-s", 2, 3, *SMALL, *change)
    assert contract_files(shards_copy) == contract_files(tmp_path / "fresh")
    assert all_files(shards_copy) - {".shardgen.lock"} == all_files(tmp_path / "fresh") - {".shardgen.lock"}


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (("--size", 48, "--codec", "png"), "size 64 -> 48, codec npy -> png"),
        (("--sample", 0.5), "sample 1.0 -> 0.5"),
        (("--no-up", "--seed", 7), "up true -> false, seed 0 -> 7"),
        (("--degradation", "realesrgan"), "degradation none -> realesrgan with 8 steps"),
    ],
)
def test_shards_of_other_settings_are_replaced_on_request_only(
    change: tuple[object, ...], differs: str, photos: Path, shards_copy: Path
) -> None:
    before = contract_files(shards_copy)
    result = generate(photos, shards_copy, "-s", 2, 4, *SMALL, *change, expect=2)
    message = f"{shards_copy / 'scale_2x'} was generated with other settings ({differs}): "
    assert message in result.stderr
    assert "finished shards would be removed. Pass --force (make: FORCE=1) to" in result.stderr
    arguments = ("generate", "-i", photos, "-o", shards_copy, "-s", 2, "--size", 64, *SMALL, *change, "--workers", 0)
    for options in ([], ["--dry-run"]):
        assert message in run_cli(*arguments, *options).stdout
    assert contract_files(shards_copy) == before
    answered = run_cli(*arguments, input="\n", stdin=None)
    assert answered.returncode == 1 and "Replace shards generated with other settings? [y/N]" in answered.stdout
    hint = "Pass --auto --force to replace them without a prompt, or another --output."
    assert answered.stderr == f"\nStopped; nothing was changed. {hint}\n"
    assert contract_files(shards_copy) == before
    assert run_cli(*arguments, input="y\n", stdin=None).returncode == 0
    assert generate(photos, shards_copy, "-s", 2, *SMALL, *change).stdout.startswith("All ")


def test_larger_sample_keeps_finished_shards(photos: Path, shards: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2, 3, *SMALL, "--sample", 0.6)
    small = {name: digest for name, digest in contract_files(tmp_path).items() if name.endswith(".tar")}
    complete = contract_files(shards)
    finished = [name for name, digest in small.items() if complete.get(name) == digest]
    assert len(finished) >= 4 and len(small) - len(finished) <= 4  # the last shard of each is incomplete
    result = generate(photos, tmp_path, "-s", 2, 3, *SMALL)
    assert f" {len(finished)} kept, {len(small) - len(finished)} removed." in counts(result.stdout)
    assert contract_files(tmp_path) == complete


def test_other_scales_are_left_unchanged(photos: Path, shards: Path, shards_copy: Path) -> None:
    generate(photos, shards_copy, "-s", 2, *SMALL, "--method", "area", "--force")
    of_3x = {k: v for k, v in contract_files(shards).items() if k.startswith("scale_3x")}
    assert {k: v for k, v in contract_files(shards_copy).items() if k.startswith("scale_3x")} == of_3x


def test_unrelated_files_are_left_unchanged(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "scale_2x").mkdir()
    for name in ("notes.txt", "train-1.tar", "train-000099.tar.bak", "other.json"):
        (tmp_path / "scale_2x" / name).write_text("mine")
    generate(photos, tmp_path, "-s", 2)
    generate(photos, tmp_path, "-s", 2, "--method", "area", "--force")
    for name in ("notes.txt", "train-1.tar", "train-000099.tar.bak", "other.json"):
        assert (tmp_path / "scale_2x" / name).read_text() == "mine"


@pytest.mark.parametrize("scales", ["-s 2 3", "-s 2,3", "-s 2 -s 3", "--scales 3 2 2", "--scales=3,2"])
def test_scales_are_parsed_in_every_notation(scales: str, photos: Path, tmp_path: Path) -> None:
    result = run_cli("generate", "-i", photos, "-o", tmp_path / "out", *scales.split(), "--size", 64, "--dry-run")
    assert result.returncode == 0, result.stderr
    scales_listed = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("scale_")]
    assert scales_listed == ["scale_2x", "scale_3x"]


def test_dry_run_prints_the_plan_and_changes_nothing(photos: Path, tmp_path: Path) -> None:
    result = run_cli("generate", "-i", photos, "-o", tmp_path / "out", "-s", 3, "--size", 64, "--dry-run")
    assert not (tmp_path / "out").exists()
    assert "Photos  40 of 40" in result.stdout
    line = "scale_3x  HR 63 px (64 cropped to a multiple of 3), LR 21 px, cubic, npy: 2 shards to build (40 samples)"
    assert line in result.stdout
    assert "Disk    1.1 MB needed, " in result.stdout


@pytest.mark.parametrize(
    ("count", "options", "note"),
    [
        (19, (), None),
        (20, ("--val-fraction", 0), None),
        (55, (), "1 validation photo: results will depend on it; --val-fraction 0.1 reserves 5"),
        (55, ("--sample", 0.5), ""),
        (55, ("--val-fraction", 0.05), ""),
        (55, ("--val-fraction", 0.1), None),
    ],
)
def test_few_validation_photos_are_noted_with_the_fraction_for_more(
    count: int, options: tuple[object, ...], note: str | None, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(count):
        (photos / f"{number}.jpg").write_bytes(b"")  # a plan reads no photo

    def plan(*args: object) -> str:
        return run_cli("generate", "-i", photos, "-o", tmp_path / "out", "--dry-run", *args).stdout

    notes = [line for line in plan(*options).splitlines() if line.startswith("Note ")]
    assert len(notes) == (note is not None) and (not note or notes == [f"Note    {note}"])
    for line in notes:
        found = re.search(r"^Note    (\d) validation photos?: .*; --val-fraction (\S+) reserves (\d+)$", line)
        assert found and f" {found[1]} val)" in plan(*options)
        assert f" {found[3]} val)" in plan(*options, "--val-fraction", found[2]) and int(found[3]) >= 5


def test_few_validation_photos_of_a_folder_are_not_noted(photos: Path, tmp_path: Path) -> None:
    val = make_photos(tmp_path / "val", 1)
    result = run_cli("generate", "-i", photos, "-o", tmp_path / "out", "--val", val, "--dry-run")
    assert "Val     1 in" in result.stdout and "Note" not in result.stdout


def test_few_validation_pairs_are_noted(tmp_path: Path) -> None:
    plan = pack(make_pairs(tmp_path / "pairs", 20, (2,)), tmp_path / "out", "--dry-run").stdout
    found = re.search(
        r"^Note    2 validation pairs: results will depend on them; --val-fraction (\S+) reserves (\d+)$",
        plan,
        re.MULTILINE,
    )
    assert found and "(18 train, 2 val)" in plan
    again = pack(tmp_path / "pairs", tmp_path / "out", "--dry-run", "--val-fraction", found[1]).stdout
    assert f" {found[2]} val)" in again


def test_generate_without_auto_asks_for_confirmation(photos: Path, tmp_path: Path) -> None:
    command = ("generate", "-i", photos, "-o", tmp_path / "out", "--size", 64, "--workers", 0)
    refused = run_cli(*command, stdin=None, input="n\n")
    assert refused.returncode == 1
    assert "Proceed? [Y/n]" in refused.stdout and "Stopped; nothing was changed." in refused.stderr
    assert not list((tmp_path / "out").rglob("*.tar"))
    no_input = run_cli(*command)
    assert no_input.returncode == 1 and "Pass --auto" in no_input.stderr
    agreed = run_cli(*command, stdin=None, input="y\n")
    assert agreed.returncode == 0 and list((tmp_path / "out").rglob("*.tar"))


def test_processing_stats_contain_times(photos: Path, tmp_path: Path) -> None:
    generate(photos, tmp_path, "-s", 2)
    stats = load_json(tmp_path / "processing_stats.json")
    assert (stats["total_processed"], stats["total_failed"]) == (40, 0)
    assert 0 < stats["avg_processing_time"] < 10 and stats["wall_time"] > 0 and stats["photos_per_second"] > 0
    assert set(stats["stage_seconds"]) == set(STAGES)
    rounding_s = 0.0005 * len(STAGES) / 40 + 1e-6
    assert stats["avg_processing_time"] == pytest.approx(sum(stats["stage_seconds"].values()) / 40, abs=rounding_s)


def test_piped_output_has_no_control_characters(photos: Path, tmp_path: Path) -> None:
    result = generate(photos, tmp_path, "-s", 2, "--workers", 2)
    text = result.stdout + result.stderr
    assert "40/40 photos" in result.stderr and "MB/s" in result.stderr
    assert not any(ord(character) < 32 and character != "\n" for character in text)


def test_tiles_are_the_photos_pixels(tmp_path: Path) -> None:
    photo = make_photo(150, 200, seed=1)
    (tmp_path / "in" / "a").mkdir(parents=True)
    Image.fromarray(photo).save(tmp_path / "in" / "a" / "big.png")
    Image.fromarray(make_photo(64, 64, seed=2)).save(tmp_path / "in" / "a" / "exact.png")
    generate(tmp_path / "in", tmp_path / "out", "-s", 3, "--fit", "tile", "--tile-step", 40)
    boxes = []
    for tar in (tmp_path / "out" / "scale_3x").glob("*.tar"):
        listed = run_cli("inspect", tmp_path / "out" / "scale_3x", "--shard", tar.stem, "--json")
        images = read_images(tar)
        for sample in next(iter(json.loads(listed.stdout).values()))["samples"]:
            if sample["source"] == "a/big.png":
                x, y, w, h = sample["box"]
                boxes.append((x, y))
                assert (w, h) == (63, 63)
                assert (images[f"{sample['key']}.hr.npy"] == photo[y : y + h, x : x + w]).all()
    assert sorted(boxes) == [(x, y) for x in (0, 40, 80, 120, 136) for y in (0, 40, 80, 86)]


def test_val_photos_are_the_same_at_every_scale_and_sample(photos: Path, shards: Path, tmp_path: Path) -> None:
    def val_sources(folder: Path) -> set[str]:
        found = set()
        for record in load_manifest(folder).shards:
            if record.split == "val":
                listed = json.loads(run_cli("inspect", folder, "--shard", record.name, "--json").stdout)
                found |= {sample["source"] for sample in listed[str(folder)]["samples"]}
        return found

    everything = val_sources(shards / "scale_2x")
    assert everything and everything == val_sources(shards / "scale_3x")
    generate(photos, tmp_path, "-s", 2, "--sample", 0.3)
    assert val_sources(tmp_path / "scale_2x") <= everything


def test_unplanned_tar_without_a_marker_is_removed(photos: Path, shards: Path, shards_copy: Path) -> None:
    shutil.copyfile(shards_copy / "scale_2x" / "train-000000.tar", shards_copy / "scale_2x" / "train-000777.tar")
    result = generate(photos, shards_copy, "-s", 2, 3, "--shard-bytes", "300KB")
    assert "Shards: 0 built, 10 kept, 1 removed." in result.stdout
    assert contract_files(shards_copy) == contract_files(shards)
    assert run_cli("verify", shards_copy).returncode == 0
