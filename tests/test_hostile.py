"""Files that somebody made on purpose: refused with a message, nothing is run, nothing is written elsewhere."""

import copy
import functools
import hashlib
import io
import json
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
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self._path),)


@pytest.fixture
def mine(shards: Path, tmp_path: Path) -> Path:
    """A scale's folder of one's own."""
    return Path(shutil.copytree(shards / "scale_2x", tmp_path / "mine"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = load_json(path)
    change(value)
    path.write_bytes(dump_json(value))


def train(folder: Path, tmp_path: Path, *words: object) -> str:
    """What the trainer says to shards that it refuses."""
    done = trainer("--shards", folder, "--out", tmp_path / "runs", *SMALL, "--steps", 2, *words)
    assert done.code in (1, 2), done
    assert "Error: " in done.err and "Traceback" not in done.err
    return done.err


def shardgen(*words: object) -> str:
    """What shardgen says to something that it refuses."""
    done = run_cli(*words)
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stderr
    return done.stderr


def readers(folder: Path, tmp_path: Path) -> list[str]:
    """What all who read shards say to these."""
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
        (
            lambda m: m["shards"][0].update(name="/etc/passwd"),
            "'/etc/passwd' is not a valid shard name of",
        ),
        (lambda m: m["shards"][0].update(bytes=2**63), "samples in 9223372036854775808 bytes"),
        (lambda m: m["shards"][0].update(samples=10**400), "train-000000 cannot have 1000000"),
        (lambda m: m["shards"][0].update(samples=-1), "train-000000 cannot have -1 samples"),
        (lambda m: m["settings"].update(hr_size=2**62), "hr_size 4611686018427387904 or codec 'npy'"),
        (lambda m: m["settings"].update(variants=10**9), "invalid variants 1000000000 or up True"),
        (lambda m: m["shards"].reverse(), "does not list its shards in order"),
    ],
)
def test_a_manifest_that_asks_for_too_much_is_refused_by_all(
    change: Callable[[dict[str, Any]], object], message: str, mine: Path, tmp_path: Path
) -> None:
    edit(mine / "manifest.json", change)
    assert all(message in said for said in readers(mine, tmp_path))


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
def test_json_that_is_made_to_hurt_is_refused_by_all(text: str, message: str, mine: Path, tmp_path: Path) -> None:
    (mine / "manifest.json").write_text(text)
    assert all(message in said for said in readers(mine, tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("totals"), "is incomplete or malformed"),
        (lambda m: m.update(splits=7), "is incomplete or malformed"),
        (lambda m: m["splits"]["train"].update(channel_mean=["x"]), "is incomplete or malformed"),
        (lambda m: m["totals"].update(samples=0.5, bytes=1e308), "is incomplete or malformed"),
    ],
)
def test_a_manifest_that_tells_nonsense_is_no_traceback(
    change: Callable[[dict[str, Any]], object], message: str, mine: Path
) -> None:
    edit(mine / "manifest.json", change)
    assert message in shardgen("inspect", mine)
    assert "do not match the done markers of the shards" in shardgen("verify", mine)


@pytest.mark.parametrize("name", ["splits", "failures", "skipped", "totals", "settings", "fingerprint"])
def test_verify_compares_all_of_the_manifest_with_the_shards(name: str, mine: Path) -> None:
    changes: dict[str, Callable[[dict[str, Any]], object]] = {
        "splits": lambda m: m["splits"]["train"]["channel_mean"].__setitem__(0, 0.123456),
        "failures": lambda m: m["failures"].append({"path": "x.jpg", "reason": "none"}),
        "skipped": lambda m: m["skipped"].append({"path": "x.jpg", "reason": "none"}),
        "totals": lambda m: m["totals"].update(photos=39),
        "settings": lambda m: m["settings"].update(method="area"),
        "fingerprint": lambda m: m.update(fingerprint="0" * 64),
    }
    edit(mine / "manifest.json", changes[name])
    said = shardgen("verify", mine)
    assert f"{mine / 'manifest.json'}: its {name}" in said or "its settings do not match its fingerprint" in said


# ---- indexes and tars


