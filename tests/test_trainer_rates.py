"""Schedules of the learning rate: their values, in runs and resumed ones, and settings that contradict each other."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from helpers import SMALL, events, trainer
from test_trainer_faults import on_step, terminate

from trainer.training.schedule import constant, cosine, decay_of, learning_rate, multistep, wsd


def rates(decay: object, total: int = 100, warmup: int = 20) -> list[float]:
    return [learning_rate(step, total, 4e-3, warmup, decay) for step in range(total)]  # type: ignore[arg-type]


@pytest.mark.parametrize("decay", [cosine, constant, wsd, multistep([50])])
def test_every_schedule_warms_up_to_the_peak_and_never_rises_again(decay: object) -> None:
    found = rates(decay)
    assert found[:20] == pytest.approx([4e-3 * (step + 1) / 20 for step in range(20)])
    assert found[20:] == sorted(found[20:], reverse=True) and max(found) == pytest.approx(4e-3) == found[20]


def test_cosine_falls_to_a_hundredth() -> None:
    found = rates(cosine)
    assert found[99] == pytest.approx(4e-5)
    for step in (20, 42, 77):
        share = 0.01 + 0.99 * (1 + math.cos(math.pi * (step - 20) / 79)) / 2
        assert found[step] == pytest.approx(4e-3 * share, rel=1e-12)


def test_constant_stays_and_wsd_falls_to_0_in_the_last_30_percent() -> None:
    assert set(rates(constant)[20:]) == {4e-3}
    found = rates(wsd)
    assert set(found[20:71]) == {4e-3}
    assert found[70:] == pytest.approx([4e-3 * left / 30 for left in range(30, 0, -1)])


def test_multistep_is_that_of_pytorch() -> None:
    """Whose scheduler BasicSR steps before every iteration but the first."""
    milestones = [30, 31, 80]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=4e-3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.5)
    expected = []
    for _ in range(100):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates(decay_of("multistep", milestones), warmup=0) == pytest.approx(expected)


# ---- runs


def arguments(shards: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("--shards", shards / "scale_2x", "--out", out, *SMALL, "--steps", 20, "--warmup", 2, "--lr", 0.001, *more)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [0.001 * (0.01 + 0.99 * (1 + math.cos(math.pi * (step - 2) / 17)) / 2) for step in range(2, 20)]),
        (("--schedule", "constant"), [0.001] * 18),
        (("--schedule", "wsd"), [0.001 * min(1, (20 - step) / 6) for step in range(2, 20)]),
        (("--schedule", "multistep"), [0.001] * 8 + [5e-4] * 6 + [2.5e-4] * 2 + [1.25e-4] + [6.25e-5]),
        (("--schedule", "multistep", "--milestones", "4,0.5"), [0.001] * 2 + [5e-4] * 6 + [2.5e-4] * 10),
    ],
    ids=["default", "constant", "wsd", "multistep", "milestones"],
)
def test_the_rates_of_a_run(options: tuple[object, ...], expected: list[float], shards: Path, tmp_path: Path) -> None:
    args = arguments(shards, tmp_path, "--run", "r", *options)
    assert trainer(*args).code == 0
    found = [entry["lr"] for entry in events(tmp_path / "r", "train")]
    assert found == pytest.approx([0.0005, 0.001, *expected], rel=1e-3)
    facts = json.loads((tmp_path / "r" / "plan.json").read_text())
    assert facts["schedule"] == (options[1] if options else "cosine")
    assert facts.get("milestones") == {0: None, 2: [0.5, 0.8, 0.9, 0.95] if "multistep" in options else None}.get(
        len(options), [4, 0.5]
    )


def test_a_resumed_run_keeps_its_schedule(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the default changes: plan.json records it."""
    options = ("--schedule", "multistep", "--run", "r")
    assert trainer(*arguments(shards, tmp_path / "whole", *options)).code == 0
    with monkeypatch.context() as patch:
        on_step(patch, 7, terminate)
        assert trainer(*arguments(shards, tmp_path, *options)).code == 143
    monkeypatch.setattr("trainer.training.plan.DEFAULT_MILESTONES", (0.6,))
    resume = ("--out", tmp_path, "--run", "r", "--resume")
    refusal = trainer(*resume, "--milestones", "0.6")
    expected = (
        "was started with --milestones 0.5,0.8,0.9,0.95, not --milestones 0.6; omit --milestones to resume exactly"
    )
    assert refusal.code == 2 and expected in refusal.err
    refusal = trainer(*resume, "--schedule", "wsd")
    assert refusal.code == 2 and "--milestones needs --schedule multistep" not in refusal.err
    assert "was started with --schedule multistep, not --schedule wsd; omit --schedule" in refusal.err
    assert trainer(*resume, "--milestones", "0.5,0.8,0.9,0.95").code == 0
    assert events(tmp_path / "r", "train") == events(tmp_path / "whole" / "r", "train")
    whole, resumed = (torch.load(run / "r" / "model.pth")["params"] for run in (tmp_path / "whole", tmp_path))
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())


