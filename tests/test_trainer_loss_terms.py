"""`--loss`: several losses with weights and steps, in the step, the log, the state and the configuration."""

import signal
from pathlib import Path

import pytest
import torch
import yaml
from helpers import SMALL, Result, events, trainer, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_trainer_faults import on_step, terminate

from trainer.loss_terms import LossTerm, parse_term
from trainer.training.objective import Images, Objective

pytestmark = pytest.mark.slow

OPTIONS = ("--steps", 12, "--val-every", 6, "--workers", 0)


def train(shards: Path, out: Path, *args: object) -> Result:
    return trainer("--shards", shards / "scale_2x", "--out", out, *SMALL, *OPTIONS, *args)


def losses_of(run: Path) -> list[dict[str, float] | None]:
    return [line.get("losses") for line in events(run, "train")]


def test_terms_are_read_and_written() -> None:
    for text, term in {
        "l1": LossTerm("l1"),
        "l1:0.25": LossTerm("l1", 0.25),
        "l1:3": LossTerm("l1", 3.0),
        "l1@100-": LossTerm("l1", 1.0, 100),
        "charbonnier:1e-05@0-20": LossTerm("charbonnier", 1e-5, 0, 20),
        "l1:0.1234567890123@7-9": LossTerm("l1", 0.1234567890123, 7, 9),
    }.items():
        assert parse_term(text) == term and str(term) == text
    assert parse_term("l1@-20") == LossTerm("l1", stop=20)


def test_the_sum_is_weighted_and_every_loss_is_measured() -> None:
    output = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.zeros(2, 3, 8, 8)
    objective = Objective([LossTerm("l1", 0.5), LossTerm("charbonnier", 2.0, 10)])
    assert objective.names == ("l1", "charbonnier") and objective.active(9) == (0,) and objective.active(10) == (0, 1)
    total, row = objective((0, 1), Images(output, target, target))
    charbonnier = (output.detach() ** 2 + 1e-6).sqrt().mean()
    assert row.tolist() == pytest.approx([total.item(), output.mean().item(), charbonnier.item()])
    assert total.item() == pytest.approx(0.5 * output.mean().item() + 2 * charbonnier.item())
    alone, row = objective((0,), Images(output, target, target))
    assert alone.item() == pytest.approx(0.5 * output.mean().item()) and row[2] == 0 and not row.requires_grad


