"""`--gan`: training against a discriminator, its log, its state, several ranks, and refused settings."""

import math
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SMALL, Result, events, trainer, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_trainer_faults import on_step, terminate
from test_trainer_ranks import ranks_of, wait

from trainer.models import discriminators
from trainer.models.discriminators import build_discriminator, load_discriminator
from trainer.training import collapse
from trainer.training.config import GAN_LOSSES
from trainer.training.learner import Learner

pytestmark = pytest.mark.slow

PLAIN = ("--steps", 8, "--val-every", 4, "--workers", 0)
OPTIONS = (*PLAIN, "--discriminator", "patchgan")
GAN = ("--gan", "vanilla:0.1@3-")
PATCHGAN = discriminators.DISCRIMINATORS["patchgan"]


def train(shards: Path, out: Path, *args: object) -> Result:
    return trainer("--shards", shards / "scale_2x", "--out", out, *SMALL, *OPTIONS, *args)


def train_plain(shards: Path, out: Path, *args: object) -> Result:
    """Train without a discriminator."""
    return trainer("--shards", shards / "scale_2x", "--out", out, *SMALL, *PLAIN, *args)


def shrink_patchgan() -> None:
    """Give it 8 features instead of 64, in this process."""
    discriminators.DISCRIMINATORS["patchgan"] = replace(PATCHGAN, constructor=partial(discriminators.PatchGan, 8))


@pytest.fixture(scope="module", autouse=True)
def small_patchgan() -> Iterator[None]:
    shrink_patchgan()
    yield
    discriminators.DISCRIMINATORS["patchgan"] = PATCHGAN


def tensors(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for value in values for tensor in tensors(value)]