def point_elsewhere(mine: Path) -> None:
    """An index that is sound in itself, but gives each sample the pixels of the next one."""
    path = mine / "train-000000.idx"
    samples = load_index(path)
    shifted = [
        [member._replace(offset=other.offset) for member, other in zip(sample, following, strict=True)]
        for sample, following in zip(samples, [*samples[1:], samples[0]], strict=True)
    ]
    path.write_bytes(dump_index(shifted))


def test_other_samples_pixels_are_not_trained_on_with_verify(mine: Path, tmp_path: Path) -> None:
    point_elsewhere(mine)
    said = train(mine, tmp_path, "--verify")
    assert f"{mine / 'train-000000.idx'} does not match train-000000.tar" in said
    assert "its index train-000000.idx does not match it" in shardgen("verify", mine)


def test_the_index_of_another_shard_is_refused_without_verify_too(mine: Path, tmp_path: Path) -> None:
    for index in sorted(mine.glob("train-*.idx")):
        shutil.copyfile(mine / "val-000000.idx", index)
    assert "expected" in train(mine, tmp_path)
    names = sorted(mine.glob("train-*.idx"))
    counts = {record["name"]: record["samples"] for record in load_json(mine / "manifest.json")["shards"]}
    for index in names:
        index.write_bytes(dump_index(load_index(mine / "val-000000.idx")[:1] * counts[index.stem]))
    assert "has the samples of another shard, val-000000" in train(mine, tmp_path)


@pytest.mark.parametrize(
    ("offset", "size", "message"),
    [
        ("9223372036854775808", "8", "expected a number of bytes, found '9223372036854775808'"),
        ("4611686018427387904", "4611686018427387904", "ends beyond the"),
        ("-512", "8", "expected a number of bytes, found '-512'"),
        ("1e3", "8", "expected a number of bytes, found '1e3'"),
    ],
)
def test_an_index_of_impossible_sizes_is_refused(
    offset: str, size: str, message: str, mine: Path, tmp_path: Path
) -> None:
    for index in mine.glob("*.idx"):
        words = index.read_text().split(" ")
        words[2:4] = [offset, size]
        index.write_text(" ".join(words))
    assert message in train(mine, tmp_path)
    assert message in shardgen("preview", mine, "-o", tmp_path / "x.png")
    assert message in shardgen("unpack", mine, "-o", tmp_path / "unpacked")
    assert "train-000000.idx" in shardgen("verify", mine)
    assert not (tmp_path / "unpacked").exists()


def with_first_member(mine: Path, change: Callable[[tarfile.TarInfo], object]) -> None:
    """A tar with another first header, to which index, marker and manifest fit as far as they can."""
    path = mine / "train-000000.tar"
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
    edit(mine / "train-000000.json", lambda m: m["record"].update(record))
    edit(mine / "manifest.json", lambda m: m["shards"][0].update(record))


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
def test_a_tar_with_names_that_lead_out_is_refused(
    change: Callable[[tarfile.TarInfo], object], message: str, mine: Path, tmp_path: Path
) -> None:
    with_first_member(mine, change)
    said = shardgen("verify", mine), train(mine, tmp_path, "--verify")
    assert all("train-000000" in each for each in said)
    assert message in said[1] or "sample key" in said[1]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"source": ' * 50_000, "7", '{"source": "../../evil.png"}'])
def test_a_samples_json_that_is_made_to_hurt_is_refused(text: str, mine: Path, tmp_path: Path) -> None:
    for index in mine.glob("*.idx"):
        data = bytearray(index.with_suffix(".tar").read_bytes())
        samples = []
        for sample in load_index(index):
            *images, member = sample
            data += text.encode()
            samples.append([*images, member._replace(offset=len(data) - len(text), size=len(text))])
        index.with_suffix(".tar").write_bytes(data)
        index.write_bytes(dump_index(samples))
        manifest = load_json(mine / "manifest.json")
        next(record for record in manifest["shards"] if record["name"] == index.stem).update(bytes=len(data))
        (mine / "manifest.json").write_bytes(dump_json(manifest))
    before = all_files(tmp_path)
    assert "json" in shardgen("unpack", mine, "-o", tmp_path / "unpacked")
    assert "json" in shardgen("inspect", mine, "--shard", "val-000000")
    if text != '{"source": "../../evil.png"}':
        assert "the json of sample 0 is damaged" in train(mine, tmp_path, "--run", "r")
    assert not list(tmp_path.parent.glob("evil*")) and {f for f in all_files(tmp_path) if "evil" in f} <= before


