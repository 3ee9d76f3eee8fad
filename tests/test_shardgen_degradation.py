"""`--degradation`, `--variants`, `--no-up`, `rebuild`, `recipe` and `preview --recipe`, through the command line."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import contract_files, generate, make_photos, run_cli, trainer
from PIL import Image

from shardgen.degradation.degrade import downsample, draw_variants, libraries, make_lrs
from shardgen.degradation.recipe import degraded
from shardgen.degradation.recipe_file import BUILT_IN, load_recipe
from shardgen.planning.config import Config, fingerprint_of
from shardgen.shard import photo_source
from srshards.format import CODECS, load_manifest
from srshards.shards.stored_samples import StoredSample, stored_samples

ARGS = ("--size", 64, "--degradation", "realesrgan", "--variants", 3, "--val-fraction", 0.2)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("few"), 12)


@pytest.fixture(scope="module")
def varied(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three variants of realesrgan at 2x and 4x. Read-only: tests copy what they change."""
    output = tmp_path_factory.mktemp("varied")
    generate(few, output, "-s", 2, 4, *ARGS, "--workers", 2)
    return output


def samples_of(folder: Path, split: str) -> list[StoredSample]:
    records = [record for record in load_manifest(folder).shards if record.split == split]
    return [sample for record in records for sample in stored_samples(folder, record.name)]


# ---- generate


def test_train_samples_have_all_variants_and_val_samples_one(varied: Path) -> None:
    for split, lrs in (("train", ["lr", "lr1", "lr2"]), ("val", ["lr"])):
        samples = samples_of(varied / "scale_4x", split)
        assert samples
        for sample in samples:
            assert list(sample.members) == ["hr", *lrs, "up", "json"]
            images = [sample.image(name) for name in lrs]
            assert all(image.shape == (16, 16, 3) for image in images)
            assert len({image.tobytes() for image in images}) == len(lrs), "equal variants"
            assert len(sample.describe()["degradation"]) == len(lrs)


def test_up_is_the_first_lr_upsampled(varied: Path) -> None:
    for sample in samples_of(varied / "scale_2x", "train")[:3]:
        lr = Image.fromarray(sample.image("lr"))
        up = sample.image("up").astype(int)
        assert np.abs(np.asarray(lr.resize((64, 64), Image.BICUBIC)) - up).mean() < 3
        assert up.shape == (64, 64, 3)