@pytest.fixture(scope="module")
def finished(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run whose discriminator starts after three steps, and its output."""
    out = tmp_path_factory.mktemp("runs")
    result = train(shards, out, *GAN, "--run", "gan")
    assert result.code == 0, result.err
    return out / "gan", result


def test_losses_and_scores_are_logged_from_the_start_of_the_discriminator(finished: tuple[Path, Result]) -> None:
    run, result = finished
    lines = events(run, "train")
    assert [sorted(line["losses"]) for line in lines] == [["l1"]] * 3 + [["discriminator", "gan", "l1"]] * 5
    assert all(("scores" in line) == ("gan" in line["losses"]) for line in lines)
    for line in lines[3:]:
        losses, scores = line["losses"], line["scores"]
        assert line["loss"] == pytest.approx(losses["l1"] + 0.1 * losses["gan"], rel=1e-4)
        assert 0 < scores["real"] < 1 and 0 < scores["generated"] < 1
    assert lines[3]["losses"]["discriminator"] == pytest.approx(2 * math.log(2), rel=0.2)  # it guesses at first
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    for name in ("losses/gan", "losses/discriminator", "scores/real", "scores/generated"):
        assert [event.step for event in board.Scalars(name)] == [4, 5, 6, 7, 8], name
    assert f"{run / 'discriminator.pth'}  final weights of the discriminator" in result.out


def test_the_output_names_losses_and_discriminator(finished: tuple[Path, Result], shards: Path, tmp_path: Path) -> None:
    _, result = finished
    assert "\nGAN      vanilla:0.1@3- with the discriminator patchgan, peak rate 0.0001\n" in result.err
    note = "Note     best.pth is chosen by PSNR-Y, which usually falls in adversarial training; use model.pth, or "
    assert note in result.err and "\nLoss " not in result.err and "\nInit " not in result.err
    result = train_plain(shards, tmp_path, "--loss", "l1", "--loss", "fft:0.05@0-2", "--sharpen-hr", "--patch-size", 32)
    assert "\nLoss     l1, fft:0.05@0-2, with sharpened HR\n" in result.err
    assert "GAN" not in result.err and "adversarial" not in result.err


def test_the_discriminator_changes_what_the_network_learns(
    finished: tuple[Path, Result], shards: Path, tmp_path: Path
) -> None:
    run, _ = finished
    assert train_plain(shards, tmp_path, "--run", "plain").code == 0
    plain = events(tmp_path / "plain", "train")
    with_gan = [line["losses"]["l1"] for line in events(run, "train")]
    assert [line["loss"] for line in plain][:4] == with_gan[:4]  # until the first step with the discriminator
    assert plain[4]["loss"] != with_gan[4]
    assert not (tmp_path / "plain/discriminator.pth").exists()


def test_the_saved_discriminator_opens_and_can_be_started_from(
    finished: tuple[Path, Result], shards: Path, tmp_path: Path
) -> None:
    run, _ = finished
    trained = load_discriminator("patchgan", run / "discriminator.pth").state_dict()
    state = torch.load(run / "state.pt", weights_only=True)["discriminator"]
    assert all(torch.equal(trained[name], value) for name, value in state["params"].items())
    assert any(
        not torch.equal(trained[name], value) for name, value in build_discriminator("patchgan", 0).state_dict().items()
    )
    given = ("--gan", "vanilla:0.1", "--discriminator-init", run / "discriminator.pth", "--discriminator-lr", 1e-9)
    result = train(shards, tmp_path, *given, "--steps", 1)
    assert result.code == 0 and f"\nInit     discriminator from {run / 'discriminator.pth'}\nDevice " in result.err
    continued = load_discriminator("patchgan", tmp_path / "ultra_lite-2x/discriminator.pth")
    for name, parameter in continued.named_parameters():
        assert torch.allclose(parameter, trained[name], rtol=0, atol=1e-7), name


@pytest.mark.parametrize("gan", ["vanilla:0.1@3-", "relativistic:0.2"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    gan: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--gan", gan, "--grad-accum", 2)
    assert train(shards, tmp_path, "--run", "whole", *given).code == 0
    with monkeypatch.context() as stopped:
        on_step(stopped, 6, terminate)
        assert train(shards, tmp_path, "--run", "parts", *given).code == 128 + signal.SIGTERM
    resumed = trainer("--out", tmp_path, "--run", "parts", "--resume")
    assert resumed.code == 0, resumed.err
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts")]
    found, expected = (tensors(state["discriminator"]) for state in states)
    assert len(found) == len(expected) > 20
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    changed = trainer("--out", tmp_path, "--run", "parts", "--resume", "--discriminator", "unet")
    assert changed.code == 2 and "was started with --discriminator patchgan, not --discriminator unet" in changed.err


def test_a_state_without_the_discriminator_is_refused(finished: tuple[Path, Result], tmp_path: Path) -> None:
    run, _ = finished
    copy = tmp_path / "gan"
    copy.mkdir()
    for name in ("config.yaml", "plan.json", "journal.jsonl", "model.pth"):
        (copy / name).write_bytes((run / name).read_bytes())
    state = torch.load(run / "state.pt", weights_only=True)
    state["progress"]["step"] = 4
    del state["discriminator"]
    torch.save(state, copy / "state.pt")
    result = trainer("--out", tmp_path, "--run", "gan", "--resume")
    assert result.code == 2 and "state.pt is damaged or belongs to a different training" in result.err


def test_a_state_with_a_discriminator_is_not_resumed_without(finished: tuple[Path, Result], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished[0], tmp_path / "gan"))
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("gan: vanilla:0.1@3-\n", "gan: null\n"))
    result = trainer("--out", tmp_path, "--run", "gan", "--resume")
    assert result.code == 2 and "state.pt is damaged or belongs to a different training" in result.err


def test_a_lost_discriminator_file_is_restored(finished: tuple[Path, Result], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished[0], tmp_path / "gan"))
    (copy / "discriminator.pth").unlink()
    result = trainer("--out", tmp_path, "--run", "gan", "--resume")
    assert result.code == 0 and f"{copy / 'discriminator.pth'}  final weights" in result.out, result.err
    assert (copy / "discriminator.pth").read_bytes() == (finished[0] / "discriminator.pth").read_bytes()


def test_a_resumed_run_does_not_need_the_initial_discriminator(
    finished: tuple[Path, Result], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = Path(shutil.copyfile(finished[0] / "discriminator.pth", tmp_path / "init.pth"))
    with monkeypatch.context() as stopped:
        on_step(stopped, 1, terminate)
        code = train(shards, tmp_path, "--gan", "vanilla", "--discriminator-init", init, "--run", "r").code
        assert code == 128 + signal.SIGTERM
    init.unlink()
    resumed = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert resumed.code == 0, resumed.err


def test_the_loss_that_is_not_finite_is_named(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that follows from it: all scores of the discriminator are then not finite either."""

    def damage(learner: Learner) -> None:
        next(learner.network.parameters()).detach().fill_(math.nan)

    on_step(monkeypatch, 1, damage)
    result = train(shards, tmp_path, "--gan", "vanilla:0.1")
    assert result.code == 1 and "the loss 'l1' of step 2 is not finite (nan)" in result.err


def test_a_discriminator_that_is_not_finite_ends_the_run(shards: Path, tmp_path: Path) -> None:
    result = train(shards, tmp_path, "--gan", "lsgan", "--discriminator-lr", 0.99, "--clip", 0, "--steps", 200)
    if result.code:  # the steps are enough for most machines to overflow
        assert result.code == 1 and "is not finite" in result.err


def test_a_collapse_is_reported_once(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collapse, "_INTERVALS", 2)
    monkeypatch.setattr(collapse, "_LOST", 0.5)  # so that guessing counts as a collapse
    result = train(shards, tmp_path, "--gan", "vanilla:0.1")
    assert result.code == 0
    (line,) = events(tmp_path / "ultra_lite-2x", "collapse")
    assert line["step"] == 2 and line["message"] in result.err and result.err.count("Warning: ") == 1


def test_a_resumed_run_reports_a_collapse_at_the_same_step_and_once(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collapse, "_INTERVALS", 4)
    monkeypatch.setattr(collapse, "_LOST", 0.5)
    given = ("--gan", "vanilla:0.1", "--val-every", 20)
    assert train(shards, tmp_path, "--run", "whole", *given).code == 0
    for stops in ([3], [2, 6]):
        run = tmp_path / "-".join(map(str, stops))
        err = ""
        for number, step in enumerate(stops):
            with monkeypatch.context() as stopped:
                on_step(stopped, step, terminate)
                start = ("--out", tmp_path, "--run", run.name, "--resume")
                result = trainer(*start) if number else train(shards, tmp_path, "--run", run.name, *given)
                assert result.code == 128 + signal.SIGTERM, result.err
                err += result.err
        err += trainer("--out", tmp_path, "--run", run.name, "--resume").err
        assert [line["step"] for line in events(run, "collapse")] == [4] and err.count("Warning: ") == 1
        assert events(run, "collapse") == events(tmp_path / "whole", "collapse")


def test_a_state_without_counts_of_a_collapse_is_resumed(finished: tuple[Path, Result], tmp_path: Path) -> None:
    """As those of earlier versions."""
    copy = Path(shutil.copytree(finished[0], tmp_path / "gan"))
    state = torch.load(copy / "state.pt", weights_only=True)
    assert state["progress"].pop("collapse") == {"won": 0, "lost": 0}
    state["progress"].update(step=7, validated=False)
    torch.save(state, copy / "state.pt")
    result = trainer("--out", tmp_path, "--run", "gan", "--resume")
    assert result.code == 0 and "resumed at step 7" in result.err, result.err


def test_a_step_of_several_batches_is_noted_with_a_loss_that_depends_on_it(shards: Path, tmp_path: Path) -> None:
    note = (
        "Note     --gan relativistic compares with mean logits of {} of the step's {} patches, a batch of each process"
    )
    given = ("--gan", "relativistic:0.1", "--steps", 1)
    for more, patches in {
        (): None,
        ("--grad-accum", 2): (4, 8),
        ("--ranks", 2): (4, 8),  # those of two processes, in two batches
        ("--grad-accum", 2, "--gan", "vanilla:0.1"): None,
    }.items():
        options = given[2:] if "--gan" in more else given
        result = train(shards, tmp_path, *options, *more)
        assert result.code == 0, result.err
        assert note.format(*patches) in result.err if patches else "compares with mean logits" not in result.err


@pytest.mark.parametrize("gan", [GAN[1], "relativistic:0.1"])
def test_two_ranks_train_as_one_process_does(gan: str, shards: Path, tmp_path: Path) -> None:
    given = ("--gan", gan, "--amp", "off", "--lr", 2e-5)  # a small rate: AdamW turns rounding errors into full steps
    assert train(shards, tmp_path, *given, "--run", "one").code == 0
    arguments = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, *OPTIONS, *given, "--batch-size", 2)
    with ranks_of(2, tmp_path, *arguments, prepare=(shrink_patchgan, ())) as ranks:
        codes, output = wait(ranks)
    assert codes == {0}, output
    for line, other in zip(events(tmp_path / "r", "train"), events(tmp_path / "one", "train"), strict=True):
        assert line["losses"] == pytest.approx(other["losses"], abs=1e-4)
        assert line.get("scores") == pytest.approx(other.get("scores"), abs=1e-4)
    found, expected = (
        torch.load(tmp_path / name / "discriminator.pth", weights_only=True)["params"] for name in ("r", "one")
    )
    if gan.startswith("relativistic"):  # its loss does not depend on the last bias, whose gradients are rounding errors
        found.pop(next(name for name in reversed(found) if name.endswith("bias")))
    assert all(torch.allclose(value, expected[name], rtol=0, atol=1e-4) for name, value in found.items())