# ---- links


@pytest.mark.parametrize("name", ["train-000000.tar", "train-000000.idx", "manifest.json"])
def test_a_link_that_leads_out_of_the_folder_is_refused(name: str, mine: Path, tmp_path: Path) -> None:
    (mine / name).rename(tmp_path / "outside")
    (mine / name).symlink_to("../outside")
    message = f"{mine / name} is a link to {tmp_path / 'outside'}, outside its folder"
    assert message in train(mine, tmp_path)
    assert message in shardgen("verify", mine)
    assert message in shardgen("unpack", mine, "-o", tmp_path / "unpacked")
    (mine / name).unlink()
    (mine / name).symlink_to("/etc/passwd")
    assert "is a link to /etc/passwd, outside its folder" in train(mine, tmp_path)


def test_what_is_no_plain_file_is_not_read(mine: Path, tmp_path: Path) -> None:
    markers = {}
    for name in ("train-000000.json", "train-000001.json"):
        markers[name] = (mine / name).read_bytes()
        (mine / name).unlink()
    (mine / "train-000000.json").symlink_to("/dev/zero")
    os.mkfifo(mine / "train-000001.json")
    done = run_cli("verify", mine, cwd=tmp_path)  # a process that can be killed should it wait
    assert "train-000000.json is a link to /dev/zero, outside its folder" in done.stderr
    assert f"{mine / 'train-000001.json'} is not a regular file" in done.stderr and "2 of " in done.stderr
    for name, content in markers.items():
        (mine / name).unlink()
        (mine / name).write_bytes(content)
    (mine / "train-000000.idx").unlink()
    os.mkfifo(mine / "train-000000.idx")
    done = run_cli("inspect", mine, "--shard", "train-000000", cwd=tmp_path)
    assert f"{mine / 'train-000000.idx'} is not a regular file" in done.stderr and done.returncode == 1
    (mine / "manifest.json").unlink()
    os.mkfifo(mine / "manifest.json")
    done = run_cli("verify", mine, cwd=tmp_path)
    assert f"{mine / 'manifest.json'} is not a regular file" in done.stderr and done.returncode == 1


def test_a_link_that_leads_to_itself_hides_no_other_file(mine: Path) -> None:
    (mine / "loop").symlink_to("loop")
    assert run_cli("verify", mine).returncode == 0
    (mine / "train-000000.tar").unlink()
    (mine / "train-000000.tar").symlink_to("train-000000.tar")
    said = shardgen("verify", mine)
    assert "train-000000.tar: [Errno 40]" in said and "1 of " in said
    assert "train-000000.tar" in shardgen("inspect", mine, "--shard", "train-000000")


def test_a_folder_that_is_a_link_is_a_folder(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mine)
    (mine / "train-000000.tar").rename(mine / "elsewhere")
    (mine / "train-000000.tar").symlink_to("elsewhere")  # within the folder
    assert run_cli("verify", tmp_path / "link").returncode == 0
    words = ("--shards", tmp_path / "link", "--out", tmp_path / "runs", *SMALL, "--steps", 1, "--verify")
    assert trainer(*words).code == 0


# ---- code in files


YAML = "!!python/object/apply:os.mkdir ['{}']"


