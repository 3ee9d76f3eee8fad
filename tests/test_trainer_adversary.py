"""Adversarial training: the losses, the discriminator's steps, several ranks, and the warning of a collapse."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from srshards.errors import UsageError
from tests.drill.warm import _context
from trainer.distributed.group import SINGLE_PROCESS_GROUP, RankGroup
from trainer.distributed.rank import RankInfo
from trainer.losses.adversarial import ADVERSARIAL_LOSSES
from trainer.models.discriminators import DISCRIMINATORS, PatchGan, UNet, build_discriminator
from trainer.models.spectral_norm import SpectralConv2d, built
from trainer.training.adversary import ADVERSARY_COLUMNS, Adversary, AdversarySettings
from trainer.training.collapse import CollapseWatch
from trainer.training.device import Precision
from trainer.training.step_mode import StepMode

LABELLED = {"vanilla": (1, 0), "lsgan": (1, 0), "hinge": (1, -1)}  # what the discriminator aims at
Values = NDArray[np.float64]


def images(count: int = 2, px: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Generated and real images."""
    generator = torch.Generator().manual_seed(seed)
    output, target = torch.rand(2, count, 3, px, px, generator=generator)
    return output, target


def adversary(
    kind: str = "vanilla",
    dtype: torch.dtype | None = None,
    compiles: bool = False,
    group: RankGroup = SINGLE_PROCESS_GROUP,
    lr: float = 1e-3,
) -> Adversary:
    network = built(partial(UNet, 4), 1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = ADVERSARIAL_LOSSES[kind]
    return Adversary(network, AdversarySettings(loss, Precision(dtype), StepMode(compiles), lr), group)


def values_of(trained: Adversary) -> list[Tensor]:
    return [tensor.clone() for tensor in trained.network.state_dict().values()]


def all_equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(map(torch.equal, some, others))


# ---- losses


def plain(kind: str, real: Values, fake: Values) -> dict[str, float]:
    """The losses and scores by their published formulas."""

    def probability(logits: Values) -> Values:
        return 1 / (1 + np.exp(-logits))

    if kind == "relativistic":
        real, fake = real - fake.mean(), fake - real.mean()
    p, q = probability(real), probability(fake)
    if kind == "vanilla":
        discriminator, generator = -np.log(p).mean() - np.log(1 - q).mean(), -np.log(q).mean()
    elif kind == "relativistic":
        discriminator = (-np.log(p).mean() - np.log(1 - q).mean()) / 2
        generator = (-np.log(1 - p).mean() - np.log(q).mean()) / 2
    elif kind == "lsgan":
        discriminator, generator = ((real - 1) ** 2).mean() + (fake**2).mean(), ((fake - 1) ** 2).mean()
    else:
        discriminator = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
        generator = -fake.mean()
    real_score, fake_score = (p, q) if kind in ("vanilla", "relativistic") else (real, fake)
    return {
        "loss": discriminator,
        "real_score": real_score.mean(),
        "fake_score": fake_score.mean(),
        "generator": generator,
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_losses_and_gradients_are_those_of_the_formulas(kind: str, dtype: torch.dtype) -> None:
    loss = ADVERSARIAL_LOSSES[kind]
    draw = torch.Generator().manual_seed(0)
    real, fake = (2 * torch.randn(3, 1, 2, 2, generator=draw).to(dtype) for _ in range(2))
    plain_real, plain_fake = (logits.double().numpy() for logits in (real, fake))
    expected = plain(kind, plain_real, plain_fake)
    for logits in (real, fake):
        logits.requires_grad_()
    figures, generator = loss.discriminator(real, fake), loss.generator(fake, real)
    found = {**figures._asdict(), "generator": generator}
    assert all(value.dtype is torch.float32 and value.shape == () for value in found.values())
    assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=1e-5, abs=1e-6)
    if dtype is not torch.float64:
        return
    step = 1e-6
    for name, value in (("loss", figures.loss), ("generator", generator)):
        gradients = torch.autograd.grad(value, (real, fake), allow_unused=True)
        for number, gradient in enumerate(gradients):
            for index in np.ndindex(3, 1, 2, 2):
                ends = []
                for sign in (1, -1):
                    moved = [plain_real.copy(), plain_fake.copy()]
                    moved[number][index] += sign * step
                    ends.append(plain(kind, *moved)[name])
                slope = 0.0 if gradient is None else gradient[index].item()
                assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_loss_of_guessing_is_the_least_for_equal_logits(kind: str) -> None:
    loss = ADVERSARIAL_LOSSES[kind]
    constants = torch.linspace(-2, 2, 81)
    least = min(loss.discriminator(*constant.expand(2, 4)).loss.item() for constant in constants)
    assert least == pytest.approx(loss.guessing)


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_extreme_logits_have_finite_losses(kind: str) -> None:
    loss = ADVERSARIAL_LOSSES[kind]
    real, fake = torch.full((2,), 1e4), torch.full((2,), -1e4, requires_grad=True)
    loss.generator(fake, real).backward()
    assert fake.grad is not None and fake.grad.isfinite().all() and fake.grad.max() < 0
    assert loss.discriminator(real, fake.detach()).loss.isfinite()


@pytest.mark.parametrize("kind", LABELLED)
def test_perfect_discriminator_has_no_loss(kind: str) -> None:
    real, fake = (torch.full((3,), float(value)) for value in LABELLED[kind])
    if kind == "vanilla":
        real, fake = torch.full((3,), 50.0), torch.full((3,), -50.0)
    loss, real_score, fake_score = ADVERSARIAL_LOSSES[kind].discriminator(real, fake)
    assert (loss.item(), real_score.item(), fake_score.item()) == pytest.approx((0, *LABELLED[kind]))


def test_relativistic_loss_needs_real_logits() -> None:
    with pytest.raises(ValueError, match="needs the logits of real images"):
        ADVERSARIAL_LOSSES["relativistic"].generator(torch.zeros(2))


# ---- steps


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_one_step_trains_every_parameter(name: str) -> None:
    network = build_discriminator(name, 0)
    settings = AdversarySettings(ADVERSARIAL_LOSSES["vanilla"], Precision(None), StepMode(), 1e-4)
    trained = Adversary(network, settings)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    figures = trained.update(*images(1, 32))
    assert figures.dtype is torch.float32 and figures.shape == (len(ADVERSARY_COLUMNS),) and trained.is_finite()
    fixed = {key for key, tensor in network.state_dict().items() if torch.equal(tensor, before[key])}
    assert fixed == {key for key in before if key.endswith("init_pos")}


def leaves(node: Any) -> set[Tensor]:
    """Return the tensors whose gradients this part of a graph computes."""
    if node is None:
        return set()
    own = {node.variable} if hasattr(node, "variable") else set()
    return own.union(*(leaves(following) for following, _ in node.next_functions))


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_generator_loss_reaches_the_output_only(kind: str) -> None:
    trained = adversary(kind)
    output, target = images()
    trained.update(output, target)
    before = values_of(trained)
    output.requires_grad_()
    loss = trained.generator_loss(output, target)
    assert [leaf is output for leaf in leaves(loss.grad_fn)] == [True]
    (gradient,) = torch.autograd.grad(loss, output, retain_graph=True)
    assert gradient.abs().sum() > 0
    loss.backward()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in trained.network.parameters())
    assert all_equal(values_of(trained), before)
    network = trained.network  # of which the frozen one has the current weights
    expected = ADVERSARIAL_LOSSES[kind].generator(network(output), network(target))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, output)[0])


