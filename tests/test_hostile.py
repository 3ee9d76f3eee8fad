"""Malicious input files: rejected with a message, without running code or writing outside the output folder."""

import copy
import functools
import hashlib
import io
import json
import math
import operator
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, Result, all_files, generate, run_cli, trainer

from srshards.format import dump_json, load_json
from srshards.shards.tar_index import dump_index, load_index
from trainer.models import network_spec

MARK = "was-run"


class Trap:
    """Pickles to a call that creates a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self._path),)


@pytest.fixture
def folder(shards: Path, tmp_path: Path) -> Path:
    """A copy of the 2x shards, which tests may change."""
    return Path(shutil.copytree(shards / "scale_2x", tmp_path / "copy"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = load_json(path)
    change(value)
    path.write_bytes(dump_json(value))


def train(folder: Path, tmp_path: Path, *args: object) -> str:
    """Return the error of a training that is expected to fail."""
    result = trainer("--shards", folder, "--out", tmp_path / "runs", *SMALL, "--steps", 2, *args)
    assert result.code in (1, 2), result
    assert "Error: " in result.err and "Traceback" not in result.err
    return result.err


def shardgen(*args: object) -> str:
    """Return the error of a command that is expected to fail."""
    result = run_cli(*args)
    assert result.returncode in (1, 2), result
    assert "Traceback" not in result.stderr
    return result.stderr


def errors_of_all_readers(folder: Path, tmp_path: Path) -> list[str]:
    """Return the errors of all commands that read shards."""
    return [
        train(folder, tmp_path),
        shardgen("verify", folder),
        shardgen("inspect", folder),
        shardgen("preview", folder, "-o", tmp_path / "x.png"),
        shardgen("unpack", folder, "-o", tmp_path / "unpacked"),
    ]


# ---- manifests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["shards"][0].update(name="../../train-000000"), "'../../train-000000' is not a valid shard name"),
        (lambda m: m["shards"][0].update(name="/etc/passwd"), "'/etc/passwd' is not a valid shard name of"),
        (lambda m: m["shards"][0].update(bytes=2**63), "samples in 9223372036854775808 bytes"),
        (lambda m: m["shards"][0].update(samples=10**400), "train-000000 cannot have 1000000"),
        (lambda m: m["shards"][0].update(samples=-1), "train-000000 cannot have -1 samples"),
        (lambda m: m["settings"].update(hr_size=2**62), "invalid scale 2 or hr_size 4611686018427387904"),
        (lambda m: m["settings"].update(variants=10**9), "invalid variants 1000000000 or up True"),
        (lambda m: m["shards"].reverse(), "does not list its shards in order"),
    ],
)
def test_manifests_with_invalid_values_are_rejected_by_all_readers(
    change: Callable[[dict[str, Any]], object], message: str, folder: Path, tmp_path: Path
) -> None:
    edit(folder / "manifest.json", change)
    assert all(message in error for error in errors_of_all_readers(folder, tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "is not valid JSON"),
        ('{"a": ' * 100_000, "is not valid JSON"),
        ('{"format_version": 2, "format_version": 2}', "duplicate name in an object"),
        ('{"format_version": NaN}', "NaN is not a finite number"),
        ('{"format_version": 2, "totals": {"photos": -1e999}}', "-1e999 is not a finite number"),
        ('{"format_version": ' + "9" * 5000 + "}", "is not valid JSON"),
        ('{"format_version": 2.0}', "expected a format_version"),
    ],
)
def test_malicious_json_is_rejected_by_all_readers(text: str, message: str, folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").write_text(text)
    assert all(message in error for error in errors_of_all_readers(folder, tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("totals"),
        lambda m: m.update(splits=7),
        lambda m: m["splits"]["train"].update(channel_mean=["x"]),
        lambda m: m["totals"].update(samples=0.5, bytes=1e308),
    ],
)
def test_malformed_manifests_cause_no_traceback(change: Callable[[dict[str, Any]], object], folder: Path) -> None:
    edit(folder / "manifest.json", change)
    assert "is incomplete or malformed" in shardgen("inspect", folder)
    assert "do not match the done markers of the shards" in shardgen("verify", folder)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("splits", lambda m: m["splits"]["train"]["channel_mean"].__setitem__(0, 0.123456)),
        ("failures", lambda m: m["failures"].append({"path": "x.jpg", "reason": "none"})),
        ("skipped", lambda m: m["skipped"].append({"path": "x.jpg", "reason": "none"})),
        ("totals", lambda m: m["totals"].update(photos=39)),
        ("settings", lambda m: m["settings"].update(method="area")),
        ("fingerprint", lambda m: m.update(fingerprint="0" * 64)),
    ],
)
def test_verify_compares_every_field_of_the_manifest(
    name: str, change: Callable[[dict[str, Any]], object], folder: Path
) -> None:
    edit(folder / "manifest.json", change)
    stderr = shardgen("verify", folder)
    assert f"{folder / 'manifest.json'}: its {name}" in stderr or "its settings do not match its fingerprint" in stderr


# ---- indexes and tars


def test_verify_detects_an_index_with_swapped_samples(folder: Path, tmp_path: Path) -> None:
    """The index is valid, but gives each sample the pixels of the next one."""
    path = folder / "train-000000.idx"
    samples = load_index(path)
    shifted = [
        [member._replace(offset=other.offset) for member, other in zip(sample, following, strict=True)]
        for sample, following in zip(samples, [*samples[1:], samples[0]], strict=True)
    ]
    path.write_bytes(dump_index(shifted))
    stderr = train(folder, tmp_path, "--verify")
    assert f"{folder / 'train-000000.idx'} does not match train-000000.tar" in stderr
    assert "its index train-000000.idx does not match it" in shardgen("verify", folder)


def test_index_of_another_shard_is_rejected_without_verify(folder: Path, tmp_path: Path) -> None:
    for index in sorted(folder.glob("train-*.idx")):
        shutil.copyfile(folder / "val-000000.idx", index)
    assert "expected" in train(folder, tmp_path)
    names = sorted(folder.glob("train-*.idx"))
    counts = {record["name"]: record["samples"] for record in load_json(folder / "manifest.json")["shards"]}
    for index in names:
        index.write_bytes(dump_index(load_index(folder / "val-000000.idx")[:1] * counts[index.stem]))
    assert "contains the samples of shard val-000000" in train(folder, tmp_path)


@pytest.mark.parametrize(
    ("offset", "size", "message"),
    [
        ("9223372036854775808", "8", "expected a number of bytes, found '9223372036854775808'"),
        ("4611686018427387904", "4611686018427387904", "ends beyond the"),
        ("-512", "8", "expected a number of bytes, found '-512'"),
        ("1e3", "8", "expected a number of bytes, found '1e3'"),
    ],
)
def test_index_with_impossible_sizes_is_rejected(
    offset: str, size: str, message: str, folder: Path, tmp_path: Path
) -> None:
    for index in folder.glob("*.idx"):
        fields = index.read_text().split(" ")
        fields[2:4] = [offset, size]
        index.write_text(" ".join(fields))
    assert message in train(folder, tmp_path)
    assert message in shardgen("preview", folder, "-o", tmp_path / "x.png")
    assert message in shardgen("unpack", folder, "-o", tmp_path / "unpacked")
    assert "train-000000.idx" in shardgen("verify", folder)
    assert not (tmp_path / "unpacked").exists()


def change_first_member(folder: Path, change: Callable[[tarfile.TarInfo], object]) -> None:
    """Change the first header of a tar, and adapt marker and manifest to the new file."""
    path = folder / "train-000000.tar"
    content = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as new:
        for number, info in enumerate(old):
            data = old.extractfile(info)
            if number == 0:
                change(info)
            new.addfile(info, data if info.isreg() else None)
    path.write_bytes(content.getvalue())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = {"bytes": path.stat().st_size, "sha256": digest}
    edit(folder / "train-000000.json", lambda m: m["record"].update(record))
    edit(folder / "manifest.json", lambda m: m["shards"][0].update(record))


def make_link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/passwd", 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: setattr(info, "name", "../../evil.hr.npy"), "expected"),
        (lambda info: setattr(info, "name", "/tmp/evil.hr.npy"), "expected"),
        (make_link, "contains members that are not regular files"),
    ],
)
def test_tar_members_outside_the_folder_are_rejected(
    change: Callable[[tarfile.TarInfo], object], message: str, folder: Path, tmp_path: Path
) -> None:
    change_first_member(folder, change)
    stderr = shardgen("verify", folder), train(folder, tmp_path, "--verify")
    assert all("train-000000" in each for each in stderr)
    assert message in stderr[1] or "sample key" in stderr[1]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"source": ' * 50_000, "7", '{"source": "../../evil.png"}'])
def test_malicious_sample_json_is_rejected(text: str, folder: Path, tmp_path: Path) -> None:
    for index in folder.glob("*.idx"):
        data = bytearray(index.with_suffix(".tar").read_bytes())
        samples = []
        for sample in load_index(index):
            *images, member = sample
            data += text.encode()
            samples.append([*images, member._replace(offset=len(data) - len(text), size=len(text))])
        index.with_suffix(".tar").write_bytes(data)
        index.write_bytes(dump_index(samples))
        manifest = load_json(folder / "manifest.json")
        next(record for record in manifest["shards"] if record["name"] == index.stem).update(bytes=len(data))
        (folder / "manifest.json").write_bytes(dump_json(manifest))
    before = all_files(tmp_path)
    assert "json" in shardgen("unpack", folder, "-o", tmp_path / "unpacked")
    assert "json" in shardgen("inspect", folder, "--shard", "val-000000")
    if text != '{"source": "../../evil.png"}':
        assert "the json of sample 0 is damaged" in train(folder, tmp_path, "--run", "r")
    assert not list(tmp_path.parent.glob("evil*")) and {f for f in all_files(tmp_path) if "evil" in f} <= before


# ---- links


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.idx", "manifest.json"])
def test_links_out_of_the_folder_are_rejected(name: str, folder: Path, tmp_path: Path) -> None:
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to("../outside")
    message = f"{folder / name} is a link to {tmp_path / 'outside'}, outside its folder"
    assert message in train(folder, tmp_path)
    assert message in shardgen("verify", folder)
    assert message in shardgen("unpack", folder, "-o", tmp_path / "unpacked")
    (folder / name).unlink()
    (folder / name).symlink_to("/etc/passwd")
    assert "is a link to /etc/passwd, outside its folder" in train(folder, tmp_path)


def test_special_files_are_not_read(folder: Path, tmp_path: Path) -> None:
    markers = {}
    for name in ("train-000000.json", "train-000001.json"):
        markers[name] = (folder / name).read_bytes()
        (folder / name).unlink()
    (folder / "train-000000.json").symlink_to("/dev/zero")
    os.mkfifo(folder / "train-000001.json")
    result = run_cli("verify", folder, cwd=tmp_path)  # in a separate process, which has a timeout
    assert "train-000000.json is a link to /dev/zero, outside its folder" in result.stderr
    assert f"{folder / 'train-000001.json'} is not a regular file" in result.stderr and "2 of " in result.stderr
    for name, content in markers.items():
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    (folder / "train-000000.idx").unlink()
    os.mkfifo(folder / "train-000000.idx")
    result = run_cli("inspect", folder, "--shard", "train-000000", cwd=tmp_path)
    assert f"{folder / 'train-000000.idx'} is not a regular file" in result.stderr and result.returncode == 1
    (folder / "manifest.json").unlink()
    os.mkfifo(folder / "manifest.json")
    result = run_cli("verify", folder, cwd=tmp_path)
    assert f"{folder / 'manifest.json'} is not a regular file" in result.stderr and result.returncode == 1


def test_link_to_itself_hides_no_other_file(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    assert run_cli("verify", folder).returncode == 0
    (folder / "train-000000.tar").unlink()
    (folder / "train-000000.tar").symlink_to("train-000000.tar")
    stderr = shardgen("verify", folder)
    assert "train-000000.tar: [Errno 40]" in stderr and "1 of " in stderr
    assert "train-000000.tar" in shardgen("inspect", folder, "--shard", "train-000000")


def test_links_to_folders_and_within_folders_are_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    (folder / "train-000000.tar").rename(folder / "elsewhere")
    (folder / "train-000000.tar").symlink_to("elsewhere")
    assert run_cli("verify", tmp_path / "link").returncode == 0
    args = ("--shards", tmp_path / "link", "--out", tmp_path / "runs", *SMALL, "--steps", 1, "--verify")
    assert trainer(*args).code == 0


# ---- code in files


YAML = "!!python/object/apply:os.mkdir ['{}']"


def test_yaml_with_python_tags_is_rejected(photos: Path, shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for text in (YAML, "model: " + YAML, "- blur: " + YAML):
        path.write_text(text.format(tmp_path / MARK))
        assert "not valid YAML" in train(shards / "scale_2x", tmp_path, "--config", path)
        stderr = shardgen("generate", "-i", photos, "-o", tmp_path / "out", "--degradation", path, "--auto")
        assert "not valid YAML" in stderr and "python/object/apply:os.mkdir" in stderr
        assert "not valid YAML" in shardgen("recipe", "check", path)
    assert not (tmp_path / MARK).exists()


def test_malicious_yaml_is_rejected(shards: Path, tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{f'*{chr(97 + n)}, ' * 9}]\n" for n in range(20))
    path = tmp_path / "x.yaml"
    for text, message in (
        (bomb, "aliases (*name) are not supported"),
        ("model: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("steps: " + "9" * 5000, "x.yaml"),
        ("? [a, b]\n: 1", "x.yaml"),
    ):
        path.write_text(text)
        assert message in train(shards / "scale_2x", tmp_path, "--config", path)


def test_code_in_weights_and_checkpoints_is_not_run(shards: Path, tmp_path: Path) -> None:
    folder, trap = shards / "scale_2x", tmp_path / "trap.pth"
    network = network_spec("ultra_lite", 2).build(0)
    for content in (Trap(tmp_path / MARK), {**network.state_dict(), "more": Trap(tmp_path / MARK)}):
        for write in (lambda value: trap.write_bytes(pickle.dumps(value)), lambda value: torch.save(value, trap)):
            write(content)
            assert "objects other than tensors" in train(folder, tmp_path, "--init", trap)
            for args in (("evaluate", "--shards", folder), ("export", "-o", tmp_path / "m.onnx")):
                result = trainer(args[0], "--weights", trap, *args[1:])
                assert result.code == 2 and "objects other than tensors" in result.err
    args = ("--out", tmp_path / "runs", "--run", "r")
    assert trainer("--shards", folder, *args, *SMALL, "--steps", 2).code == 0
    state = tmp_path / "runs" / "r" / "state.pt"
    sound = torch.load(state, weights_only=True)
    for value in (Trap(tmp_path / MARK), {**sound, "data": Trap(tmp_path / MARK)}):
        torch.save(value, state)
        result = trainer(*args, "--resume")
        assert result.code == 2 and "is damaged or belongs to a different training" in result.err
    accounts = ({"account": 1}, {"account": {"steps_s": "x"}}, {"account": {"rest_s": math.nan}}, {"val_every": -1})
    for wrong in (
        {"step": "1"},
        {"step": -1},
        {"step": 2**70},
        {"trained_s": "x"},
        {"losses": ["x"]},
        {"more": 1},
        {"collapse": [1]},
        {"collapse": {"won": -1}},
        {"collapse": {"lost": "x"}},
        *accounts,
    ):
        torch.save({**sound, "progress": {**sound["progress"], **wrong}}, state)
        result = trainer(*args, "--resume")
        assert result.code == 2 and "is damaged or belongs to a different training" in result.err, wrong
    assert not (tmp_path / MARK).exists()


def test_checkpoints_with_unexpected_tensors_are_rejected(shards: Path, tmp_path: Path) -> None:
    """Fused kernels of PyTorch do not check shapes: they would write out of bounds."""
    run, args = tmp_path / "runs" / "r", ("--out", tmp_path / "runs", "--run", "r")
    assert trainer("--shards", shards / "scale_2x", *args, *SMALL, "--steps", 2).code == 0
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("steps: 2", "steps: 3"))
    sound = torch.load(run / "state.pt", weights_only=True)

    def resume_with(*path: Any, value: Any) -> Result:
        state = copy.deepcopy(sound)
        *outer, name = path
        functools.reduce(operator.getitem, outer, state)[name] = value
        torch.save(state, run / "state.pt")
        return trainer(*args, "--resume")

    optimizer, weight = ("optimizer", "state", 0), sound["params"]["body.0.weight"]
    for result in (
        resume_with(*optimizer, "exp_avg", value=torch.ones(3)),
        resume_with(*optimizer, "exp_avg", value=torch.zeros(1, dtype=torch.half).expand(180_000, 180_000)),
        resume_with(*optimizer, "exp_avg", value="x"),
        resume_with(*optimizer, "step", value=torch.ones(3)),
        resume_with(*optimizer, value={}),
        resume_with("optimizer", "state", 99, value={}),
        resume_with("params", "body.0.weight", value=weight.to_sparse()),
        resume_with("params", "body.0.weight", value=weight.to("meta")),
        resume_with("params", "body.0.weight", value=weight.to(torch.complex64)),
        resume_with("scaler", value={"scale": "x"}),
    ):
        assert result.code == 2 and "is damaged or belongs to a different training" in result.err
    many: list[Any] = []
    for _ in range(60):
        many = [many, many]
    assert resume_with("more", value=many).code == 0, "2^60 list items, but only 60 list objects"
    assert resume_with("optimizer", "param_groups", 0, "betas", value="x").code == 0, (
        "resuming does not read these from the state"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"photos": "x"},
        {"photos": 10**400},
        {"failures": [{"path": 1, "reason": "x"}]},
        {"statistics": {}},
        {"fingerprint": None},
        {"record": {"name": "../../x"}},
    ],
)
def test_shards_with_malformed_markers_are_rebuilt(
    change: dict[str, Any], photos: Path, shards: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    edit(folder / "scale_2x" / "train-000000.json", lambda m: m.update(change))
    assert "train-000000.json is missing or damaged" in shardgen("verify", folder)
    result = generate(photos, folder, "-s", 2, 3, "--shard-bytes", "300KB")
    assert "Shards: 1 built" in result.stdout
    assert json.loads((folder / "scale_2x" / "train-000000.json").read_text())["photos"] != change.get("photos")
    assert run_cli("verify", folder).returncode == 0
