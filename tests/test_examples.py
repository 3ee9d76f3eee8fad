"""The examples run unchanged, stop and resume; with small sizes, which are their arguments and variables."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fake_hub import REPOSITORY, serving
from helpers import TIMEOUT_S, all_files, generate, make_photos, mode_and_size
from notebook import cells, run_notebook
from pairs import make_pairs
from test_trainer_vgg19 import CONFIGURATION, plain, state_of
from warm_python import warm_python

import srshards
from tests.drill.training import journal
from trainer.models.spandrel_import import load_spandrel

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
SMALL = ("--patch-size", 32, "--batch-size", 2, "--workers", 0, "--val-samples", 1)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the command `python`, which starts at once."""
    with warm_python(tmp_path_factory.mktemp("python")) as folder:
        yield folder


@pytest.fixture
def start(python: Path) -> Callable[..., str]:
    """A function that runs a command as a user does, expecting this exit code, and returns all that it prints."""

    def start(*command: object, expect: int = 0, **variables: str) -> str:
        environment = environment_of(python, Path(sys.executable).parent, PYTHONPATH=str(ROOT), **variables)
        result = subprocess.run(
            [*map(str, command)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )
        assert result.returncode == expect, result.stdout
        return result.stdout

    return start


def environment_of(*folders: Path, **variables: str) -> dict[str, str]:
    """Return the environment with these folders first in PATH, and these variables."""
    return {**os.environ, "PATH": ":".join([*map(str, folders), os.environ["PATH"]]), **variables}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few(photos: Path, here: Path) -> Path:
    """A folder of five photos."""
    for number, photo in enumerate(sorted(photos.rglob("*.jpg"))[:5]):
        (here / "few").mkdir(exist_ok=True)
        shutil.copy(photo, here / "few" / f"{number}.jpg")
    return here / "few"


# ---- own programs


def test_own_training_loop_resumes(start: Callable[..., str], shards: Path, tmp_path: Path) -> None:
    """39 samples in batches of 16 give two steps per epoch: the first run stops within an epoch."""
    args = (shards / "scale_2x", "--checkpoint", tmp_path / "halves.pt", "--steps")
    for steps, printed in ((3, [2, 3]), (5, [4, 5])):
        lines = start("python", EXAMPLES / "own_training_loop.py", *args, steps).splitlines()
        assert [line.partition(":")[0] for line in lines] == [f"step {step}" for step in printed]
    halves = torch.load(tmp_path / "halves.pt")
    assert halves["loader"]["step"] == 5
    assert halves["optimizer"]["state"][0]["step"] == 5
    assert len((EXAMPLES / "own_training_loop.py").read_text().splitlines()) < 70


def test_lightning_module_resumes(start: Callable[..., str], shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("lightning", reason="lightning is in the dev extra")
    for steps in (3, 4):
        start("python", EXAMPLES / "lightning_module.py", shards / "scale_2x", "--out", tmp_path, "--steps", steps)
        state = torch.load(tmp_path / "last.ckpt", weights_only=False)
        (loader,) = state["loops"]["fit_loop"]["state_dict"]["combined_loader"]
        assert state["global_step"] == loader["step"] == steps


def test_loop_in_two_processes_continues_in_one(start: Callable[..., str], shards: Path, here: Path) -> None:
    """Two processes with 8 patches each take the steps of one with 16, with gloo."""
    launch = ("torchrun", "--standalone", "--nproc-per-node", 2)
    program = (EXAMPLES / "multi_gpu_loop.py", shards / "scale_2x", "--batch-size", 8, "--steps", 3)
    output = start(*launch, *program, OMP_NUM_THREADS="1")
    lines = [line for line in output.splitlines() if line.startswith("step")]
    assert [re.sub(r"loss [\d.]+", "loss", line) for line in lines] == [
        "step 2: loss, 16 patches per step",
        "step 3: loss, 16 patches per step",
    ]
    parameters = torch.load(here / "checkpoint.pt")["network"]
    assert not any(name.startswith("module.") for name in parameters)  # as own_training_loop.py would save them
    output = start("python", EXAMPLES / "own_training_loop.py", shards / "scale_2x", "--steps", 4)
    assert output.startswith("step 4: loss ")


# ---- scripts


def test_scripts_print_their_usage(start: Callable[..., str], here: Path) -> None:
    for script in sorted(EXAMPLES.glob("*.sh")):
        assert start(script, expect=2).startswith(f"usage: {script} ")
        assert not list(here.iterdir())


def test_multi_gpu_trains_in_two_processes(start: Callable[..., str], shards: Path, here: Path) -> None:
    args = ("--model", "ultra_lite", *SMALL, "--steps", 2)
    output = start(EXAMPLES / "multi_gpu.sh", shards / "scale_2x", "out/two", *args, PROCESSES="2")
    assert "Ranks    2 processes, 2 patches per step each" in output
    assert (here / "out" / "two" / "best.pth").exists()
    again = start(EXAMPLES / "multi_gpu.sh", shards / "scale_2x", "out/two", *args, PROCESSES="1")
    assert "out/two has already finished, at step 2" in again


def test_fine_tune_compares_a_published_network_with_itself(start: Callable[..., str], few: Path, here: Path) -> None:
    """A stand-in in the layout of realesr-general-x4v3.pth: spandrel's network, smaller and with random weights."""
    load_spandrel()
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    torch.save({"params": SRVGGNetCompact(num_conv=4, upscale=4).state_dict()}, "general-x4.pth")
    output = start(EXAMPLES / "fine_tune.sh", "general-x4.pth", few, "out", "--steps", 1, *SMALL, SIZE="64")
    assert "Init     network from general-x4.pth" in output and "4x by realesrgan, 4 variants" in output
    assert re.search(r"^  general-x4.pth +[\d.]+ dB", output, re.MULTILINE)
    assert re.search(r"^  out/tuned/best.pth +[\d.]+ dB", output, re.MULTILINE)
    assert "general-x4.pth" in (here / "out" / "compare.html").read_text()


def test_realesrgan_trains_both_stages_and_continues(start: Callable[..., str], few: Path, here: Path) -> None:
    """The first run ends between the stages, because its weights of VGG19 are not those."""
    script = EXAMPLES / "realesrgan.sh"
    args = ("out", "--model", "ultra_lite", *SMALL)
    sizes = {"SIZE": "64", "STEPS1": "2", "STEPS2": "1"}
    assert "no.pth: no such file; the head of" in start(script, few, "no.pth", expect=2, **sizes)
    assert not (here / "build").exists()
    torch.save(state_of(plain(CONFIGURATION[:3])), "part.pth")
    assert "part.pth" in start(script, few, "part.pth", *args, expect=2, **sizes).splitlines()[-1]
    torch.save(state_of(plain(CONFIGURATION)), "vgg19.pth")
    output = start(script, few, "vgg19.pth", *args, **sizes)
    assert "out/stage1 has already finished, at step 2" in output
    configs = [yaml.safe_load((here / "out" / name / "config.yaml").read_text()) for name in ("stage1", "stage2")]
    assert [config["preset"] for config in configs] == ["realesrnet", "realesrgan"]
    assert [config["steps"] for config in configs] == [2, 1] and configs[1]["batch-size"] == 2
    assert configs[1]["init"] == "out/stage1/model.pth" and configs[1]["gan"] == "vanilla:0.1"
    assert [line["step"] for line in journal(here / "out" / "stage2") if line["event"] == "val"] == [1]
    for name in ("training.html", "compare.html"):
        assert "stage2" in (here / "out" / name).read_text()


def test_realesrgan_takes_tiles_and_photos_for_validation(start: Callable[..., str], few: Path, here: Path) -> None:
    """Up to the second stage, for which the weights are wrong."""
    make_photos(here / "valid", 1, size=(70, 150))
    torch.save(state_of(plain(CONFIGURATION[:3])), "part.pth")
    variables = {"SIZE": "64", "STEPS1": "1", "FIT": "tile", "VAL": "valid"}
    args = ("out", "--model", "ultra_lite", *SMALL)
    start(EXAMPLES / "realesrgan.sh", few, "part.pth", *args, expect=2, **variables)
    shards = srshards.open(here / "out/shards/scale_4x")
    boxes = sorted(sample.meta["box"] for sample in shards.val)
    assert boxes == [[left, top, 64, 64] for left in (0, 64, 86) for top in (0, 6)]
    assert len({sample.meta["source"] for sample in shards.train}) == 5 < len(shards.train)


def test_pairs_trains_every_scale(start: Callable[..., str], here: Path) -> None:
    make_pairs(here / "train", 4)
    make_pairs(here / "valid", 1, scales=(2, 3))
    output = start(
        *(EXAMPLES / "pairs.sh", "train/HR", "train", "out", "--model", "ultra_lite", *SMALL),
        *("--steps", 1, "--patch-size", 24),
        SIZE="48",
        VAL_HR="valid/HR",
        VAL_LR="valid",
    )
    for scale in (2, 3):
        assert f"out/scale_{scale}x/best.pth (ultra_lite, {scale}x) on out/shards/scale_{scale}x (val)" in output
        (here / "out" / f"scale_{scale}x.html").stat()


# ---- publishing


def test_publish_uploads_with_a_license_and_reads_back(start: Callable[..., str], few: Path, here: Path) -> None:
    generate(few, here / "shards", "-s", 2, 4, "--codec", "png")
    (here / "hub").mkdir()
    with serving(here / "hub") as endpoint:
        hub = {"HF_ENDPOINT": endpoint, "HF_HOME": str(here / "home"), "HF_TOKEN": "none", "HF_HUB_OFFLINE": "0"}
        output = start(
            *("python", EXAMPLES / "publish.py", "shards", REPOSITORY, "--license", "cc-by-4.0"),
            XDG_CACHE_HOME=str(here / "cache"),
            **hub,
        )
    assert "{'hr.png': (64, 64, 3), 'lr.png': (16, 16, 3)}" in output
    assert "srshards: <Shards 2x: 4 train, 1 val samples, HR 64 px, png>" in output
    assert all_files(here / "hub") == all_files(here / "shards") - {".shardgen.lock"}
    for card in (here / "hub").rglob("README.md"):
        assert card.read_text().startswith("---\nlicense: cc-by-4.0\npretty_name: ")
    generate(few, here / "shards", "-s", 2, 4, "--codec", "png", "--method", "area", "--force")
    card = (here / "shards/README.md").read_text()  # written anew, because a license is no edit
    assert card.startswith("---\nlicense: cc-by-4.0\n") and "area" in card


# ---- notebook


@pytest.fixture
def clone(here: Path) -> Path:
    """A copy of what the notebook needs of a clone, with the compiled core, as `pip install -e` leaves it."""
    for name in ("srshards", "shardgen", "trainer", "examples"):
        shutil.copytree(ROOT / name, here / "clone" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE", "MANIFEST.in", "pyproject.toml", "setup.cfg", "setup.py"):
        shutil.copy(ROOT / name, here / "clone" / name)
    return here / "clone"


def test_quickstart_notebook_runs(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells; pip only plans what it would install: nothing but the clone, so PyTorch stays as it is."""
    monkeypatch.chdir(clone / "examples")
    no_network = {"PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_QUIET": "0"}
    environment = environment_of(Path(sys.executable).parent, PYTHONPATH=str(clone), OMP_NUM_THREADS="1", **no_network)
    printed, displayed = run_notebook(Path("quickstart.ipynb"), environment, STEPS=2)
    out = clone / "build" / "quickstart"
    assert "9 photographs from scikit-image" in printed and "120 samples in 2 shards" in printed
    assert re.search(r"^network +[\d.]+ dB", printed, re.MULTILINE)
    assert [picture.size for picture in displayed][1:] == [(1200, 400)] and displayed[0].width > 1000
    assert mode_and_size(out / "upscaled.png") == ("RGB", (2400, 1600))
    assert max(line["step"] for line in journal(out / "first") if line["event"] == "train") == 2


def test_notebook_is_plain_and_without_outputs() -> None:
    notebook: dict[str, Any] = json.loads((EXAMPLES / "quickstart.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len({*ids}) == len(ids)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert "**Time**" in cells(EXAMPLES / "quickstart.ipynb")[0]["source"]


# ---- all


def test_every_example_has_a_header_and_a_row_of_the_readme() -> None:
    page = (EXAMPLES / "README.md").read_text()
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert set(re.findall(r"^\| \[(.+?)\]\(\1\) \|", page, re.MULTILINE)) == files
    for name in files - {"quickstart.ipynb"}:
        head = (EXAMPLES / name).read_text()[:3000]
        assert all(word in head for word in ("Time: ", "Hardware: ", "Output")), name
    assert all(os.access(path, os.X_OK) for path in EXAMPLES.glob("*.sh"))