def test_step_is_adamw_on_the_loss_then_a_power_iteration() -> None:
    trained, other = adversary(lr=1e-3), adversary()
    output, target = images()
    figures = trained.update(output.requires_grad_(), target)
    assert output.grad is None
    network = other.network
    expected = ADVERSARIAL_LOSSES["vanilla"].discriminator(network(target), network(output))
    assert figures.tolist() == pytest.approx([value.item() for value in expected])
    expected.loss.backward()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, betas=(0.9, 0.99), weight_decay=0)
    optimizer.step()
    vectors = [module.weight_u.clone() for module in network.modules() if isinstance(module, SpectralConv2d)]
    network.iterate()
    assert not all_equal(vectors, [m.weight_u for m in network.modules() if isinstance(m, SpectralConv2d)])
    for one, expected in zip(values_of(trained), values_of(other), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-5)


def test_a_rate_of_zero_changes_nothing() -> None:
    network = built(partial(UNet, 4), 1)
    trained = Adversary(network, AdversarySettings(ADVERSARIAL_LOSSES["hinge"], Precision(None), StepMode(), 1e-3))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    trained.set_rate(0.0)
    trained.update(*images())
    assert all_equal(list(network.parameters()), before)


def test_micro_batches_give_the_step_of_the_whole_batch() -> None:
    whole, parts = adversary(), adversary()
    output, target = images(4)
    expected = whole.update(output, target)
    before = values_of(parts)
    first = parts.update(output[:2], target[:2], 0, 2)
    assert all_equal(values_of(parts), before)
    second = parts.update(output[2:], target[2:], 1, 2)
    torch.testing.assert_close((first + second) / 2, expected)
    for one, other in zip(values_of(parts), values_of(whole), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_bfloat16_step_is_close() -> None:
    output, target = images()
    figures = [adversary(dtype=dtype).update(output, target) for dtype in (None, torch.bfloat16)]
    losses = [adversary(dtype=dtype).generator_loss(output, target) for dtype in (None, torch.bfloat16)]
    assert figures[1].dtype is losses[1].dtype is torch.float32
    torch.testing.assert_close(figures[1], figures[0], rtol=0.02, atol=0)
    torch.testing.assert_close(losses[1], losses[0], rtol=0.02, atol=0)


def test_float16_step_with_an_infinite_gradient_is_skipped() -> None:
    trained = adversary(dtype=torch.float16)
    output, target = images()
    parameters = [parameter.detach().clone() for parameter in trained.network.parameters()]
    scale = trained.state()["scaler"]["scale"]
    trained.update(output, torch.full_like(target, torch.inf))
    assert all_equal(list(trained.network.parameters()), parameters)
    assert trained.state()["scaler"]["scale"] == scale / 2
    trained.update(output, target)
    assert not all_equal(list(trained.network.parameters()), parameters)


class Recorded(TorchDispatchMode):
    """Records the names of the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(str(function))
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("kind", ["vanilla", "relativistic"])
def test_steps_neither_synchronise_nor_replace_tensors(kind: str) -> None:
    """As a CUDA graph requires: no value is read, and all state stays at its place in memory."""

    def places() -> list[int]:
        states = trained.state()["optimizer"]["state"].values()
        tensors = [*trained.network.state_dict().values(), *(t for state in states for t in state.values())]
        return [tensor.data_ptr() for tensor in tensors]

    trained = adversary(kind)
    output, target = images()
    before = places()
    with Recorded() as recorded:
        trained.generator_loss(output.requires_grad_(), target).backward()
        trained.update(output, target)
    assert places() == before and "aten.convolution.default" in recorded.names
    reads = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")
    assert not [name for name in recorded.names if name.removeprefix("aten.").split(".")[0] in reads]


@pytest.mark.slow
@pytest.mark.parametrize(("constructor", "dtype"), [(PatchGan, None), (UNet, torch.bfloat16)])
def test_compiled_steps_equal_eager_ones(
    constructor: Callable[..., Any], dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced as one graph each, and differentiated by the compiler, which then runs PyTorch's own kernels."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    results = []
    for compiles in (False, True):
        settings = AdversarySettings(
            ADVERSARIAL_LOSSES["relativistic"], Precision(dtype), StepMode(compiles=compiles), 1e-4
        )
        trained = Adversary(built(partial(constructor, 4), 1), settings)
        loss = torch.compile(trained.generator_loss, fullgraph=True) if compiles else trained.generator_loss
        output, target = images()
        found = []
        for _ in range(2):
            output.grad = None
            loss(output.requires_grad_(), target).backward()
            found += [output.grad, trained.update(output, target)]
        results.append([*found, *values_of(trained)])
    for expected, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, expected, rtol=2e-2 if dtype else 1e-4, atol=2e-4 if dtype else 1e-5)


# ---- state


@pytest.mark.parametrize("kind", ["vanilla", "relativistic"])
def test_resumed_steps_are_equal_to_the_bit(kind: str, tmp_path: Path) -> None:
    trained = adversary(kind)
    for seed in range(3):
        trained.update(*images(seed=seed))
    torch.save(trained.state(), tmp_path / "state.pt")
    resumed = adversary(kind)
    resumed.restore(torch.load(tmp_path / "state.pt"))
    for seed in range(3, 5):
        output, target = images(seed=seed)
        figures = []
        for one in (trained, resumed):
            figures += [one.generator_loss(output, target), one.update(output, target)]
        assert all_equal(figures[:2], figures[2:])
    assert all_equal(values_of(trained), values_of(resumed))


def test_state_of_another_discriminator_is_refused() -> None:
    trained = adversary()
    state = trained.state()
    settings = AdversarySettings(ADVERSARIAL_LOSSES["vanilla"], Precision(None), StepMode(), 1e-4)
    for other in (built(partial(UNet, 8), 0), built(partial(PatchGan, 4), 0)):
        with pytest.raises(UsageError) as refused:
            Adversary(other, settings).restore(state)
        assert str(refused.value).startswith(
            "the state has another discriminator than the settings (restore them, or start a new run): conv0.weight is "
        )
    with pytest.raises(ValueError, match="invalid state of the loss scaler"):
        trained.restore({**state, "scaler": {"scale": "1"}})


def test_infinite_weights_are_noticed() -> None:
    trained = adversary()
    assert trained.is_finite()
    with torch.no_grad():
        next(trained.network.parameters())[0] = torch.inf
    assert not trained.is_finite()


# ---- a game


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_toy_network_learns_the_brightness_of_real_images(kind: str) -> None:
    """Of images with noise around 0.7, by a network that adds a number to noise around 0.3."""
    settings = AdversarySettings(ADVERSARIAL_LOSSES[kind], Precision(None), StepMode(), 0.01)
    trained = Adversary(built(partial(PatchGan, 4), 1), settings)
    shift = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.Adam([shift], 0.005, betas=(0.5, 0.9))  # larger ones overshoot
    draw = torch.Generator().manual_seed(0)
    noise = 0.1 * torch.randn(2, 4, 3, 24, 24, generator=draw)
    for _ in range(100):
        output, target = noise[0] + 0.3 + shift, noise[1] + 0.7
        optimizer.zero_grad()
        trained.generator_loss(output, target).backward()
        optimizer.step()
        assert trained.update(output, target).isfinite().all() and -0.1 < shift < 0.7
    assert shift.item() == pytest.approx(0.4, abs=0.15)


# ---- several ranks


def play(group: RankGroup, rank: int, path: Path) -> None:
    """Save the results of two steps of two micro-batches, for two losses, with this rank's share of the images."""
    results = {}
    for kind in ("vanilla", "relativistic"):
        trained = adversary(kind, group=group)
        gradients, figures = [], []
        for step in range(2):
            for micro_batch in range(2):
                share = slice(None) if group.world_size == 1 else slice(rank, None, 2)
                output, target = (part[share] for part in images(4, 16, seed=2 * step + micro_batch))
                trained.generator_loss(output.requires_grad_(), target).backward()
                gradients.append(output.grad)
                figures.append(trained.update(output, target, micro_batch, 2))
        results[kind] = (gradients, figures, values_of(trained))
    torch.save(results, path)


def run_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    play(RankGroup(RankInfo(rank, 2, rank, 2), dist.group.WORLD), rank, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    processes = [_context().Process(target=run_rank, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    play(SINGLE_PROCESS_GROUP, 0, tmp_path / "single.pt")
    for process in processes:
        process.join()
        assert process.exitcode == 0
    single, *ranks = (torch.load(tmp_path / f"{name}.pt") for name in ("single", 0, 1))
    for kind, (gradients, figures, values) in single.items():
        for rank, result in enumerate(ranks):
            for one, expected in zip(result[kind][0], gradients, strict=True):
                # A rank's loss is a mean over half as many images; DDP halves its gradients.
                torch.testing.assert_close(one / 2, expected[rank::2], rtol=1e-3, atol=1e-7)
        for one, other, expected in zip(ranks[0][kind][1], ranks[1][kind][1], figures, strict=True):
            torch.testing.assert_close((one + other) / 2, expected, rtol=1e-5, atol=1e-6)
        assert all_equal(ranks[0][kind][2], ranks[1][kind][2])
        if kind == "relativistic":  # which does not depend on the last bias, so that its gradients are rounding errors
            ranks[0][kind][2][-1].copy_(values[-1])
        for one, expected in zip(ranks[0][kind][2], values, strict=True):
            torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-5)


# ---- collapse


def test_collapse_is_warned_of_once() -> None:
    guessing = 2 * math.log(2)
    watch = CollapseWatch(guessing, {})
    won = (0.04 * guessing, 0.98, 0.02)
    figures = [*9 * [won], (0.06 * guessing, 0.9, 0.1), *9 * [won]]
    assert [watch.warning(*each) for each in figures] == 19 * [None]
    warning = watch.warning(*won)
    assert warning is not None and warning.startswith(
        "the discriminator has told real from generated images almost without error for 10 intervals of the journal: "
        "its loss is 0.0555, that of guessing would be 1.39; scores: real 0.98, generated 0.02. Its gradients no "
        "longer improve the network. Start a new run with a lower --discriminator-lr, or "
    )
    assert [watch.warning(*won) for _ in range(30)] == 30 * [None]


def test_diverging_discriminator_is_warned_of() -> None:
    watch = CollapseWatch(2.0, {})
    assert [watch.warning(4.1, -0.5, 0.5) for _ in range(9)] == 9 * [None]
    warning = watch.warning(4.1, -0.5, 0.5)
    assert warning == (
        "the discriminator has been worse than guessing for 10 intervals of the journal: its loss is 4.1, that of "
        "guessing would be 2; scores: real -0.5, generated 0.5. It diverges. Start a new run "
        "with a lower --discriminator-lr, or a smaller weight of --gan"
    )


@pytest.mark.parametrize("fraction", [0.05, 0.5, 1.0, 2.0])
def test_sound_training_is_not_warned_of(fraction: float) -> None:
    watch = CollapseWatch(0.5, {})
    assert [watch.warning(fraction * 0.5, 0.6, 0.4) for _ in range(50)] == 50 * [None]
