"""The shard format, as read by WebDataset, DALI, tar and this project."""

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from helpers import generate, read_images
from hypothesis import given
from hypothesis import strategies as st

from srshards.format import (
    CODECS,
    FormatError,
    dump_json,
    image_extension,
    load_json,
    load_manifest,
    sample_key,
    shard_name,
    shard_of_key,
)
from srshards.imaging import codec
from srshards.shards.tar_index import Member, dump_index, index_of_tar, load_index


def test_importing_the_contract_loads_only_the_standard_library() -> None:
    program = (
        "import sys; before = set(sys.modules); import srshards.format, srshards.shards.tar_index;"
        "print(*(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    foreign = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"srshards"}
    assert not foreign
    ours = {name for name in loaded if name.partition(".")[0] == "srshards"}
    assert ours == {f"srshards{name}" for name in ("", ".extras", ".format", ".shards", ".shards.tar_index")}


@given(split=st.sampled_from(["train", "val"]), number=st.integers(0, 999_999), ordinal=st.integers(0, 99_999))
def test_sample_key_has_twelve_digits_and_determines_the_shard(split: str, number: int, ordinal: int) -> None:
    key = sample_key(split, number, ordinal)
    assert re.fullmatch(r"\d{12}", key)
    assert shard_of_key(key) == shard_name(split, number)


@pytest.mark.parametrize("key", ["", "42", "200000000000", "00000000000a", "0000000000000"])
def test_invalid_sample_key_is_rejected(key: str) -> None:
    with pytest.raises(FormatError, match="is not a sample key: expected twelve digits"):
        shard_of_key(key)


members = st.builds(
    Member,
    extension=st.sampled_from(["hr.npy", "lr.png", "json"]),
    offset=st.integers(0, 2**62),
    size=st.integers(0, 2**62),
    name=st.from_regex(r"[0-9]{12}\.[a-z.]{1,8}", fullmatch=True),
)


@given(samples=st.lists(st.lists(members, min_size=1, max_size=4), max_size=5))
def test_index_round_trips(samples: list[list[Member]], tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "roundtrip.idx"
    path.write_bytes(dump_index(samples))
    assert load_index(path) == samples


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a valid v1.2 index"),
        (b"v1.1 0\n", "expected index v1.2, found v1.1"),
        (b"v1.2 2\nhr.npy 512 8 0.hr.npy\n", "announces 2 samples, but the file has 1"),
        (b"v1.2 1\nhr.npy 512 8\n", "expected groups of 4"),
        (b"v1.2 1\nhr.npy 512 -8 0.hr.npy\n", "expected a number of bytes, found '-8'"),
        (b"v1.2 1\nhr.npy 1_2 8 0.hr.npy\n", "expected a number of bytes, found '1_2'"),
        (b"v1.2 1\nhr.npy 512 9223372036854775808 0.hr.npy\n", "a number of bytes, found '9223372036854775808"),
        (b"v1.2 1\nhr.npy 512 " + b"9" * 5000 + b" 0.hr.npy\n", "expected a number of bytes, found '999"),
        (b"v1.2 1\nhr.npy x 8 0.hr.npy\n", "is not a valid v1.2 index"),
        (b"v1.2 1\n\n", "expected groups of 4"),
        ("v1.2 1\nhr.npy 1 8 é.npy\n".encode(), "is not a valid v1.2 index"),
    ],
)
def test_damaged_index_is_rejected(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "train-000000.idx"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as error:
        load_index(path)
    assert str(path) in str(error.value)


def tar_of(*infos: tarfile.TarInfo) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for info in infos:
            archive.addfile(info)
    stream.seek(0)
    return stream


def link_named(name: str) -> tarfile.TarInfo:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
    return link


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (io.BytesIO(b"not a tar" * 100), "train-000000.tar is not a complete tar"),
        (tar_of(link_named("000000000000.json")), "train-000000.tar contains members that are not regular files"),
        (tar_of(tarfile.TarInfo("000000000000.hr npy")), "'000000000000.hr npy' is not a valid member name"),
        (tar_of(tarfile.TarInfo("000000000000.é")), "'000000000000.é' is not a valid member name"),
    ],
)
def test_invalid_tar_is_rejected(content: io.BytesIO, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        index_of_tar(content, Path("train-000000.tar"))


def test_json_is_utf8_and_escapes_other_bytes(tmp_path: Path) -> None:
    assert "山/图.jpg".encode() in dump_json({"path": "山/图.jpg"})
    odd = {"path": "a\udcff.jpg"}  # how Python represents a non-UTF-8 byte of a file name
    (tmp_path / "x.json").write_bytes(dump_json(odd))
    assert load_json(tmp_path / "x.json") == odd


def test_manifest_contains_what_readers_need(shards: Path) -> None:
    manifest = load_manifest(shards / "scale_3x")
    assert (manifest.scale, manifest.hr_size, manifest.codec) == (3, 63, "npy")
    assert manifest.raw["totals"]["samples"] == sum(shard.samples for shard in manifest.shards) == 40
    assert {shard.split for shard in manifest.shards} == {"train", "val"}
    assert not re.search(r"time|date", json.dumps(manifest.raw)), "a manifest must not contain times"


RECORD = {"name": "val-000000", "split": "val", "samples": 1, "bytes": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 4}, "has format version 4, newer than 3; update sr-shards"),
        ({"format_version": None}, "expected a format_version"),
        ({"shards": {}}, "expected 'settings' and 'shards'"),
        ({"settings": {"scale": "4", "hr_size": 64, "codec": "npy"}}, "invalid scale"),
        (
            {"settings": {"scale": 4, "hr_size": 64, "codec": "exe"}},
            f"expected codec {', '.join(CODECS)}, found 'exe'",
        ),
        ({"shards": [{"name": "train-000000"}]}, "expected a shard record"),
        ({"shards": [{**RECORD, "name": "../../x"}]}, "is not a valid shard name"),
        ({"shards": [RECORD] * 2}, "twice"),
        ({"shards": [{**RECORD, "name": "val-00000\u0660"}]}, "not a valid shard name"),
        ({"shards": [{**RECORD, "sha256": ""}]}, "'' of val-000000 is not a SHA-256"),
        ({"shards": [{**RECORD, "bytes": 2**63}]}, "val-000000 cannot have 1 samples in 9223372036854775808 bytes"),
        ({"shards": [{**RECORD, "samples": -1}]}, "val-000000 cannot have -1 samples"),
        ({"shards": [{**RECORD, "samples": 1.0}]}, "expected a shard record"),
        ({"shards": [RECORD, {**RECORD, "name": "train-000000", "split": "train"}]}, "not list its shards in order"),
        ({"settings": {"scale": 4, "hr_size": 4 << 40, "codec": "npy"}}, "invalid scale"),
        ({"settings": {"scale": 4, "hr_size": 64, "codec": "npy"}}, "invalid variants None or up None"),
    ],
)
def test_invalid_manifest_is_rejected(change: dict[str, object], message: str, shards: Path, tmp_path: Path) -> None:
    manifest = {**load_json(shards / "scale_2x" / "manifest.json"), **change}
    (tmp_path / "manifest.json").write_bytes(dump_json(manifest))
    with pytest.raises(FormatError, match=message):
        load_manifest(tmp_path)


