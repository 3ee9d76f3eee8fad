"""The launchers of adapters: a framework's training loop with batches from `PatchLoader`, without the framework."""

import math
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from framework_stand_ins import EnlargedSampler, Logger, adapter, train_script
from helpers import generate, make_photos, overwrite

import srshards
from srshards.adapters import frameworks
from srshards.adapters.frameworks import framework, script_beside
from srshards.adapters.launch import launch
from srshards.adapters.options import OptionNames
from srshards.adapters.pair_dataset import PairDataset
from srshards.adapters.train_loader import TrainLoader
from srshards.loader.patch_loader import PatchLoader
from srshards.shards.tar_index import load_index

NAMES = OptionNames(patch_size="gt_size", batch_size="batch_size_per_gpu", accumulate="accum_iter")
BATCH = 8
STEPS_PER_EPOCH = 5  # 39 samples / 8, rounded up
SEED = 5  # that of `train_script`


@pytest.fixture(scope="module")
def opened(shards: Path) -> srshards.Shards:
    """39 training samples, 2x, HR of 64 px."""
    return srshards.open(shards / "scale_2x")


def options(shards: srshards.Shards, **changed: Any) -> dict[str, Any]:
    backend = {"type": "shards", "path": str(shards.path), "prefetch": 2, **changed.pop("backend", {})}
    given = {"type": "ShardsDataset", "phase": "train", "scale": 2, "gt_size": 32, "batch_size_per_gpu": BATCH}
    return {**given, "num_worker_per_gpu": 0, "io_backend": backend, **changed}


def train(shards: srshards.Shards, total: int, logger: Logger | None = None, **run: Any) -> list[tuple[int, Any]]:
    """Train for `total` iterations; return the epoch and the batch of each."""
    opt = options(shards, **run.pop("changed", {}))
    script = train_script(PairDataset(opt, NAMES), opt, BATCH, total, **run)
    found = logger or Logger()
    launch(script, "root", lambda: found)
    assert script.root == "root"
    return script.batches


def of_patch_loader(shards: srshards.Shards, first: int, stop: int, **arguments: Any) -> list[tuple[bytes, bytes]]:
    """Return the contents of steps of a plain `PatchLoader`."""
    arguments = {"patch_size": 32, "batch_size": BATCH, "seed": SEED, "workers": 0, **arguments}
    with srshards.PatchLoader(shards, **arguments) as loader:
        return [(batch.hr.numpy().tobytes(), batch.input.numpy().tobytes()) for batch in loader.steps(first, stop)]


def contents(batches: list[tuple[int, Any]]) -> list[tuple[bytes, bytes]]:
    """Return the batches of a training as `of_patch_loader` does: N x H x W x 3 uint8, which they are exactly."""
    return [tuple(_bytes(batch[name]) for name in ("gt", "lq")) for _, batch in batches]  # type: ignore[misc]