def test_yaml_with_tags_of_python_is_refused(photos: Path, shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for text in (YAML, "model: " + YAML, "- blur: " + YAML):
        path.write_text(text.format(tmp_path / MARK))
        assert "not valid YAML" in train(shards / "scale_2x", tmp_path, "--config", path)
        said = shardgen("generate", "-i", photos, "-o", tmp_path / "out", "--degradation", path, "--auto")
        assert "not valid YAML" in said and "python/object/apply:os.mkdir" in said
        assert "not valid YAML" in shardgen("recipe", "check", path)
    assert not (tmp_path / MARK).exists()


def test_yaml_that_is_made_to_hurt_is_refused(shards: Path, tmp_path: Path) -> None:
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


def test_code_in_weights_and_states_is_not_run(shards: Path, tmp_path: Path) -> None:
    folder, trap = shards / "scale_2x", tmp_path / "trap.pth"
    network = network_spec("ultra_lite", 2).build(0)
    for content in (Trap(tmp_path / MARK), {**network.state_dict(), "more": Trap(tmp_path / MARK)}):
        for write in (lambda value: trap.write_bytes(pickle.dumps(value)), lambda value: torch.save(value, trap)):
            write(content)
            assert "objects other than tensors" in train(folder, tmp_path, "--init", trap)
            for words in (("evaluate", "--shards", folder), ("export", "-o", tmp_path / "m.onnx")):
                done = trainer(words[0], "--weights", trap, *words[1:])
                assert done.code == 2 and "objects other than tensors" in done.err
    words = ("--out", tmp_path / "runs", "--run", "r")
    assert trainer("--shards", folder, *words, *SMALL, "--steps", 2).code == 0
    state = tmp_path / "runs" / "r" / "state.pt"
    sound = torch.load(state, weights_only=True)
    for value in (Trap(tmp_path / MARK), {**sound, "data": Trap(tmp_path / MARK)}):
        torch.save(value, state)
        done = trainer(*words, "--resume")
        assert done.code == 2 and "is damaged or belongs to a different training" in done.err
    for wrong in ({"step": "1"}, {"step": -1}, {"step": 2**70}, {"trained_s": "x"}, {"losses": ["x"]}, {"more": 1}):
        torch.save({**sound, "progress": {**sound["progress"], **wrong}}, state)
        done = trainer(*words, "--resume")
        assert done.code == 2 and "is damaged or belongs to a different training" in done.err, wrong
    assert not (tmp_path / MARK).exists()


def test_a_state_whose_tensors_do_not_fit_is_refused(shards: Path, tmp_path: Path) -> None:
    """PyTorch's fused kernels do not look at shapes: they write beyond their memory."""
    run, words = tmp_path / "runs" / "r", ("--out", tmp_path / "runs", "--run", "r")
    assert trainer("--shards", shards / "scale_2x", *words, *SMALL, "--steps", 2).code == 0
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("steps: 2", "steps: 3"))
    sound = torch.load(run / "state.pt", weights_only=True)

    def resumed(*place: Any, value: Any) -> Result:
        state = copy.deepcopy(sound)
        *outer, name = place
        functools.reduce(operator.getitem, outer, state)[name] = value
        torch.save(state, run / "state.pt")
        return trainer(*words, "--resume")

    optimizer, weight = ("optimizer", "state", 0), sound["params"]["body.0.weight"]
    for done in (
        resumed(*optimizer, "exp_avg", value=torch.ones(3)),
        resumed(*optimizer, "exp_avg", value=torch.zeros(1, dtype=torch.half).expand(180_000, 180_000)),
        resumed(*optimizer, "exp_avg", value="x"),
        resumed(*optimizer, "step", value=torch.ones(3)),
        resumed(*optimizer, value={}),
        resumed("optimizer", "state", 99, value={}),
        resumed("params", "body.0.weight", value=weight.to_sparse()),
        resumed("params", "body.0.weight", value=weight.to("meta")),
        resumed("params", "body.0.weight", value=weight.to(torch.complex64)),
        resumed("scaler", value={"scale": "x"}),
    ):
        assert done.code == 2 and "is damaged or belongs to a different training" in done.err
    many: list[Any] = []
    for _ in range(60):
        many = [many, many]
    assert resumed("more", value=many).code == 0, "2^60 lists that are but 60"
    assert resumed("optimizer", "param_groups", 0, "betas", value="x").code == 0, "these are not the state's to say"


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
def test_a_marker_that_tells_nonsense_is_made_again(
    change: dict[str, Any], photos: Path, shards: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(shards, tmp_path / "mine"))
    edit(mine / "scale_2x" / "train-000000.json", lambda m: m.update(change))
    assert "train-000000.json is missing or damaged" in shardgen("verify", mine)
    done = generate(photos, mine, "-s", 2, 3, "--shard-bytes", "300KB")
    assert "Shards: 1 built" in done.stdout
    assert json.loads((mine / "scale_2x" / "train-000000.json").read_text())["photos"] != change.get("photos")
    assert run_cli("verify", mine).returncode == 0