def test_manifest_and_inspect_show_recipe_and_variants(varied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    settings = load_manifest(varied / "scale_4x").raw["settings"]
    assert settings["variants"] == 3 and settings["up"] is True and settings["sharpen_hr"] is False
    assert settings["degradation"]["name"] == "realesrgan"
    assert settings["degradation"]["steps"] == json.loads(json.dumps(load_recipe("realesrgan").plain["steps"]))
    shown = run_cli("inspect", varied / "scale_4x").stdout
    assert "realesrgan: (sinc | blur), resize, (gaussian_noise | poisson_noise), jpeg," in " ".join(shown.split())
    key = samples_of(varied / "scale_4x", "train")[0].key
    shown = run_cli("inspect", varied / "scale_4x", "--sample", key).stdout
    assert f"{key}.lr2.npy" in shown and "jpeg  quality" in shown and "sigma" in shown


def test_bytes_do_not_depend_on_workers_and_scales(few: Path, varied: Path, tmp_path: Path) -> None:
    generate(few, tmp_path, "-s", 4, *ARGS, "--workers", 0)
    found = contract_files(tmp_path / "scale_4x")
    assert found and found == contract_files(varied / "scale_4x")


def test_draws_depend_on_seed_photo_tile_and_variant(varied: Path) -> None:
    recipe = load_recipe("realesrgan")
    train, val = (samples_of(varied / "scale_4x", split)[:3] for split in ("train", "val"))
    for sample in train + val:
        described, variants = sample.describe(), 3 if sample in train else 1
        x, y, *_ = described["box"]
        assert described["degradation"] == draw_variants(recipe, variants, 0, described["source"], (x, y), 64, 4)
        assert described["libraries"] == libraries() and set(libraries()) == {"numpy", "opencv", "pillow", "simplejpeg"}
        for name, steps in zip(("lr", "lr1", "lr2")[:variants], described["degradation"], strict=True):
            assert np.array_equal(sample.image(name), degraded(sample.image("hr"), steps))


def test_tiles_of_a_photo_have_different_draws(tmp_path: Path) -> None:
    args = ("--size", 32, "--fit", "tile", "--degradation", "realesrgan")
    generate(make_photos(tmp_path / "in", 3), tmp_path / "out", *args)
    drawn = [json.dumps(sample.describe()["degradation"]) for sample in samples_of(tmp_path / "out/scale_4x", "train")]
    assert len(drawn) > 3 and len(set(drawn)) == len(drawn)


def test_seed_changes_draws_and_more_variants_keep_the_first(few: Path, varied: Path, tmp_path: Path) -> None:
    def first_lrs(folder: Path) -> dict[str, bytes]:
        samples = samples_of(folder / "scale_4x", "train") + samples_of(folder / "scale_4x", "val")
        return {sample.describe()["source"]: sample.image("lr").tobytes() for sample in samples}

    generate(few, tmp_path / "one", *ARGS[:4], "--val-fraction", 0.2)
    assert first_lrs(tmp_path / "one") == first_lrs(varied)
    generate(few, tmp_path / "seed", *ARGS[:4], "--val-fraction", 0.2, "--seed", 1)
    other = first_lrs(tmp_path / "seed")
    assert sum(other[source] == lr for source, lr in first_lrs(varied).items()) == 0


@pytest.mark.parametrize("change", [("--degradation", "bsrgan-light"), ("--no-up",), ("--sharpen-hr",), ("--seed", 5)])
def test_settings_that_change_pixels_rebuild_all_shards(
    change: tuple[object, ...], few: Path, varied: Path, tmp_path: Path
) -> None:
    shutil.copytree(varied, tmp_path / "out")
    assert ", 0 kept" in generate(few, tmp_path / "out", "-s", 4, *ARGS, *change, "--force").stdout


def test_val_shards_are_kept_when_only_variants_change(few: Path, varied: Path, tmp_path: Path) -> None:
    shutil.copytree(varied, tmp_path / "out")
    assert "are up to date" in generate(few, tmp_path / "out", "-s", 4, *ARGS).stdout
    assert "1 kept" in generate(few, tmp_path / "out", "-s", 4, *ARGS, "--variants", 2, "--force").stdout


def test_new_settings_keep_the_fingerprints_of_old_ones() -> None:
    """The first release assigned this fingerprint."""
    config = Config(Path("in"), Path("out"))
    settings = {"scale": 4, "size": 512, "hr_size": 512, "fit": "cover", "tile_step": None}
    settings |= {"method": "cubic", "codec": "npy"}
    expected = hashlib.sha256(json.dumps([1, 1, settings], sort_keys=True).encode()).hexdigest()
    current = config.settings(4)
    of_version_2 = {name: value for name, value in current.items() if name not in ("icc", "pairs")}
    assert fingerprint_of(of_version_2, algorithm=1) == expected != fingerprint_of(current, algorithm=1)


@pytest.mark.parametrize("codec", CODECS)
def test_no_up_omits_up_and_all_commands_work(codec: str, few: Path, tmp_path: Path) -> None:
    generate(few, tmp_path / "out", *ARGS, "--no-up", "--codec", codec)
    folder = tmp_path / "out/scale_4x"
    manifest = load_manifest(folder)
    assert not manifest.has_up and manifest.images("train") == ("hr", "lr", "lr1", "lr2")
    (sample, *_) = samples_of(folder, "train")
    assert list(sample.members) == ["hr", "lr", "lr1", "lr2", "json"]
    assert sample.describe()["psnr_up_db"] > 5, "the baseline is still recorded"
    for command in (("verify",), ("inspect",), ("inspect", "--sample", sample.key)):
        assert run_cli(command[0], folder, *command[1:]).returncode == 0
    assert run_cli("preview", folder, "-o", tmp_path / "p.png").returncode == 0
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width == 4 * 64 + 5 * 8  # HR and three LR
    unpacked = run_cli("unpack", folder, "-o", tmp_path / "loose")
    train, val = (len(samples_of(folder, split)) for split in ("train", "val"))
    assert f"{train + val} samples, {4 * train + 2 * val} files" in unpacked.stdout
    stem = tmp_path / "loose/scale_4x" / sample.describe()["source"].rpartition(".")[0]
    for name, suffix in (("hr", "_hr"), ("lr", "_lr_4x"), ("lr2", "_lr2_4x")):
        with Image.open(f"{stem}{suffix}.png") as image:
            assert np.array_equal(np.asarray(image), sample.image(name))


def test_validation_rows_of_a_preview_have_one_variant(varied: Path, tmp_path: Path) -> None:
    assert run_cli("preview", varied / "scale_4x", "--count", 12, "-o", tmp_path / "p.png").returncode == 0
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width == 6 * 64 + 7 * 8  # HR, three LR, up, difference


def test_trainer_trains_on_variants(varied: Path, tmp_path: Path) -> None:
    args = ("--steps", 4, "--patch-size", 16, "--batch-size", 2, "--workers", 2, "--out", tmp_path)
    result = trainer("--shards", varied / "scale_4x", *args)
    assert result.code == 0, result.err
    assert "4x by realesrgan, 3 variants, npy" in result.err


def test_tiles_are_sharpened_one_at_a_time(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand overlapping tiles of a 24-megapixel photo take a gigabyte."""
    calls: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        real = getattr(photo_source, name)
        return lambda *args: (calls.append(name), real(*args))[1]

    for name in ("render_crop", "make_triplet"):
        monkeypatch.setattr(photo_source, name, noting(name))
    generate(few, tmp_path, "-s", 4, "--fit", "tile", "--size", 32, "--tile-step", 16, "--sharpen-hr")
    assert len(calls) > 20 and calls == ["render_crop", "make_triplet"] * (len(calls) // 2)


def test_lr_is_computed_from_sharpened_hr(few: Path, tmp_path: Path) -> None:
    generate(few, tmp_path / "plain", "--size", 64)
    generate(few, tmp_path / "sharp", "--size", 64, "--sharpen-hr")
    plain, sharp = (samples_of(tmp_path / name / "scale_4x", "train") for name in ("plain", "sharp"))
    for before, after in zip(plain, sharp, strict=True):
        hr, sharpened = before.image("hr"), after.image("hr")
        assert np.std(sharpened) > np.std(hr)
        assert np.array_equal(after.image("lr"), downsample(sharpened, 4, "cubic"))


def test_method_matlab_is_supported(few: Path, tmp_path: Path) -> None:
    generate(few, tmp_path, "-s", 3, "--size", 64, "--method", "matlab")
    for sample in samples_of(tmp_path / "scale_3x", "train")[:2]:
        (lr,) = make_lrs(sample.image("hr"), 3, "matlab", None)
        assert np.array_equal(sample.image("lr"), lr)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--variants", 3),
            "--variants 3 requires a recipe, because all variants by --method cubic would be identical; pass e.g. "
            "--degradation realesrgan",
        ),
        (("--variants", 0), "--variants 0: expected 1 to 64"),
        (("--variants", 65, "--degradation", "realesrgan"), "--variants 65: expected 1 to 64"),
        (("--degradation", "realesgan"), "unknown name 'realesgan'; did you mean 'realesrgan'?"),
        (("--degradation", "nothing.yaml"), "nothing.yaml: No such file or directory; expected a recipe (YAML)"),
    ],
)
def test_invalid_options_are_errors(args: tuple[object, ...], message: str, few: Path, tmp_path: Path) -> None:
    result = run_cli("generate", "-i", few, "-o", tmp_path / "out", "--auto", *args)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_custom_recipe_is_applied(few: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("- blur: {sigma: 1, kernel: isotropic, size: 9}\n- jpeg: {quality: 50}\n")
    result = generate(few, tmp_path / "out", "--size", 64, "--degradation", tmp_path / "mine.yaml")
    assert ", mine, npy" in result.stdout
    (sample, *_) = samples_of(tmp_path / "out/scale_4x", "train")
    (steps,) = sample.describe()["degradation"]
    assert [step["step"] for step in steps] == ["blur", "jpeg", "to_lr"] and steps[1]["quality"] == 50


# ---- rebuild


def test_rebuild_reproduces_every_lr(varied: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for sample in samples_of(varied / "scale_4x", split)[:2]:
            result = run_cli("rebuild", sample.key, varied, "-o", tmp_path)
            assert result.returncode == 0, result.stderr
            variants = 3 if split == "train" else 1
            assert result.stdout.count(": identical\n") == 2 * variants  # at 2x and at 4x
            assert f"{varied / 'scale_4x'}: {sample.key}.lr, 16 x 16 px: identical" in result.stdout
            with Image.open(tmp_path / f"{sample.key}_lr_4x.png") as image:
                assert np.array_equal(np.asarray(image), sample.image("lr"))


def test_rebuild_supports_plain_methods(shards: Path) -> None:
    (sample, *_) = samples_of(shards / "scale_2x", "train")
    result = run_cli("rebuild", sample.key, shards / "scale_2x")
    assert result.returncode == 0 and f"{sample.key}.lr, 32 x 32 px: identical" in result.stdout


def _with_member(varied: Path, target: Path, what: str, change: Any) -> tuple[Path, str]:
    """Copy shards with one member of the first training sample changed."""
    shutil.copytree(varied / "scale_4x", target / "scale_4x")
    sample = samples_of(target / "scale_4x", "train")[0]
    member = sample.members[what]
    content = bytearray(sample.tar.read_bytes())
    part = change(bytes(content[member.offset : member.offset + member.size]))
    assert len(part) == member.size
    content[member.offset : member.offset + member.size] = part
    sample.tar.write_bytes(content)
    return target / "scale_4x", sample.key


def test_rebuild_reports_a_different_lr(varied: Path, tmp_path: Path) -> None:
    folder, key = _with_member(varied, tmp_path, "lr1", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    result = run_cli("rebuild", key, folder)
    assert result.returncode == 1
    assert f"{key}.lr1, 16 x 16 px: 1 of 256 px different" in result.stdout and result.stdout.count("identical") == 2
    assert "1 of 3 recomputed LR images differs from the stored ones: the library versions are equal" in result.stderr


def test_rebuild_refuses_a_file_as_its_output_folder(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run_cli("rebuild", "000000000000", shards / "scale_2x", "-o", tmp_path / "file")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == f"Error: {tmp_path / 'file'} is a file; pass a folder as --output\n"


def test_rebuild_reports_library_versions_when_pixels_differ(varied: Path, tmp_path: Path) -> None:
    version = libraries()["opencv"].encode()
    folder, key = _with_member(varied, tmp_path, "json", lambda data: data.replace(version, b"9" * len(version)))
    assert run_cli("rebuild", key, folder).returncode == 0, "other versions with equal pixels are accepted"
    folder, key = _with_member(folder.parent, tmp_path / "two", "lr", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    result = run_cli("rebuild", key, folder)
    assert result.returncode == 1
    assert f"computed with opencv {'9' * len(version)}, here {version.decode()}" in result.stderr


@pytest.mark.parametrize(
    ("old", "message"),
    [
        (b'\\"jpeg\\"', "the step 'jpex', which this version does not know; update sr-shards\n"),
        (b'\\"quality\\"', "an unknown degradation (KeyError('quality'))\n"),
    ],
)
def test_rebuild_reports_an_unknown_degradation(old: bytes, message: str, varied: Path, tmp_path: Path) -> None:
    folder, key = _with_member(varied, tmp_path, "json", lambda data: data.replace(old, old[:-3] + b'x\\"'))
    result = run_cli("rebuild", key, folder)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.endswith(f".tar: {key}.json records {message}")


def only_to_lr(edge: int) -> list[dict[str, Any]]:
    return [{"step": "to_lr", "size": [edge, edge], "interpolation": "area"}]


INCONSISTENT_RECORDS: dict[str, tuple[Any, str]] = {
    "no LR": ([], "records 0 LR images, found 3"),
    "one LR": ([only_to_lr(16)], "records 1 LR images, found 3"),
    "another size": ([only_to_lr(3)] * 3, "3 of 3 recomputed LR images differ"),
    "no step at all": ([[]] * 3, "3 of 3 recomputed LR images differ"),
    "no object": ({}, "degradation: expected a list of steps for each LR image, found {}"),
    "numbers": ([3], "degradation: expected a list of steps for each LR image, found [3]"),
    "no step": ([[{}]], "degradation: expected a list of steps for each LR image, found [[{}]]"),
}


def _with_json(varied: Path, target: Path, change: dict[str, Any]) -> tuple[Path, str]:
    """Copy shards with other values in the JSON of the first training sample; None removes a key."""

    def changed(data: bytes) -> bytes:
        described = {name: value for name, value in {**json.loads(data), **change}.items() if value is not None}
        content = json.dumps(described).encode()
        return content + b" " * (len(data) - len(content))

    return _with_member(varied, target, "json", changed)


@pytest.mark.parametrize("as_text", [True, False], ids=["version 3", "version 2"])
@pytest.mark.parametrize("what", INCONSISTENT_RECORDS)
def test_rebuild_rejects_inconsistent_records(what: str, as_text: bool, varied: Path, tmp_path: Path) -> None:
    record, message = INCONSISTENT_RECORDS[what]
    folder, key = _with_json(varied, tmp_path, {"degradation": json.dumps(record) if as_text else record})
    result = run_cli("rebuild", key, folder)
    assert result.returncode == 1 and message in result.stderr, result.stderr


def test_rebuild_without_library_versions_reports_their_absence(varied: Path, tmp_path: Path) -> None:
    folder, key = _with_json(varied, tmp_path, {"degradation": None, "libraries": None})
    result = run_cli("rebuild", key, folder)
    assert result.returncode == 1 and "records 1 LR images, found 3" in result.stderr
    folder, key = _with_json(varied, tmp_path / "two", {"degradation": [only_to_lr(16)] * 3, "libraries": None})
    assert "the record has no library versions" in run_cli("rebuild", key, folder).stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": None}, ".json has no source"),
        ({"source": 3}, ".json: source: expected a path, found 3"),
        ({"box": [1, 2, 3]}, ".json: box: expected four integers, found [1, 2, 3]"),
        ({"psnr_up_db": "good"}, ".json: psnr_up_db: expected a number or null, found 'good'"),
        ({"degradation": [[3]]}, ".json: degradation: expected a list of steps for each LR image, found [[3]]"),
        ({"libraries": [1]}, ".json: libraries: expected versions by name, found [1]"),
    ],
)
@pytest.mark.parametrize("command", ["inspect --sample", "inspect --shard", "unpack", "preview", "rebuild", "verify"])
def test_every_command_reports_invalid_sample_json(
    command: str, change: dict[str, Any], message: str, varied: Path, tmp_path: Path
) -> None:
    folder, key = _with_json(varied, tmp_path, change)
    args = {
        "inspect --sample": ("inspect", folder, "--sample", key),
        "inspect --shard": ("inspect", folder, "--shard", "train-000000"),
        "unpack": ("unpack", folder, "-o", tmp_path / "loose"),
        "preview": ("preview", folder, "-o", tmp_path / "p.png", "--count", 64),
        "rebuild": ("rebuild", key, folder),
        "verify": ("verify", folder),
    }[command]
    result = run_cli(*args)
    expected = "its SHA-256 differs from its done marker" if command == "verify" else f"{key}{message}"
    assert result.returncode == 1 and expected in result.stderr, result.stderr


def test_inspect_shows_one_step_per_line_and_the_libraries(varied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    (sample, *_) = samples_of(varied / "scale_4x", "train")
    shown = run_cli("inspect", varied / "scale_4x", "--sample", sample.key).stdout
    assert "\\n" not in shown and f"numpy {libraries()['numpy']}, opencv " in shown
    num_steps = sum(len(steps) for steps in sample.describe()["degradation"])
    names = ("blur  ", "sinc  ", "resize  ", "gaussian_noise  ", "poisson_noise  ", "jpeg  ", "to_lr  ")
    assert sum(line.count(name) for line in shown.splitlines() for name in names) == num_steps


@pytest.mark.parametrize(
    ("key", "message"),
    [("42", "'42' is not a sample key: expected twelve digits"), ("000000099999", "no sample 000000099999 in ")],
)
def test_rebuild_rejects_unknown_keys(key: str, message: str, varied: Path) -> None:
    result = run_cli("rebuild", key, varied)
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr


# ---- recipe and preview


@pytest.mark.parametrize("name", BUILT_IN)
def test_recipe_show_prints_a_valid_recipe(name: str, tmp_path: Path) -> None:
    shown = run_cli("recipe", "show", name)
    assert shown.returncode == 0 and shown.stdout.startswith("# ")
    (tmp_path / "mine.yaml").write_text(shown.stdout)
    checked = run_cli("recipe", "check", tmp_path / "mine.yaml")
    assert checked.returncode == 0 and checked.stdout.startswith("mine: ")
    assert load_recipe(str(tmp_path / "mine.yaml")).steps == load_recipe(name).steps


def test_recipe_lists_recipes_and_steps() -> None:
    shown = run_cli("recipe", "show").stdout
    assert all(f"{name}: " in shown for name in BUILT_IN)
    steps = run_cli("recipe", "steps").stdout
    assert "jpeg: " in steps and "    quality: [30, 95]    # " in steps
    wrong = run_cli("recipe", "show", "realesrgn")
    assert wrong.returncode == 2 and "unknown name 'realesrgn'; did you mean 'realesrgan'?" in wrong.stderr


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("show", "- jpeg", "`python -m shardgen recipe check {file}`"),
        ("check", "- jpg", "{file}: step 1: unknown name 'jpg'; did you mean 'jpeg'?"),
    ],
)
def test_recipe_file_errors(command: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    result = run_cli("recipe", command, tmp_path / "r.yaml")
    assert result.returncode == 2 and message.format(file=tmp_path / "r.yaml") in result.stderr


def test_preview_shows_draws_of_one_photo(few: Path, tmp_path: Path) -> None:
    photo = few / "class0/img0.jpg"
    result = run_cli("preview", "--recipe", "realesrgan", photo, "-o", tmp_path / "p.png", "--count", 3)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'p.png'}: {photo} degraded 3 times by realesrgan, 4x\n"
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.height > 2 * 256, "HR and three draws, three per row"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--recipe", "realesrgan", "{few}"), "is a folder; pass a photo with --recipe"),
        (("--recipe", "realesrgan", "{few}/no.jpg"), "no such file: "),
        (("--recipe", "nope", "{few}/class0/img0.jpg"), "recipe: unknown name 'nope'; expected one of realesrgan, "),
        (("{few}/class0/img0.jpg",), "is a file; to see a photo degraded by a recipe, pass --recipe realesrgan"),
        (("{few}", "-s", "3"), "--scale requires --recipe; omit it: the shards in "),
    ],
)
def test_preview_rejects_invalid_arguments(args: tuple[str, ...], message: str, few: Path, tmp_path: Path) -> None:
    result = run_cli("preview", *(arg.format(few=few) for arg in args), "-o", tmp_path / "p.png")
    assert result.returncode in (1, 2) and message in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "p.png").exists()
