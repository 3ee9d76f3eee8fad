"""Existing output files: a command replaces only files that the same command wrote."""

import os
import shutil
from pathlib import Path

import pytest
from helpers import SMALL, all_files, generate, make_photo, make_photos, run_cli, run_program, trainer
from PIL import Image

from srshards.imaging.provenance import exif_mark
from trainer.models import BuiltInSpec
from trainer.models.weights import save_weights

pytestmark = pytest.mark.slow

NOT_OURS = "already exists, and {} did not write it; pass another --output, or remove it first"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, shards of them, a run and an exclude file. Read-only, except that tests may add files."""
    folder = tmp_path_factory.mktemp("outputs")
    make_photos(folder / "photos", 6)
    generate(folder / "photos", folder / "shards", "-s", 2, "--degradation", "realesrgan")
    args = ("--shards", folder / "shards" / "scale_2x", "--out", folder / "runs", "--run", "full", "--steps", 2)
    assert trainer(*args, *SMALL, "--val-every", 1).code == 0
    save_weights(folder / "tiny.pth", BuiltInSpec("compact", 2, 4, 1).build().state_dict(), None)
    (folder / "exclude.txt").write_text("class0/img0.jpg\n")
    return folder


def commands(data: Path) -> dict[str, tuple[str, tuple[object, ...]]]:
    """Return, by output file, the name that messages give to the command, and its arguments without `-o`."""
    shards, best = data / "shards" / "scale_2x", data / "runs" / "full" / "best.pth"
    photo = data / "photos" / "class0" / "img0.jpg"
    upscale = ("trainer", "upscale", photo, "--weights", best, "--device", "cpu")
    return {
        "report.html": ("shardgen or trainer report", ("shardgen", "report", shards, "--samples", 2)),
        "preview.png": ("shardgen preview", ("shardgen", "preview", shards, "--count", 1)),
        "recipe.png": ("shardgen preview", ("shardgen", "preview", photo, "--recipe", "realesrgan", "--count", 1)),
        "runs.html": ("shardgen or trainer report", ("trainer", "report", data / "runs" / "full")),
        "model.onnx": ("trainer export", ("trainer", "export", "--weights", data / "tiny.pth")),  # takes seconds
        "large.png": ("trainer upscale", upscale),
        "large.jpg": ("trainer upscale", upscale),
        "large.webp": ("trainer upscale", upscale),
    }


FILES = ("report.html", "preview.png", "recipe.png", "runs.html", "model.onnx")
WRITTEN = (*FILES, "large.png", "large.jpg", "large.webp")
EXISTING = (
    *("shards/scale_2x/train-000000.tar", "shards/scale_2x/train-000000.idx", "shards/scale_2x/train-000000.json"),
    *("shards/scale_2x/manifest.json", "shards/processing_stats.json", "exclude.txt", "photos/class0/img0.jpg"),
    *("photos/class1/img4.png", "runs/full/best.pth", "runs/full/model.pth", "runs/full/state.pt"),
    *("runs/full/journal.jsonl", "runs/full/config.yaml", "runs/full/plan.json"),
)


@pytest.mark.parametrize("written", FILES)
def test_files_of_other_commands_are_not_replaced(written: str, data: Path) -> None:
    program, args = commands(data)[written]
    previews = sorted((data / "runs" / "full" / "previews").glob("*.png"))
    assert previews
    for path in (*(data / name for name in EXISTING), previews[0]):
        before = path.read_bytes()
        result = run_program(*args, "-o", path)
        assert result.code == 2 and f"{path} {NOT_OURS.format(program)}" in result.err, result.err
        assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "path with .."])
def test_aliases_of_existing_files_are_not_replaced(kind: str, data: Path, tmp_path: Path) -> None:
    best = data / "runs" / "full" / "best.pth"
    target = tmp_path / "model.onnx"
    if kind == "symbolic link":
        target.symlink_to(best)
    elif kind == "hard link":
        os.link(best, target)
    else:
        target = data / "runs" / ".." / "runs" / "full" / "best.pth"
    before = best.read_bytes()
    result = trainer("export", "--weights", best, "-o", target)
    assert result.code == 2 and f"{target} {NOT_OURS.format('trainer export')}" in result.err
    assert best.read_bytes() == target.read_bytes() == before


@pytest.mark.parametrize("written", WRITTEN)
def test_files_of_the_same_command_are_replaced(written: str, data: Path, tmp_path: Path) -> None:
    program, args = commands(data)[written]
    output = tmp_path / written
    for _ in range(2):
        result = run_program(*args, "-o", output)
        assert result.code == 0, result.err
    first = output.read_bytes()
    for other, (other_program, other_words) in commands(data).items():
        if other_program != program and other != "model.onnx":
            result = run_program(*other_words, "-o", output)
            assert result.code == 2 and output.read_bytes() == first, other


@pytest.mark.parametrize("name", ["shards/scale_2x/x.png", "photos/class1/img4.png", "preview of the run"])
def test_upscale_replaces_only_its_own_files(name: str, data: Path, tmp_path: Path) -> None:
    _, args = commands(data)["large.png"]
    path = data / name
    if name == "preview of the run":
        path = sorted((data / "runs" / "full" / "previews").glob("*.png"))[0]
    elif not path.exists():
        Image.fromarray(make_photo(10, 10, 0)).save(path)
    before = path.read_bytes()
    result = run_program(*args, "-o", path)
    assert result.code == 2 and NOT_OURS.format("trainer upscale") in result.err
    (tmp_path / "img0_2x.png").write_bytes(before)
    result = run_program(*args, "-o", tmp_path)
    assert result.code == 2 and f"{tmp_path / 'img0_2x.png'} {NOT_OURS.format('trainer upscale')}" in result.err
    (tmp_path / "img0_2x.png").rename(tmp_path / "img0_2x_compare.png")
    result = run_program(*args, "-o", tmp_path, "--compare")
    assert result.code == 2 and "img0_2x_compare.png already exists" in result.err
    assert path.read_bytes() == (tmp_path / "img0_2x_compare.png").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["img0_2x_compare.png"]


def test_upscale_reports_replaced_files(data: Path, tmp_path: Path) -> None:
    _, args = commands(data)["large.png"]
    replaced = "replaced the existing file"
    first = run_program(*args, "-o", tmp_path, "--compare")
    assert first.code == 0 and replaced not in first.out
    again = run_program(*args, "-o", tmp_path, "--compare")
    assert again.code == 0 and again.out.count(replaced) == 2
    assert f"img0_2x_compare.png  bicubic | network, {replaced}\n" in again.out
    own = tmp_path / "img0_2x.png"
    refused = run_program("trainer", "upscale", own, *args[3:], "-o", own)
    assert refused.code == 2 and "is one of the photos and would be overwritten" in refused.err


def test_outputs_above_the_pixel_limit_of_pillow_are_replaced(data: Path, tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(tmp_path / "large.png", exif=exif_mark("trainer upscale"))
    _, args = commands(data)["large.png"]
    result = run_program(*args, "-o", tmp_path / "large.png")
    assert result.code == 0 and "replaced the existing file" in result.out, result.err


def test_preview_does_not_replace_its_photo(data: Path, tmp_path: Path) -> None:
    """Even if that photo is itself a preview."""
    assert run_cli("preview", data / "shards" / "scale_2x", "-o", tmp_path / "p.png").returncode == 0
    before = (tmp_path / "p.png").read_bytes()
    result = run_cli("preview", "--recipe", "realesrgan", tmp_path / "p.png", "-o", tmp_path / "p.png")
    assert result.returncode == 2 and "p.png is the photo itself; pass another --output" in result.stderr
    assert (tmp_path / "p.png").read_bytes() == before


def test_rebuild_replaces_only_its_own_files(data: Path, tmp_path: Path) -> None:
    args = ("rebuild", "000000000000", data / "shards", "-o", tmp_path)
    for _ in range(2):
        assert run_cli(*args).returncode == 0
    (own,) = tmp_path.iterdir()
    own.write_text("user data")
    result = run_cli(*args)
    assert result.returncode == 2 and f"{own} {NOT_OURS.format('shardgen rebuild')}" in result.stderr
    assert own.read_text() == "user data"


@pytest.mark.parametrize("written", ["report.html", "preview.png", "runs.html", "model.onnx"])
def test_output_must_be_a_local_file(written: str, data: Path, tmp_path: Path) -> None:
    _, args = commands(data)[written]
    result = run_program(*args, "-o", tmp_path)
    assert result.code == 2 and f"{tmp_path} is a folder; pass the file to write, e.g. {tmp_path}/" in result.err
    result = run_program(*args, "-o", "-")
    assert result.code == 2 and "'-': expected a file, not standard output; pass e.g. " in result.err
    result = run_program(*args, "-o", "s3://bucket/file")
    assert result.code == 2 and "s3://bucket/file is in an object store; expected a local path" in result.err


def test_tilde_in_the_output_path_is_expanded(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert trainer("report", data / "runs" / "full", "-o", "~/r.html").code == 0
    assert (tmp_path / "r.html").is_file()


@pytest.mark.parametrize("name", ["best.pth", "model.pth", "discriminator.pth", "journal.jsonl", "plan.json"])
def test_new_run_does_not_overwrite_existing_files(name: str, data: Path, tmp_path: Path) -> None:
    """For example weights in the run folder that are passed to `--init`."""
    (tmp_path / "r").mkdir()
    path = tmp_path / "r" / name
    shutil.copyfile(data / "runs" / "full" / "best.pth", path)
    before = path.read_bytes()
    args = ("--shards", data / "shards" / "scale_2x", "--out", tmp_path, "--run", "r", "--steps", 2, "--init", path)
    result = trainer(*args, *SMALL)
    assert result.code == 2, result.out
    assert f"{tmp_path / 'r'} contains {name}, which a new run would overwrite; pass another --run" in result.err
    assert all_files(tmp_path / "r") == {name} and path.read_bytes() == before