def test_a_run_of_an_earlier_version_keeps_the_cosine(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_step(monkeypatch, 7, terminate)
    assert trainer(*arguments(shards, tmp_path, "--run", "r")).code == 143
    run = tmp_path / "r"
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(
        yaml.dump({n: v for n, v in settings.items() if n not in ("schedule", "milestones")})
    )
    facts = json.loads((run / "plan.json").read_text())
    (run / "plan.json").write_text(json.dumps({name: fact for name, fact in facts.items() if name != "schedule"}))
    resume = ("--out", tmp_path, "--run", "r", "--resume")
    refusal = trainer(*resume, "--schedule", "constant")
    assert refusal.code == 2 and "was started with --schedule cosine, not --schedule constant" in refusal.err
    assert trainer(*resume).code == 0
    assert events(run, "train")[-1]["lr"] == pytest.approx(1e-5)


def test_milestones_in_a_configuration(shards: Path, tmp_path: Path) -> None:
    """As a list, as the option's text, and as a run writes them."""
    for number, text in enumerate(("[8, 0.5]", "8,0.5")):
        (tmp_path / "c.yaml").write_text(f"schedule: multistep\nmilestones: {text}\n")
        args = arguments(shards, tmp_path, "--run", f"r{number}", "--config", tmp_path / "c.yaml")
        assert trainer(*args, "--steps", 15).code == 0
        assert yaml.safe_load((tmp_path / f"r{number}" / "config.yaml").read_text())["milestones"] == [8, 0.5]
    args = arguments(shards, tmp_path, "--run", "again", "--config", tmp_path / "r0" / "config.yaml")
    assert trainer(*args, "--steps", 15).code == 0


# ---- refused


MULTISTEP = ("--schedule", "multistep", "--milestones")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--schedule", "cosin"),
            "'cosin' is not one of 'cosine', 'multistep', 'constant', 'wsd'. Did you mean 'cosine'?",
        ),
        (("--milestones", "0.5"), "--milestones needs --schedule multistep; pass both or none"),
        ((*MULTISTEP, "half"), "'half': expected steps or shares of the run, ascending, e.g. 250000,400000 or 0.5,0.8"),
        ((*MULTISTEP, "5,"), "'5,': expected steps or shares of the run, ascending"),
        ((*MULTISTEP, "0"), "'0': expected steps or shares of the run, ascending"),
        ((*MULTISTEP, "0.5,1.0"), "'0.5,1.0': expected steps or shares of the run, ascending"),
        ((*MULTISTEP, "-4"), "'-4': expected steps or shares of the run, ascending"),
        ((*MULTISTEP, "12,8"), "--milestones 12,8: expected ascending steps, but they are 12, 8"),
        ((*MULTISTEP, "8,8"), "--milestones 8,8: expected ascending steps, but they are 8, 8"),
        ((*MULTISTEP, "0.5,4"), "--milestones 0.5,4: expected ascending steps, but they are 10, 4"),
        (
            (*MULTISTEP, "8,20"),
            "--milestones 8,20: the run ends after step 20; pass smaller steps, or shares of the run",
        ),
        (
            (*MULTISTEP, "4", "--warmup", 6),
            "--milestones 4: step 4 is within the warm-up of 6 steps; pass a smaller --warmup, e.g. 0, or later",
        ),
        (("--warmup", 21), "--warmup 21: the run ends after step 20, before it reaches the peak rate; pass at most 20"),
    ],
)
def test_contradictions_are_refused_before_the_first_step(
    options: tuple[object, ...], message: str, shards: Path, tmp_path: Path
) -> None:
    result = trainer(*arguments(shards, tmp_path / "runs", *options))
    assert result.code == 2 and message in " ".join(result.err.split()), result.err
    assert "Traceback" not in result.err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "fact",
    [
        '"schedule": "sine"',
        '"schedule": 1',
        '"schedule": "multistep"',
        *(
            f'"schedule": "multistep", "milestones": {milestones}'
            for milestones in ("5", "[]", "[null]", "[NaN]", "[0.8, 0.5]", "[8, 8]", "[20]", "[4, 10000]", "[1]")
        ),
        '"milestones": [0.5]',
        '"warmup": 21',
        '"warmup": -1',
        '"warmup": NaN',
        '"lr": NaN',
        '"ema": 1',
    ],
)
def test_an_impossible_schedule_in_plan_json_is_damage(
    fact: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_step(monkeypatch, 1, terminate)
    args = ("--shards", shards / "scale_2x", "--out", tmp_path, *SMALL, "--steps", 20, "--val-every", 20)
    assert trainer(*args, "--run", "r").code == 143
    facts = {**json.loads((tmp_path / "r" / "plan.json").read_text()), "warmup": 4} | json.loads("{" + fact + "}")
    (tmp_path / "r" / "plan.json").write_text(json.dumps(facts))
    result = trainer("--out", tmp_path, "--run", "r", "--resume")
    assert result.code == 2 and f"{tmp_path / 'r' / 'plan.json'} is damaged; restore it" in result.err
