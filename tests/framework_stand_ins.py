"""What the adapters import of BasicSR, neosr and traiNNer-redux, and a training loop with the order of calls of theirs.

`make test-peers` runs the adapters in the real BasicSR.
"""

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any

from torch.utils.data import DataLoader, Dataset

ADAPTERS = {"basicsr": "basicsr", "neosr": "neosr", "trainner_redux": "traiNNer"}


class Registry(dict[str, Any]):
    """A registry of datasets, as the frameworks have."""

    def register(self) -> Callable[[type], type]:
        def add(registered: type) -> type:
            assert registered.__name__ not in self
            self[registered.__name__] = registered
            return registered

        return add


class BaseDataset(Dataset[Any]):
    """That of traiNNer-redux."""

    def __init__(self, opt: Any) -> None:
        self.opt = opt


class PairedImageDataset(BaseDataset):
    """That of traiNNer-redux, as far as it is inherited."""

    label = "image pairs"

    def __init__(self, opt: Any) -> None:
        raise AssertionError("it lists files")


@contextmanager
def adapter(name: str) -> Iterator[tuple[ModuleType, Registry]]:
    """Import an adapter with a stand-in for its framework; give the adapter and the framework's registry."""
    package, registry = ADAPTERS[name], Registry()
    content: dict[str, dict[str, Any]] = {
        "": {},
        ".utils": {},
        ".utils.registry": {"DATASET_REGISTRY": registry},
        ".data": {},
        ".data.base_dataset": {"BaseDataset": BaseDataset},
        ".data.paired_image_dataset": {"PairedImageDataset": PairedImageDataset},
    }
    added = []
    for suffix, attributes in content.items():
        module = ModuleType(package + suffix)
        vars(module).update(attributes)
        sys.modules[module.__name__] = module
        added.append(module.__name__)
    try:
        yield import_module(f"srshards.adapters.{name}"), registry
    finally:
        for module_name in [*added, f"srshards.adapters.{name}"]:
            sys.modules.pop(module_name, None)


class EnlargedSampler:
    """The frameworks' sampler: samples per epoch of a process, and the epoch."""

    epoch = 0

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class Prefetcher:
    """With `ahead`, the CUDAPrefetcher: takes a batch in advance, also of an iteration that `reset` abandons."""

    def __init__(self, loader: Any, ahead: bool) -> None:
        self._loader, self._ahead = loader, ahead
        self.reset()

    def reset(self) -> None:
        self._batches = iter(self._loader)
        self._batch = next(self._batches, None) if self._ahead else None

    def next(self) -> Any:
        if not self._ahead:
            return next(self._batches, None)
        batch, self._batch = self._batch, next(self._batches, None)
        return batch


class Logger:
    """Collects log lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, line: str) -> None:
        self.lines.append(f"INFO {line}")

    def warning(self, line: str) -> None:
        self.lines.append(f"WARNING {line}")


def train_script(
    dataset: Dataset[Any], opt: dict[str, Any], batch_size: int, total: int, ratio: int = 1, **run: Any
) -> SimpleNamespace:
    """Return a training script: its `batches` are those of each iteration after `train_pipeline`.

    `run` may have `state`, that of the run to resume, `accumulate`, `world_size`, `num_gpu`, and `ahead` for
    `Prefetcher`.
    """
    script = SimpleNamespace(batches=[], val=None, root=None)
    script.load_resume_state = lambda opt: run.get("state")
    script.build_dataset = lambda dataset_opt: dataset
    script.build_dataloader = lambda dataset, dataset_opt, **_: DataLoader(dataset, batch_size=1)

    def train_pipeline(root: str) -> None:
        script.root = root
        state = script.load_resume_state(opt)
        built = script.build_dataset(opt)
        world_size, size = run.get("world_size", 1), len(built) * ratio
        sampler = EnlargedSampler(math.ceil(size / world_size))
        num_gpu = run.get("num_gpu", 0)
        loader = script.build_dataloader(built, opt, num_gpu=num_gpu, dist=False, sampler=sampler, seed=5)
        if "val" in run:
            script.val = script.build_dataloader(run["val"], opt, num_gpu=0, dist=False, sampler=None, seed=5)
        accumulate = run.get("accumulate", 1)
        epochs = math.ceil(total / math.ceil(size / (batch_size * accumulate * world_size)))
        start, current = (state["epoch"], state["iter"] * accumulate) if state else (0, 0)
        prefetcher = Prefetcher(loader, run.get("ahead", False))
        for epoch in range(start, epochs + 1):
            sampler.set_epoch(epoch)
            prefetcher.reset()
            batch = prefetcher.next()
            while batch is not None:
                current += 1
                if current > total * accumulate:
                    break
                script.batches.append((epoch, batch))
                batch = prefetcher.next()

    script.train_pipeline = train_pipeline
    return script