@pytest.mark.parametrize(
    ("option", "value"), [("--discriminator", "unet"), ("--discriminator-lr", 1e-4), ("--discriminator-init", "d.pth")]
)
def test_settings_of_a_discriminator_need_one(option: str, value: object, shards: Path, tmp_path: Path) -> None:
    result = train_plain(shards, tmp_path / "runs", option, value)
    assert result.code == 2 and not (tmp_path / "runs").exists()
    expected = f"Error: {option} needs --gan, e.g. --gan vanilla:0.1; pass both or none\n"
    assert result.err == expected
    assert train_plain(shards, tmp_path / "runs", "--run", "r", "--steps", 1).code == 0
    resumed = trainer("--out", tmp_path / "runs", "--run", "r", "--resume", option, value)
    assert resumed.code == 2 and f"was started without {option}, not {option} {value}; omit {option}" in resumed.err


def test_a_run_without_a_discriminator_is_repeated_and_resumed(shards: Path, tmp_path: Path) -> None:
    """Its config.yaml has no settings of one; versions before this one wrote the defaults."""
    assert train_plain(shards, tmp_path, "--run", "r").code == 0
    config = tmp_path / "r/config.yaml"
    assert "\ngan: null\ndiscriminator: null\ndiscriminator-lr: null\n" in config.read_text()
    assert trainer("--out", tmp_path, "--config", config, "--run", "again").code == 0
    config.write_text(
        config.read_text().replace("or: null\ndiscriminator-lr: null", "or: unet\ndiscriminator-lr: 1e-4")
    )
    resumed = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert resumed.code == 0 and "has already finished" in resumed.out, resumed.err


