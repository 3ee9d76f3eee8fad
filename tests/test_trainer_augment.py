"""MixUp, CutMix and CutBlur: pixels by a plain NumPy implementation, draws, runs and what is refused."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import SMALL, events, trainer
from test_trainer_faults import on_step, terminate

from trainer.training.augment import AUGMENTATIONS, Augment, augmented, parse_augment

Pair = tuple[np.ndarray, np.ndarray]


def batch(number: int, scale: int, size: int = 11) -> Pair:
    """Return HR and input of random pixels; the height of the input is `size`, its width 2 px more."""
    draw = np.random.default_rng(number)
    shapes = ((number, size * factor, (size + 2) * factor, 3) for factor in (scale, 1))
    hr, network_input = (draw.integers(0, 256, shape, np.uint8) for shape in shapes)
    return hr, network_input


def apply(augments: list[Augment], step: int, hr: np.ndarray, network_input: np.ndarray, seed: int = 7) -> Pair:
    before = hr.copy(), network_input.copy()
    found = augmented(augments, seed, step, torch.from_numpy(hr), torch.from_numpy(network_input))
    assert np.array_equal(hr, before[0]) and np.array_equal(network_input, before[1]), "batches are shared memory"
    return found[0].numpy(), found[1].numpy()


def plain(name: str, step: int, hr: np.ndarray, network_input: np.ndarray, seed: int = 7) -> Pair:
    """Apply one augmentation to one patch, and one pixel, after the other."""
    draw = random.Random(f"{seed} {step}").random
    draw()
    scale = hr.shape[1] // network_input.shape[1]
    hr_after, input_after = hr.copy(), network_input.copy()
    if name == "mixup":
        share = int(draw() * 257) / 256
        for after, images in ((hr_after, hr), (input_after, network_input)):
            for n in range(len(images)):
                other = images[n + 1 if n % 2 == 0 else n - 1]
                after[n] = np.floor(share * images[n].astype(float) + (1 - share) * other + 0.5)
        return hr_after, input_after
    height, width = network_input.shape[1:3]
    box_height, box_width = int(0.7 * height), int(0.7 * width)
    top = int(draw() * (height - box_height + 1))
    left = int(draw() * (width - box_width + 1))
    is_inside = draw() < 0.5
    for n, y, x in np.ndindex(*network_input.shape[:3]):
        is_in_box = top <= y < top + box_height and left <= x < left + box_width
        rows, columns = slice(y * scale, (y + 1) * scale), slice(x * scale, (x + 1) * scale)
        if name == "cutmix" and is_in_box:
            other = n + 1 if n % 2 == 0 else n - 1
            input_after[n, y, x] = network_input[other, y, x]
            hr_after[n, rows, columns] = hr[other, rows, columns]
        if name == "cutblur" and is_in_box == is_inside:
            input_after[n, y, x] = np.round(hr[n, rows, columns].astype(float).mean((0, 1)))
    return hr_after, input_after


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_pixels_are_those_of_a_plain_implementation(name: str, scale: int) -> None:
    pair = batch(4, scale)
    results = []
    for step in range(4):
        found, expected = apply([Augment(name, 1.0)], step, *pair), plain(name, step, *pair)
        assert all(map(np.array_equal, found, expected)), step
        results.append(found[1].tobytes())
    assert len(set(results)) > 1 and pair[1].tobytes() not in results


def test_published_cutblur_at_hr_size() -> None:
    """Each pixel of the input is its own or that of HR; both regions occur, inside and outside of the box."""
    hr, network_input = batch(2, 1, 20)
    inside = set()
    for step in range(20):
        after_hr, after = apply([Augment("cutblur", 1.0)], step, hr, network_input)
        assert after_hr.tobytes() == hr.tobytes()
        is_hr, is_own = (after == hr).all(-1), (after == network_input).all(-1)
        assert (is_hr | is_own).all()
        inside.add(bool(is_hr[:, 10, 11].all()))
        assert is_hr.mean() == pytest.approx(0.49 if inside and is_hr[0, 10, 11] else 0.51, abs=0.04)
    assert inside == {False, True}


def test_a_step_has_at_most_one_by_its_share() -> None:
    pair = batch(2, 2)
    augments = [Augment("mixup", 0.2), Augment("cutblur", 0.5)]
    counts = dict.fromkeys(("none", "mixup", "cutblur"), 0)
    for step in range(1000):
        hr, network_input = apply(augments, step, *pair)
        kind = "cutblur" if hr.tobytes() == pair[0].tobytes() else "mixup"
        counts["none" if (hr.tobytes(), network_input.tobytes()) == tuple(x.tobytes() for x in pair) else kind] += 1
    assert counts["mixup"] == pytest.approx(200, abs=40) and counts["cutblur"] == pytest.approx(500, abs=50)
    assert len({apply([Augment("mixup", 1.0)], 5, *pair, seed=seed)[1].tobytes() for seed in range(3)}) == 3


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_step_is_the_same_however_it_is_divided(name: str) -> None:
    """Among processes and into batches, of two patches each here."""
    hr, network_input = batch(6, 2)
    whole = apply([Augment(name, 1.0)], 3, hr, network_input)
    parts = [apply([Augment(name, 1.0)], 3, hr[n : n + 2], network_input[n : n + 2]) for n in (0, 2, 4)]
    for number in range(2):
        assert np.array_equal(whole[number], np.concatenate([part[number] for part in parts]))


def test_texts_are_parsed_as_they_are_written() -> None:
    for text in ("mixup:0.25", "cutblur:1e-05", "cutmix:1.0"):
        assert str(parse_augment(text)) == text


# ---- runs


def arguments(shards: Path, out: Path, *more: object) -> tuple[object, ...]:
    return ("--shards", shards / "scale_2x", "--out", out, *SMALL, "--steps", 8, "--val-every", 8, "--run", "r", *more)


ALL = ("--augment", "mixup:0.3", "--augment", "cutmix:0.3", "--augment", "cutblur:0.4")


def test_a_resumed_run_equals_an_uninterrupted_one(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trainer(*arguments(shards, tmp_path / "whole", *ALL))
    expected = "Augment  mixup in 0.3 of the steps, cutmix in 0.3 of the steps, cutblur in 0.4 of the steps\n"
    assert whole.code == 0 and expected in whole.err
    with monkeypatch.context() as patch:
        on_step(patch, 5, terminate)
        assert trainer(*arguments(shards, tmp_path, *ALL)).code == 143
    run, resume = tmp_path / "r", ("--out", tmp_path, "--run", "r", "--resume")
    assert yaml.safe_load((run / "config.yaml").read_text())["augment"] == ["mixup:0.3", "cutmix:0.3", "cutblur:0.4"]
    refusal = trainer(*resume, "--augment", "mixup:0.5")
    assert refusal.code == 2
    assert (
        "was started with --augment mixup:0.3 --augment cutmix:0.3 --augment cutblur:0.4, not --augment mixup:0.5"
        in refusal.err
    )
    (tmp_path / "c.yaml").write_text("augment: []\n")
    refusal = trainer(*resume, "--config", tmp_path / "c.yaml")
    assert refusal.code == 2 and "--augment cutblur:0.4, not without it; omit --augment" in refusal.err
    assert trainer(*resume, *ALL).code == 0
    assert events(run, "train", "val") == events(tmp_path / "whole" / "r", "train", "val")
    assert (run / "model.pth").read_bytes() == (tmp_path / "whole" / "r" / "model.pth").read_bytes()
    assert trainer(*arguments(shards, tmp_path / "without")).code == 0
    assert events(run, "train") != events(tmp_path / "without" / "r", "train")


def test_batches_and_processes_do_not_change_the_result(shards: Path, tmp_path: Path) -> None:
    """Up to rounding: a step of four patches in one batch, and in two."""
    exact = ("--amp", "off", "--lr", 2e-5, *ALL)
    assert trainer(*arguments(shards, tmp_path / "one", *exact)).code == 0
    assert trainer(*arguments(shards, tmp_path / "two", *exact, "--batch-size", 2, "--grad-accum", 2)).code == 0
    one, two = (torch.load(tmp_path / name / "r" / "model.pth")["params"] for name in ("one", "two"))
    assert all(torch.allclose(weight, two[name], rtol=0, atol=1e-5) for name, weight in one.items())


def test_a_run_of_an_earlier_version_has_no_augmentation(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_step(monkeypatch, 5, terminate)
    assert trainer(*arguments(shards, tmp_path)).code == 143
    settings = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())
    del settings["augment"]
    (tmp_path / "r" / "config.yaml").write_text(yaml.dump(settings))
    resume = ("--out", tmp_path, "--run", "r", "--resume")
    refusal = trainer(*resume, "--augment", "mixup:0.5")
    assert refusal.code == 2 and "was started without --augment, not --augment mixup:0.5; omit --augment" in refusal.err
    assert trainer(*resume).code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("cutblurr:0.3",), "unknown augmentation 'cutblurr'; did you mean 'cutblur'?"),
        (("rgb:0.3",), "unknown augmentation 'rgb'; expected one of mixup, cutmix, cutblur"),
        (("cutblur",), "'cutblur': expected the share of steps, above 0 and up to 1, e.g. cutblur:0.3"),
        (("mixup:0",), "'mixup:0': expected the share of steps, above 0 and up to 1"),
        (("mixup:1.1",), "'mixup:1.1': expected the share of steps, above 0 and up to 1"),
        (("mixup:nan",), "'mixup:nan': expected the share of steps, above 0 and up to 1"),
        (("mixup:0.1", "--augment", "mixup:0.2"), "--augment mixup is passed twice; pass it once"),
        (
            ("mixup:0.7", "--augment", "cutmix:0.6"),
            "--augment mixup:0.7, cutmix:0.6: a step has one augmentation at most, but their shares of the steps add "
            "up to 1.3; pass shares of 1 in total or less",
        ),
        (
            ("cutmix:0.3", "--batch-size", 3),
            "--augment cutmix mixes pairs of patches, but a process has 3 in a batch; pass another --batch-size",
        ),
    ],
)
def test_impossible_augmentations_are_refused(
    options: tuple[object, ...], message: str, shards: Path, tmp_path: Path
) -> None:
    result = trainer(*arguments(shards, tmp_path / "runs", "--augment", *options))
    assert result.code == 2 and message in " ".join(result.err.split()), result.err
    assert "Traceback" not in result.err and not (tmp_path / "runs").exists()


def test_cutblur_needs_no_even_batch_and_is_read_from_a_configuration(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("augment:\n- cutblur:0.5\n")
    args = arguments(shards, tmp_path, "--config", tmp_path / "c.yaml", "--batch-size", 3)
    result = trainer(*args)
    assert result.code == 0 and "Augment  cutblur in 0.5 of the steps\n" in result.err


def test_augmentations_may_be_a_mapping_in_a_configuration(shards: Path, tmp_path: Path) -> None:
    args = arguments(shards, tmp_path, "--config", tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("augment: {cutblur: 0.5, mixup: 0.25}\n")
    result = trainer(*args)
    assert result.code == 0 and "Augment  cutblur in 0.5 of the steps, mixup in 0.25 of the steps\n" in result.err
    (tmp_path / "c.yaml").write_text("augment: {name: cutblur, share: 0.3}\n")
    result = trainer(*args)
    expected = (
        "c.yaml: augment: unknown augmentation 'name'; expected one of mixup, cutmix, cutblur (the setting is a "
        "list of values, or a mapping of augmentations to shares such as {mixup: 0.2, cutblur: 0.3})"
    )
    assert result.code == 2 and expected in " ".join(result.err.split())
