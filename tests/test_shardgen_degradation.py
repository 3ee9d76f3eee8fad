"""`--degradation`, `--variants`, `--no-up`, `rebuild`, `recipe` and `preview --recipe`, through the command line."""

import hashlib
import json
import shutil
import tarfile
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
from shardgen.shard import job as shard_job
from srshards.format import load_manifest
from srshards.shards.stored_samples import StoredSample, stored_samples

ARGS = ("--size", 64, "--degradation", "realesrgan", "--variants", 3, "--val-fraction", 0.2)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("few"), 12)


@pytest.fixture(scope="module")
def varied(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three variants of realesrgan at 2x and 4x. Not to be changed: copy what you change."""
    output = tmp_path_factory.mktemp("varied")
    generate(few, output, "-s", 2, 4, *ARGS, "--workers", 2)
    return output


def samples_of(folder: Path, split: str) -> list[StoredSample]:
    records = [record for record in load_manifest(folder).shards if record.split == split]
    return [sample for record in records for sample in stored_samples(folder, record.name)]


# ---- what is made


def test_a_training_sample_has_its_variants_and_a_validation_sample_one(varied: Path) -> None:
    for split, lrs in (("train", ["lr", "lr1", "lr2"]), ("val", ["lr"])):
        samples = samples_of(varied / "scale_4x", split)
        assert samples
        for sample in samples:
            assert list(sample.members) == ["hr", *lrs, "up", "json"]
            images = [sample.image(name) for name in lrs]
            assert all(image.shape == (16, 16, 3) for image in images)
            assert len({image.tobytes() for image in images}) == len(lrs), "variants that are all the same"
            assert len(sample.describe()["degradation"]) == len(lrs)


def test_up_is_the_first_lr_enlarged(varied: Path) -> None:
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


def test_the_same_bytes_whatever_the_workers_the_scales_and_the_engine(few: Path, varied: Path, tmp_path: Path) -> None:
    generate(few, tmp_path, "-s", 4, *ARGS, "--workers", 0)
    made, expected = contract_files(tmp_path), contract_files(varied)
    assert made and made == {path: digest for path, digest in expected.items() if "scale_4x" in path}


def test_draws_are_those_of_seed_photo_tile_and_variant(varied: Path) -> None:
    recipe = load_recipe("realesrgan")
    train, val = (samples_of(varied / "scale_4x", split)[:3] for split in ("train", "val"))
    for sample in train + val:
        described, variants = sample.describe(), 3 if sample in train else 1
        x, y, *_ = described["box"]
        assert described["degradation"] == draw_variants(recipe, variants, 0, described["source"], (x, y), 64, 4)
        assert described["libraries"] == libraries() and set(libraries()) == {"numpy", "opencv", "pillow", "simplejpeg"}
        for name, steps in zip(("lr", "lr1", "lr2")[:variants], described["degradation"], strict=True):
            assert np.array_equal(sample.image(name), degraded(sample.image("hr"), steps))


def test_tiles_of_a_photo_have_draws_of_their_own(tmp_path: Path) -> None:
    generate(
        make_photos(tmp_path / "in", 3), tmp_path / "out", "--size", 32, "--fit", "tile", "--degradation", "realesrgan"
    )
    drawn = [json.dumps(sample.describe()["degradation"]) for sample in samples_of(tmp_path / "out/scale_4x", "train")]
    assert len(drawn) > 3 and len(set(drawn)) == len(drawn)


def test_another_seed_draws_otherwise_and_more_variants_keep_the_first(few: Path, varied: Path, tmp_path: Path) -> None:
    def first_lrs(folder: Path) -> dict[str, bytes]:
        samples = samples_of(folder / "scale_4x", "train") + samples_of(folder / "scale_4x", "val")
        return {sample.describe()["source"]: sample.image("lr").tobytes() for sample in samples}

    generate(few, tmp_path / "one", *ARGS[:4], "--val-fraction", 0.2)
    assert first_lrs(tmp_path / "one") == first_lrs(varied)
    generate(few, tmp_path / "seed", *ARGS[:4], "--val-fraction", 0.2, "--seed", 1)
    other = first_lrs(tmp_path / "seed")
    assert sum(other[source] == lr for source, lr in first_lrs(varied).items()) == 0


@pytest.mark.parametrize(
    "change",
    [("--degradation", "bsrgan-light"), ("--no-up",), ("--sharpen-hr",), ("--seed", 5)],
)
def test_what_decides_pixels_makes_shards_anew(
    change: tuple[object, ...], few: Path, varied: Path, tmp_path: Path
) -> None:
    shutil.copytree(varied, tmp_path / "out")
    again = generate(few, tmp_path / "out", "-s", 4, *ARGS)
    assert "are up to date" in again.stdout
    assert ", 0 kept" in generate(few, tmp_path / "out", "-s", 4, *ARGS, *change, "--force").stdout


def test_validation_shards_stay_when_only_variants_change(few: Path, varied: Path, tmp_path: Path) -> None:
    shutil.copytree(varied, tmp_path / "out")
    again = generate(few, tmp_path / "out", "-s", 4, *ARGS, "--variants", 2, "--force").stdout
    assert "1 kept" in again


def test_settings_that_came_later_leave_older_fingerprints_as_they_were() -> None:
    """The fingerprint that the first release gave to these settings."""
    config = Config(Path("in"), Path("out"))
    settings = {
        "scale": 4,
        "size": 512,
        "hr_size": 512,
        "fit": "cover",
        "tile_step": None,
        "method": "cubic",
        "codec": "npy",
    }
    expected = hashlib.sha256(json.dumps([1, 1, settings], sort_keys=True).encode()).hexdigest()
    assert fingerprint_of(config.settings(4), algorithm=1) == expected


def test_a_manifest_of_version_1_still_reads(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scale_2x"
    shutil.copytree(shards / "scale_2x", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["format_version"] = 1
    for name in ("variants", "up", "degradation", "sharpen_hr"):
        del manifest["settings"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    read = load_manifest(folder)
    assert read.images("train") == read.images("val") == ("hr", "lr", "up")
    for command in ("verify", "inspect"):
        assert run_cli(command, folder).returncode == 0
    done = trainer(
        "--shards", folder, "--steps", 2, "--patch-size", 16, "--batch-size", 2, "--workers", 0, "--out", tmp_path
    )
    assert done.code == 0, done.err


@pytest.mark.parametrize("codec", ["npy", "png", "webp"])
def test_without_up_less_is_written_and_all_commands_work(codec: str, few: Path, tmp_path: Path) -> None:
    generate(few, tmp_path / "out", *ARGS, "--no-up", "--codec", codec)
    folder = tmp_path / "out/scale_4x"
    manifest = load_manifest(folder)
    assert not manifest.has_up and manifest.images("train") == ("hr", "lr", "lr1", "lr2")
    (sample, *_) = samples_of(folder, "train")
    assert list(sample.members) == ["hr", "lr", "lr1", "lr2", "json"]
    assert sample.describe()["psnr_up_db"] > 5, "the baseline is known all the same"
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


def test_the_trainer_trains_on_what_the_generator_made(varied: Path, tmp_path: Path) -> None:
    args = ("--steps", 4, "--patch-size", 16, "--batch-size", 2, "--workers", 2, "--out", tmp_path)
    done = trainer("--shards", varied / "scale_4x", *args)
    assert done.code == 0, done.err
    assert "4x by realesrgan, 3 variants, npy" in done.err


def test_tiles_are_sharpened_one_at_a_time(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photo of 24 megapixels has a thousand overlapping ones, which together take a gigabyte."""
    calls: list[str] = []

    def noting(name: str) -> Callable[..., Any]:
        real = getattr(shard_job, name)
        return lambda *args: (calls.append(name), real(*args))[1]

    for name in ("render_crop", "make_triplet"):
        monkeypatch.setattr(shard_job, name, noting(name))
    generate(few, tmp_path, "-s", 4, "--fit", "tile", "--size", 32, "--tile-step", 16, "--sharpen-hr")
    assert len(calls) > 20 and calls == ["render_crop", "make_triplet"] * (len(calls) // 2)


def test_sharpened_hr_is_stored_and_lr_comes_from_it(few: Path, tmp_path: Path) -> None:
    generate(few, tmp_path / "plain", "--size", 64)
    generate(few, tmp_path / "sharp", "--size", 64, "--sharpen-hr")
    plain, sharp = (samples_of(tmp_path / name / "scale_4x", "train") for name in ("plain", "sharp"))
    for before, after in zip(plain, sharp, strict=True):
        hr, sharpened = before.image("hr"), after.image("hr")
        assert np.std(sharpened) > np.std(hr)
        assert np.array_equal(after.image("lr"), downsample(sharpened, 4, "cubic"))


def test_matlab_is_a_method(few: Path, tmp_path: Path) -> None:
    generate(few, tmp_path, "-s", 3, "--size", 64, "--method", "matlab")
    for sample in samples_of(tmp_path / "scale_3x", "train")[:2]:
        (lr,) = make_lrs(sample.image("hr"), 3, "matlab", None)
        assert np.array_equal(sample.image("lr"), lr)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--variants", 3),
            "--variants 3 requires a recipe, e.g. --degradation realesrgan: with --method cubic all variants",
        ),
        (("--variants", 0), "--variants 0: expected 1 to 64"),
        (("--variants", 65, "--degradation", "realesrgan"), "--variants 65: expected 1 to 64"),
        (("--degradation", "realesgan"), "unknown name 'realesgan'; did you mean 'realesrgan'?"),
        (("--degradation", "nothing.yaml"), "nothing.yaml: No such file or directory; expected a recipe (YAML)"),
    ],
)
def test_wrong_options_are_named(args: tuple[object, ...], message: str, few: Path, tmp_path: Path) -> None:
    done = run_cli("generate", "-i", few, "-o", tmp_path / "out", "--auto", *args)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_ones_own(few: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("- blur: {sigma: 1, kernel: isotropic, size: 9}\n- jpeg: {quality: 50}\n")
    done = generate(few, tmp_path / "out", "--size", 64, "--degradation", tmp_path / "mine.yaml")
    assert ", mine, npy" in done.stdout
    (sample, *_) = samples_of(tmp_path / "out/scale_4x", "train")
    (steps,) = sample.describe()["degradation"]
    assert [step["step"] for step in steps] == ["blur", "jpeg", "to_lr"] and steps[1]["quality"] == 50


# ---- rebuild


def test_every_lr_is_rebuilt_from_its_record(varied: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for sample in samples_of(varied / "scale_4x", split)[:2]:
            done = run_cli("rebuild", sample.key, varied, "-o", tmp_path)
            assert done.returncode == 0, done.stderr
            variants = 3 if split == "train" else 1
            assert done.stdout.count(": identical\n") == 2 * variants  # at 2x and at 4x
            assert f"{varied / 'scale_4x'}: {sample.key}.lr, 16 x 16 px: identical" in done.stdout
            with Image.open(tmp_path / f"{sample.key}_lr_4x.png") as image:
                assert np.array_equal(np.asarray(image), sample.image("lr"))


def test_plain_methods_are_rebuilt_too(shards: Path) -> None:
    (sample, *_) = samples_of(shards / "scale_2x", "train")
    done = run_cli("rebuild", sample.key, shards / "scale_2x")
    assert done.returncode == 0 and f"{sample.key}.lr, 32 x 32 px: identical" in done.stdout


def _changed(varied: Path, to: Path, what: str, change: Any) -> tuple[Path, str]:
    """A copy whose first training sample has other bytes in one member."""
    shutil.copytree(varied / "scale_4x", to / "scale_4x")
    sample = samples_of(to / "scale_4x", "train")[0]
    member = sample.members[what]
    content = bytearray(sample.tar.read_bytes())
    part = change(bytes(content[member.offset : member.offset + member.size]))
    assert len(part) == member.size
    content[member.offset : member.offset + member.size] = part
    sample.tar.write_bytes(content)
    return to / "scale_4x", sample.key


def test_an_lr_that_does_not_come_out_again_is_named(varied: Path, tmp_path: Path) -> None:
    folder, key = _changed(varied, tmp_path, "lr1", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    done = run_cli("rebuild", key, folder)
    assert done.returncode == 1
    assert f"{key}.lr1, 16 x 16 px: 1 of 256 px differ" in done.stdout and done.stdout.count("identical") == 2
    assert "1 of 3 LR images differ from the stored ones: the library versions are equal" in done.stderr


def test_other_libraries_are_named_when_pixels_differ(varied: Path, tmp_path: Path) -> None:
    version = libraries()["opencv"].encode()
    folder, key = _changed(varied, tmp_path, "json", lambda data: data.replace(version, b"9" * len(version)))
    assert run_cli("rebuild", key, folder).returncode == 0, "other versions that give equal pixels are no fault"
    folder, key = _changed(folder.parent, tmp_path / "two", "lr", lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    done = run_cli("rebuild", key, folder)
    assert done.returncode == 1
    assert f"computed with opencv {'9' * len(version)}, here {version.decode()}" in done.stderr


@pytest.mark.parametrize("old", [b'"jpeg"', b'"quality"'])
def test_a_record_that_cannot_be_followed_is_named(old: bytes, varied: Path, tmp_path: Path) -> None:
    folder, key = _changed(varied, tmp_path, "json", lambda data: data.replace(old, old[:-2] + b'x"'))
    done = run_cli("rebuild", key, folder)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"{key}.json records an unknown degradation" in done.stderr


def only_to_lr(edge: int) -> list[dict[str, Any]]:
    return [{"step": "to_lr", "size": [edge, edge], "interpolation": "area"}]


WRONG_RECORDS: dict[str, tuple[Any, str]] = {
    "no LR": ([], "records 0 LR images, found 3"),
    "one LR": (
        [[{"step": "to_lr", "size": [16, 16], "interpolation": "area"}]],
        "records 1 LR images, found 3",
    ),
    "another size": (
        [[{"step": "to_lr", "size": [3, 3], "interpolation": "area"}]] * 3,
        "3 of 3 LR images differ",
    ),
    "nothing done": ([[]] * 3, "3 of 3 LR images differ"),
    "no object": ({}, "degradation: expected a list of steps for each LR image, found {}"),
    "numbers": ([3], "degradation: expected a list of steps for each LR image, found [3]"),
    "no step": ([[{}]], "degradation: expected a list of steps for each LR image, found [[{}]]"),
}


def _with_json(varied: Path, to: Path, change: dict[str, Any]) -> tuple[Path, str]:
    """A copy whose first training sample has other values in its json; None takes a name out."""

    def changed(data: bytes) -> bytes:
        described = {name: value for name, value in {**json.loads(data), **change}.items() if value is not None}
        content = json.dumps(described).encode()
        return content + b" " * (len(data) - len(content))

    return _changed(varied, to, "json", changed)


@pytest.mark.parametrize("what", WRONG_RECORDS)
def test_a_record_that_does_not_fit_is_never_taken_for_success(what: str, varied: Path, tmp_path: Path) -> None:
    record, message = WRONG_RECORDS[what]
    folder, key = _with_json(varied, tmp_path, {"degradation": record})
    done = run_cli("rebuild", key, folder)
    assert done.returncode == 1 and message in done.stderr, done.stderr


def test_without_versions_of_libraries_none_are_blamed(varied: Path, tmp_path: Path) -> None:
    folder, key = _with_json(varied, tmp_path, {"degradation": None, "libraries": None})
    done = run_cli("rebuild", key, folder)
    assert done.returncode == 1 and "records 1 LR images, found 3" in done.stderr
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
def test_json_that_was_changed_is_named_by_every_command(
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
    done = run_cli(*args)
    expected = "its SHA-256 differs from its done marker" if command == "verify" else f"{key}{message}"
    assert done.returncode == 1 and expected in done.stderr, done.stderr


def test_inspect_shows_a_step_per_line_and_the_libraries(varied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_a_key_that_is_not_there_is_named(key: str, message: str, varied: Path) -> None:
    done = run_cli("rebuild", key, varied)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


# ---- recipe and preview


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_printed_recipe_is_one_to_start_from(name: str, tmp_path: Path) -> None:
    shown = run_cli("recipe", "show", name)
    assert shown.returncode == 0 and shown.stdout.startswith("# ")
    (tmp_path / "mine.yaml").write_text(shown.stdout)
    checked = run_cli("recipe", "check", tmp_path / "mine.yaml")
    assert checked.returncode == 0 and checked.stdout.startswith("mine: ")
    assert load_recipe(str(tmp_path / "mine.yaml")).steps == load_recipe(name).steps


def test_recipe_says_what_there_is() -> None:
    shown = run_cli("recipe", "show").stdout
    assert all(f"{name}: " in shown for name in BUILT_IN)
    steps = run_cli("recipe", "steps").stdout
    assert "jpeg: " in steps and "    quality: [30, 95]    # " in steps
    wrong = run_cli("recipe", "show", "realesrgn")
    assert wrong.returncode == 2 and "unknown name 'realesrgn'; did you mean 'realesrgan'?" in wrong.stderr


def test_recipe_show_does_not_read_files(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("- jpeg")
    done = run_cli("recipe", "show", tmp_path / "r.yaml")
    assert done.returncode == 2 and f"`python -m shardgen recipe check {tmp_path / 'r.yaml'}`" in done.stderr


def test_recipe_check_names_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("- jpg")
    done = run_cli("recipe", "check", tmp_path / "r.yaml")
    assert done.returncode == 2 and "r.yaml: step 1: unknown name 'jpg'; did you mean 'jpeg'?" in done.stderr


def test_one_photo_under_many_draws(few: Path, tmp_path: Path) -> None:
    photo = few / "class0/img0.jpg"
    done = run_cli("preview", "--recipe", "realesrgan", photo, "-o", tmp_path / "p.png", "--count", 3)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'p.png'}: {photo} degraded 3 times by realesrgan, 4x\n"
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.height > 2 * 256, "HR and three draws, three a row"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--recipe", "realesrgan", "{few}"), "is a folder: --recipe realesrgan requires a photo"),
        (("--recipe", "realesrgan", "{few}/no.jpg"), "no such file: "),
        (("--recipe", "nope", "{few}/class0/img0.jpg"), "recipe: unknown name 'nope'"),
        (("{few}/class0/img0.jpg",), "is a file: to see a photo degraded by a recipe, pass --recipe realesrgan"),
        (("{few}", "-s", "3"), "--scale requires --recipe: the shards in "),
    ],
)
def test_a_preview_that_cannot_be_is_refused(args: tuple[str, ...], message: str, few: Path, tmp_path: Path) -> None:
    done = run_cli("preview", *(arg.format(few=few) for arg in args), "-o", tmp_path / "p.png")
    assert done.returncode in (1, 2) and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "p.png").exists()


def test_tar_lists_the_variants(varied: Path) -> None:
    with tarfile.open(varied / "scale_4x/train-000000.tar") as archive:
        extensions = [member.name.partition(".")[2] for member in archive][:6]
    assert extensions == ["hr.npy", "lr.npy", "lr1.npy", "lr2.npy", "up.npy", "json"]