def test_the_default_discriminator_is_kept(shards: Path, tmp_path: Path) -> None:
    """Also if the default changes: config.yaml has it."""
    result = train_plain(shards, tmp_path, "--gan", "vanilla:0.1", "--steps", 1, "--run", "r")
    assert result.code == 0 and "with the discriminator unet, peak rate 0.0001\n" in result.err
    assert "\ndiscriminator: unet\ndiscriminator-lr: 0.0001\n" in (tmp_path / "r/config.yaml").read_text()


@pytest.mark.parametrize("gan", ["vanilla:0.1@3-", "{vanilla: 0.1@3-}", "[vanilla:0.1@3-]"])
def test_the_adversarial_loss_in_a_configuration(gan: str, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"gan: {gan}\n")
    result = train(shards, tmp_path, "--config", tmp_path / "c.yaml", "--steps", 4)
    assert result.code == 0 and "\nGAN      vanilla:0.1@3- with" in result.err, result.err
    assert "gan: vanilla:0.1@3-\n" in (tmp_path / "ultra_lite-2x/config.yaml").read_text()


GAN_FORMS = "a value such as vanilla:0.1@5000-, or a mapping such as {vanilla: 0.1@5000-}"


@pytest.mark.parametrize(
    ("gan", "expected"),
    [
        (
            "{kind: vanilla, weight: 0.1}",
            f"unknown loss 'kind'; expected one of {', '.join(GAN_LOSSES)} (the setting is {GAN_FORMS})",
        ),
        ("{vanilla: {weight: 0.1}}", f"expected {GAN_FORMS}, but one of them is a mapping"),
        ("{vanilla: 0.1, hinge: 1}", "vanilla:0.1 and hinge: a run has one adversarial loss; pass one of them"),
        ("[vanilla, hinge]", "vanilla and hinge: a run has one adversarial loss; pass one of them"),
    ],
)
def test_other_adversarial_losses_in_a_configuration_are_refused(
    gan: str, expected: str, shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(f"gan: {gan}\n")
    result = train(shards, tmp_path / "runs", "--config", tmp_path / "c.yaml")
    assert result.code == 2 and f"c.yaml: gan: {expected}" in " ".join(result.err.split()), result.err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            ("--gan", "vanilla:0.1", "--gan", "hinge"),
            "vanilla:0.1 and hinge: a run has one adversarial loss; pass one of them",
        ),
        (("--gan", "quite"), "unknown loss 'quite'; expected one of vanilla, lsgan, hinge, relativistic"),
        (("--gan", "wgan"), "unknown loss 'wgan'; did you mean 'lsgan'?"),
        (("--gan", "hinge:0"), "hinge: expected a weight above 0, e.g. hinge:0.5, not '0'"),
        (("--gan", "hinge@8-"), "--gan hinge@8- would start after the run's 8 steps; let it start earlier"),
        (("--gan", "hinge@3-3"), "--gan hinge@3-3: expected a stop after step 3"),
        (("--gan", "hinge", "--input", "up"), "--gan trains networks that upscale; omit --input up"),
        (("--gan", "hinge", "--discriminator-init", "d.pth"), "d.pth"),
        (("--gan", "hinge", "--discriminator-lr", 1), "--discriminator-lr 1.0: expected a rate above 0 and below 1"),
        (
            ("--gan", "hinge", "--discriminator", "unet", "--patch-size", 20),
            "--discriminator unet needs patches of 8 px",
        ),
        (("--gan", "hinge", "--patch-size", 16), "--discriminator patchgan needs patches of 24 px or more"),
    ],
)
def test_impossible_settings_are_refused_before_the_run(
    given: tuple[object, ...], expected: str, shards: Path, tmp_path: Path
) -> None:
    result = train(shards, tmp_path / "runs", *given)
    assert result.code == 2 and expected in " ".join(result.err.split()), result.err
    assert not list((tmp_path / "runs").glob("*/state.pt"))