def _bytes(images: torch.Tensor) -> bytes:
    levels = images.double() * 255
    assert images.dtype == torch.float32 and images.is_contiguous() and images.shape[:2] == (BATCH, 3)
    assert (levels - levels.round()).abs().max() < 1e-4
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).numpy().tobytes()


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_are_those_of_patch_loader(ahead: bool, opened: srshards.Shards) -> None:
    """Across epochs, whose last batch is complete, and with prefetchers that take a batch in advance."""
    batches = train(opened, 12, ahead=ahead)
    assert contents(batches) == of_patch_loader(opened, 0, 12)
    assert [epoch for epoch, _ in batches] == [step // STEPS_PER_EPOCH for step in range(12)]


@pytest.mark.slow
def test_workers_do_not_change_batches(opened: srshards.Shards) -> None:
    assert contents(train(opened, 7, changed={"num_worker_per_gpu": 2})) == of_patch_loader(opened, 0, 7)


def test_batches_stay_valid(opened: srshards.Shards) -> None:
    """Those of `PatchLoader` on a CPU are overwritten by the next."""
    batches = train(opened, 3)
    assert len(set(contents(batches))) == 3


def test_enlarged_epochs_repeat_no_patch(opened: srshards.Shards) -> None:
    batches = train(opened, 30, ratio=20)
    assert {epoch for epoch, _ in batches} == {0}
    assert contents(batches) == of_patch_loader(opened, 0, 30)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(("epoch", "iteration"), [(0, 3), (1, 7), (1, 10)])
def test_resumed_run_continues_after_the_saved_iteration(
    epoch: int, iteration: int, ahead: bool, opened: srshards.Shards
) -> None:
    """Within an epoch, and at its end, when nothing is left of the saved epoch."""
    logger = Logger()
    batches = train(opened, 13, logger, state={"epoch": epoch, "iter": iteration}, ahead=ahead)
    assert contents(batches) == of_patch_loader(opened, iteration, 13)
    assert logger.lines[0].endswith(f"from step {iteration}.")


def test_accumulated_batches_are_counted_when_resuming(opened: srshards.Shards) -> None:
    """neosr and traiNNer-redux count iterations of several batches."""
    batches = train(opened, 4, state={"epoch": 1, "iter": 3}, accumulate=2, changed={"accum_iter": 2})
    assert contents(batches) == of_patch_loader(opened, 6, 8)


def test_patches_per_sample_and_augmentation_are_passed_on(opened: srshards.Shards) -> None:
    changed = {"backend": {"patches_per_sample": 2}, "use_hflip": False, "use_rot": False}
    expected = of_patch_loader(opened, 0, 4, patches_per_sample=2, augment=False)
    assert contents(train(opened, 4, changed=changed)) == expected


def test_automatic_number_of_workers_is_that_of_patch_loader(opened: srshards.Shards) -> None:
    """neosr's default."""
    opt = options(opened, num_worker_per_gpu="auto")
    train_opt = PairDataset(opt, NAMES).train
    assert train_opt and train_opt.workers is None


def test_default_device_does_not_matter(opened: srshards.Shards) -> None:
    """neosr makes the GPU the default device."""
    with torch.device("meta"):
        batches = train(opened, 2)
    assert contents(batches) == of_patch_loader(opened, 0, 2)


def test_validation_keeps_the_loader_of_the_framework(opened: srshards.Shards) -> None:
    opt = options(opened)
    validation = PairDataset(options(opened, phase="val"), NAMES)
    script = train_script(PairDataset(opt, NAMES), opt, BATCH, 1, val=validation)
    launch(script, ".", Logger)
    assert script.val.dataset is validation
    assert [batch["gt"].shape for batch in script.val] == [(1, 3, 64, 64)]


def test_damaged_sample_is_logged_once(tmp_path: Path) -> None:
    generate(make_photos(tmp_path / "photos", 9), tmp_path, "-s", 2, "--val-fraction", 0, "--codec", "png")
    folder = tmp_path / "scale_2x"
    (index,) = folder.glob("train-*.idx")
    member = next(member for member in load_index(index)[3] if member.name.endswith(".hr.png"))
    overwrite(index.with_suffix(".tar"), member.offset, b"damage")
    logger = Logger()
    train(srshards.open(folder), 6, logger)
    (warning,) = [line for line in logger.lines if line.startswith("WARNING")]
    assert warning.startswith("WARNING Damaged sample replaced by another one: ") and member.name in warning


def test_basicsr_resumes_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last state of the run with `--auto_resume`, otherwise from the one that is named, if one is."""
    monkeypatch.chdir(tmp_path)
    states = tmp_path / "experiments/run/training_states"
    states.mkdir(parents=True)
    checked: list[tuple[Any, int]] = []
    with adapter("basicsr"):
        vars(sys.modules["basicsr.utils"])["check_resume"] = lambda opt, step: checked.append((opt["path"], step))
        load = import_module("srshards.adapters.basicsr.resume").load_resume_state
        sys.modules.pop("srshards.adapters.basicsr.resume")
    assert load({"name": "run", "auto_resume": True, "path": {}}) is None
    for step in (5, 10):
        torch.save({"iter": step}, states / f"{step}.state")
    named = {"resume_state": str(states / "5.state")}
    assert load({"name": "run", "auto_resume": True, "path": {**named}}) == {"iter": 10}
    assert load({"name": "run", "auto_resume": False, "path": {**named}}) == {"iter": 5}
    assert load({"name": "run", "auto_resume": False, "path": {"resume_state": None}}) is None
    assert checked == [({"resume_state": "experiments/run/training_states/10.state"}, 10), (named, 5)]


# ---- errors


def fails(script: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the message with which a launcher ends."""
    with pytest.raises(SystemExit) as ended:
        launch(script, ".", Logger)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_worker_per_gpu": -1}, "Error: `num_worker_per_gpu` -1: expected 0 or more\n"),
        ({"batch_size_per_gpu": 0}, "Error: `batch_size_per_gpu` 0: expected 1 or more\n"),
        ({"backend": {"prefetch": 99}}, "Error: `io_backend: prefetch` 99: expected at most 64\n"),
    ],
)
def test_option_that_the_loader_rejects_ends_with_a_sentence(
    changed: dict[str, Any], message: str, opened: srshards.Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    opt = options(opened, **changed)
    assert fails(train_script(PairDataset(opt, NAMES), opt, BATCH, 1), capsys) == message


@pytest.mark.parametrize("kind", [srshards.ArgumentError, srshards.WorkerDiedError])
def test_error_of_data_workers_names_the_options_of_the_framework(
    kind: type[Exception], opened: srshards.Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise kind("use fewer `workers`, or a smaller `prefetch`, `batch_size` or `patch_size`")

    monkeypatch.setattr(PatchLoader, "steps", fail)
    loader = PatchLoader(opened, 32, BATCH, workers=0)
    names = OptionNames("patch_size", "batch_size_per_gpu", in_lr_px=True)
    batches = iter(TrainLoader(loader, names, EnlargedSampler(39), BATCH, 0, print))
    with pytest.raises(kind) as refused:
        next(batches)
    assert str(refused.value) == (
        "use fewer `num_worker_per_gpu`, or a smaller `io_backend: prefetch`, `batch_size_per_gpu` or "
        "`patch_size` x `scale`"
    )


def test_gpu_that_is_missing_is_named(
    opened: srshards.Shards, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    opt = options(opened)
    script = train_script(PairDataset(opt, NAMES), opt, BATCH, 1, num_gpu=2)
    assert fails(script, capsys) == (
        "Error: `num_gpu` 2: this machine has no CUDA device; set it to 0 to train on the CPU\n"
    )


def test_training_on_other_datasets_is_refused(opened: srshards.Shards, capsys: pytest.CaptureFixture[str]) -> None:
    class PairedImageDataset(torch.utils.data.TensorDataset):
        pass

    script = train_script(PairedImageDataset(torch.zeros(1)), {}, BATCH, 1)
    assert fails(script, capsys) == (
        "Error: the training dataset is a PairedImageDataset, but this command trains from shards; set its `type` to "
        "ShardsDataset, or start the framework's own training command\n"
    )


@pytest.mark.parametrize("as_struct", [False, True])
def test_a_dataset_of_files_with_options_of_shards_is_refused(
    as_struct: bool, opened: srshards.Shards, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the framework asks for the folders. Options of traiNNer-redux are a struct."""
    opt = options(opened, type="PairedImageDataset")
    script = train_script(PairDataset(opt, NAMES), SimpleNamespace(**opt) if as_struct else opt, BATCH, 1)  # type: ignore[arg-type]
    script.build_dataset = lambda dataset_opt: {}["dataroot_gt"]
    assert fails(script, capsys) == "Error: io_backend `shards` needs `type: ShardsDataset`, not PairedImageDataset\n"


def test_other_errors_of_a_training_are_left_to_python(opened: srshards.Shards) -> None:
    opt = options(opened)
    script = train_script(PairDataset(opt, NAMES), opt, BATCH, 1)
    script.train_pipeline = lambda root: [][0]
    with pytest.raises(IndexError):
        launch(script, ".", Logger)


def test_framework_without_its_training_script_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "framework").mkdir()
    (tmp_path / "framework" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    package = __import__("framework")
    with pytest.raises(srshards.UsageError) as refused:
        script_beside(package)
    path = tmp_path / "train.py"
    assert str(refused.value) == f"{path} is missing; run this command in a clone of framework, which contains it"
    path.write_text("def train_pipeline(root): return root\n")
    assert script_beside(package).train_pipeline("here") == "here"
    sys.modules.pop("framework")


@pytest.mark.parametrize("version", ["1.13.1+cu117", "2.5.1"])
def test_an_old_pytorch_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frameworks.metadata, "version", lambda name: version)
    message = f"PyTorch {version} is too old for sr-shards; install 2.6 or newer here"
    with pytest.raises(ImportError) as refused, framework("BasicSR", "basicsr", ""):
        pytest.fail("the framework was imported")
    assert str(refused.value) == message
    monkeypatch.setattr(sys, "argv", ["-m"])
    with pytest.raises(SystemExit) as ended, framework("BasicSR", "basicsr", ""):
        pass
    assert ended.value.code == f"Error: {message}"


def test_other_pytorch_versions_are_left_to_the_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise frameworks.metadata.PackageNotFoundError(name)

    for version in ("2.6.0a0+git1", "2.10.0", "3.0", "unknown"):
        monkeypatch.setattr(frameworks.metadata, "version", lambda name, version=version: version)
        with framework("BasicSR", "basicsr", ""):
            pass
    monkeypatch.setattr(frameworks.metadata, "version", missing)
    with framework("BasicSR", "basicsr", ""):
        pass


def test_the_oldest_pytorch_is_that_of_the_extra() -> None:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    assert f'"torch>={".".join(map(str, frameworks.MIN_PYTORCH))}"' in text


# ---- ranks


def test_ranks_share_the_steps_of_an_epoch(opened: srshards.Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes have half of each global batch each, the seed of rank 0, and an epoch of half as many steps."""
    distributed = torch.distributed
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "broadcast_object_list", lambda shared, src: shared.__setitem__(src, 77))
    halves = []
    for rank in range(2):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        batches = train(opened, 4, world_size=2)
        assert [epoch for epoch, _ in batches] == [step // math.ceil(39 / 16) for step in range(4)]
        halves.append(contents(batches))
    monkeypatch.undo()
    whole = of_patch_loader(opened, 0, 4, batch_size=16, seed=77)
    assert [tuple(a + b for a, b in zip(*both, strict=True)) for both in zip(*halves, strict=True)] == whole