def test_invalid_json_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(FormatError, match=r"manifest\.json is not valid JSON"):
        load_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(FormatError, match="expected a JSON object, found list"):
        load_manifest(tmp_path)


@pytest.fixture(scope="module", params=CODECS)
def one_codec(request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp(request.param)
    generate(photos, output, "-s", 4, "--codec", request.param)
    return output / "scale_4x"


def test_webdataset_reads_the_same_samples(one_codec: Path) -> None:
    manifest = load_manifest(one_codec)
    for record in manifest.shards:
        tar = one_codec / f"{record.name}.tar"
        ours = read_images(tar)
        keys = []
        for sample in webdataset.WebDataset(str(tar), shardshuffle=False):
            keys.append(sample["__key__"])
            for image in ("hr", "lr", "up"):
                extension = image_extension(image, manifest.codec)
                theirs = codec.decode(extension.rpartition(".")[2], sample[extension])
                assert np.array_equal(theirs, ours[f"{sample['__key__']}.{extension}"])
            described = json.loads(sample["json"])
            assert described["scale"] == 4 and described["method"] == "cubic"
        assert keys == [sample_key(record.split, int(record.name[-6:]), n) for n in range(record.samples)]


def test_webdataset_decodes_npy(photos: Path, shards: Path) -> None:
    tar = shards / "scale_2x" / "val-000000.tar"
    (sample, *_) = webdataset.WebDataset(str(tar), shardshuffle=False).decode()
    assert np.array_equal(sample["hr.npy"], read_images(tar)[f"{sample['__key__']}.hr.npy"])


def test_keys_are_unique_across_shards(shards: Path) -> None:
    tars = sorted(str(path) for path in (shards / "scale_2x").glob("*.tar"))
    assert len(tars) > 2
    keys = [sample["__key__"] for sample in webdataset.WebDataset(tars, shardshuffle=False)]
    assert len(keys) == len(set(keys)) == 40


def test_tar_lists_and_extracts_shards(one_codec: Path, tmp_path: Path) -> None:
    tar = one_codec / "val-000000.tar"
    subprocess.run(["tar", "-xf", tar, "-C", tmp_path], check=True, capture_output=True)
    listed = subprocess.run(["tar", "-tf", tar], check=True, capture_output=True, text=True).stdout.split()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(listed)
    codec_name = load_manifest(one_codec).codec
    lr = "lr.npy" if codec_name == "tlc" else f"lr.{codec_name}"
    extensions = [f"hr.{codec_name}", lr, f"up.{codec_name}", "json"]
    assert listed[:4] == [f"100000000000.{extension}" for extension in extensions]


def test_member_headers_contain_no_times_or_owners(shards: Path) -> None:
    with tarfile.open(shards / "scale_2x" / "val-000000.tar") as archive:
        traces = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in archive}
    assert traces == {(0, 0, 0, "", "", 0o644, tarfile.REGTYPE)}


def test_index_matches_dalis_format(one_codec: Path) -> None:
    """As written by DALI's `wds2idx`: extension after the first dot, offset of the data, size, name."""
    for tar in one_codec.glob("*.tar"):
        header, *lines = tar.with_suffix(".idx").read_text().splitlines()
        version, count = header.split(" ")
        assert (version, int(count)) == ("v1.2", len(lines))
        tokens = [token for line in lines for token in line.split(" ")]
        with tarfile.open(tar) as archive:
            expected = [
                str(token)
                for member in archive
                for token in (member.name.split(".", 1)[1], member.offset_data, member.size, member.name)
            ]
        assert tokens == expected