def test_losses_are_logged_in_their_steps_and_the_configuration_repeats_the_run(shards: Path, tmp_path: Path) -> None:
    given = ("--loss", "l1:2", "--loss", "charbonnier:0.5@4-8")
    result = train(shards, tmp_path, *given)
    assert result.code == 0, result.err
    run = tmp_path / "ultra_lite-2x"
    found = losses_of(run)
    assert [sorted(one or {}) for one in found] == [["l1"]] * 4 + [["charbonnier", "l1"]] * 4 + [["l1"]] * 4
    for line, one in zip(events(run, "train"), found, strict=True):
        assert one is not None
        assert line["loss"] == pytest.approx(2 * one["l1"] + 0.5 * one.get("charbonnier", 0.0), rel=1e-5)
    board = EventAccumulator(str(run / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("losses/charbonnier")] == [5, 6, 7, 8]
    assert len(board.Scalars("losses/l1")) == 12

    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["loss"] == ["l1:2", "charbonnier:0.5@4-8"]
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("loss:\n  l1: 2\n  charbonnier: 0.5@4-8\n")
    for name, file in {"again": run / "config.yaml", "mapping": mapping}.items():
        assert train(shards, tmp_path, "--config", file, "--run", name).code == 0
        assert weights(tmp_path / name) == weights(run)


def test_a_single_loss_is_logged_as_before_and_scaled_by_its_weight(shards: Path, tmp_path: Path) -> None:
    for name, loss in {"plain": "l1", "weighted": "l1:4"}.items():
        assert train(shards, tmp_path, "--run", name, "--loss", loss, "--clip", 0).code == 0
    assert losses_of(tmp_path / "plain") == [None] * 12
    weighted = losses_of(tmp_path / "weighted")
    first = events(tmp_path / "plain", "train")[0]["loss"]
    assert weighted[0] == {"l1": first} and events(tmp_path / "weighted", "train")[0]["loss"] == pytest.approx(
        4 * first
    )
    old = tmp_path / "old.yaml"  # written by a version that had one loss
    old.write_text("loss: charbonnier\n")
    assert train(shards, tmp_path, "--run", "old", "--config", old).code == 0
    assert yaml.safe_load((tmp_path / "old/config.yaml").read_text())["loss"] == ["charbonnier"]


def test_a_resumed_run_has_the_losses_of_an_uninterrupted_one(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal has lines of three steps each, and the run stops within one of them."""
    given = ("--loss", "l1", "--loss", "charbonnier:0.1@2-", "--save-every", 5)
    monkeypatch.setattr("trainer.training.plan.Plan.log_every", 3)
    assert train(shards, tmp_path, "--run", "whole", *given).code == 0
    with monkeypatch.context() as stopped:
        on_step(stopped, 7, terminate)
        assert train(shards, tmp_path, "--run", "parts", *given).code == 128 + signal.SIGTERM
    assert [line["step"] for line in events(tmp_path / "parts", "train")] == [3, 6]
    resumed = trainer("--out", tmp_path, "--run", "parts", "--resume")
    assert resumed.code == 0, resumed.err
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    changed = trainer("--out", tmp_path, "--run", "parts", "--resume", "--loss", "l1:2")
    expected = "was started with --loss l1 --loss charbonnier:0.1@2-, not --loss l1:2; omit --loss to resume exactly"
    assert changed.code == 2 and expected in changed.err


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["charbonier"], "unknown loss 'charbonier'; did you mean 'charbonnier'?"),
        (["quality"], "unknown loss 'quality'; expected one of l1, charbonnier, msssim"),
        (["l1:-1"], "l1: expected a weight above 0, e.g. l1:0.5, not '-1'"),
        (["l1:0"], "l1: expected a weight above 0, e.g. l1:0.5, not '0'"),
        (["l1:much"], "l1: expected a weight above 0, e.g. l1:0.5, not 'much'"),
        (["l1:inf"], "l1: expected a weight above 0, e.g. l1:0.5, not 'inf'"),
        (["l1@5"], "'l1@5': expected NAME:WEIGHT or NAME:WEIGHT@START-STOP, e.g. l1:1 or fft:0.05@1000-20000"),
        (["l1", "l1:2"], "--loss l1 is passed twice; pass it once, with its weight"),
        ([f"l1@0-{'9' * 5000}"], "expected NAME:WEIGHT or NAME:WEIGHT@START-STOP"),
        (["l1@5-5"], "--loss l1@5-5: expected a stop after step 5"),
        (["l1@0-0"], "--loss l1@0-0: expected a stop after step 0"),
        (
            ["l1", "charbonnier@12-"],
            "--loss charbonnier@12- would start after the run's 12 steps; let it start earlier",
        ),
        (["l1@2-"], "no --loss is active at step 0; let one of them start earlier or stop later"),
        (["l1@0-4", "charbonnier@5-"], "no --loss is active at step 4; let one of them start earlier or stop later"),
    ],
)
def test_impossible_losses_are_refused_before_the_run(
    given: list[str], expected: str, shards: Path, tmp_path: Path
) -> None:
    result = train(shards, tmp_path / "runs", *(part for one in given for part in ("--loss", one)))
    assert result.code == 2 and expected in " ".join(result.err.split()), result.err
    assert not (tmp_path / "runs").exists()


def test_losses_that_patches_ema_or_files_do_not_suit_are_refused(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for given, expected in {
        (
            "msssim",
        ): "--loss msssim needs patches of 176 px or more, not 24; pass a larger --patch-size or omit the loss",
        ("l1", "ldl", "--ema", 0): "--loss ldl compares with the EMA of the weights; pass an --ema above 0",
        ("l1", "ldl", "--optimizer", "schedulefree"): "with the EMA of the weights; pass another --optimizer",
        ("perceptual",): "vgg19-dcbb9e9d.pth",
    }.items():
        result = train(
            shards, tmp_path / "runs", "--loss", given[0], *(("--loss",) if len(given) > 1 else ()), *given[1:]
        )
        assert result.code == 2 and expected in " ".join(result.err.split()), result.err
    assert "curl" in result.err and not (tmp_path / "runs").exists()


def test_ldl_compares_with_the_average_of_the_weights(shards: Path, tmp_path: Path) -> None:
    assert train(shards, tmp_path, "--loss", "l1", "--loss", "ldl:0.5").code == 0
    found = losses_of(tmp_path / "ultra_lite-2x")
    assert all(one is not None and 0 <= one["ldl"] < one["l1"] for one in found)


def test_losses_edited_within_an_interval_of_the_journal_are_refused(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as stopped:
        on_step(stopped, 2, terminate)
        assert train(shards, tmp_path, "--steps", 60, "--run", "r").code == 128 + signal.SIGTERM
    config = tmp_path / "r/config.yaml"
    config.write_text(config.read_text().replace("loss:\n- l1\n", "loss: [l1, fft]\n"))
    result = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert result.code == 2 and "state.pt is damaged or belongs to a different training" in result.err


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ("[]", "--loss: expected at least one loss, e.g. l1 (with the settings in"),
        (
            "[{name: l1, weight: 1}]",
            "config.yaml: loss: expected a list of values, or a mapping of losses to weights such as {l1: 1, fft: "
            "0.05}, but one of them is a mapping",
        ),
        ("{L1Loss: 1}", "config.yaml: loss: unknown loss 'L1Loss'; expected one of l1, charbonnier, msssim"),
        (
            "{name: l1, weight: 1}",
            "(the setting is a list of values, or a mapping of losses to weights such as {l1: 1, fft: 0.05})",
        ),
    ],
)
def test_other_lists_of_losses_are_refused(losses: str, expected: str, shards: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"loss: {losses}\n")
    result = train(shards, tmp_path / "runs", "--config", config)
    assert result.code == 2 and expected in " ".join(result.err.split())
