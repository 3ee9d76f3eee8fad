"""Run a framework's training with `PatchLoader` in the place of its data loader."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from srshards.adapters.pair_dataset import PairDataset
from srshards.adapters.train_loader import EpochSampler, TrainLoader, open_loader
from srshards.errors import ReportedError, UsageError
from srshards.loader.patch_loader import PatchLoader


def launch(train: Any, root: str, logger: Callable[[], Any]) -> None:
    """Run `train.train_pipeline(root)` of a framework, whose other functions `train` calls by their global names.

    `logger` is a function that returns the framework's logger. Exits with a message for errors that the user can fix.
    """
    hooks = _Hooks(train, logger)
    try:
        train.train_pipeline(root)
    except ReportedError as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    finally:
        hooks.close()


class _Hooks:
    """Replaces three functions of a framework's training script, for as long as the process lives.

    The first reads the iteration at which a resumed run continues, the second refuses datasets of files with options of
    shards, the third builds the loader that starts at that iteration.
    """

    def __init__(self, train: Any, logger: Callable[[], Any]) -> None:
        self._logger = logger
        self._load_state, train.load_resume_state = train.load_resume_state, self.load_resume_state
        self._build_dataset, train.build_dataset = train.build_dataset, self.build_dataset
        self._build, train.build_dataloader = train.build_dataloader, self.build_dataloader
        self._iteration = 0  # completed iterations of a resumed run
        self._loader: PatchLoader | None = None

    def load_resume_state(self, opt: Any) -> Any:
        state = self._load_state(opt)
        self._iteration = int(state["iter"]) if state else 0
        return state

    def build_dataset(self, dataset_opt: Any) -> Any:
        kind, backend = (_option(dataset_opt, name) for name in ("type", "io_backend"))
        if kind != "ShardsDataset" and isinstance(backend, Mapping) and backend.get("type") == "shards":
            raise UsageError(f"io_backend `shards` needs `type: ShardsDataset`, not {kind}")
        return self._build_dataset(dataset_opt)

    def build_dataloader(
        self,
        dataset: Any,
        dataset_opt: Any,
        num_gpu: int = 1,
        dist: bool = False,
        sampler: EpochSampler | None = None,
        seed: int | None = None,
    ) -> Any:
        if sampler is None:  # validation
            return self._build(dataset, dataset_opt, num_gpu=num_gpu, dist=dist, sampler=sampler, seed=seed)
        if not isinstance(dataset, PairDataset) or dataset.train is None:
            raise UsageError(
                f"the training dataset is a {type(dataset).__name__}, but this command trains from shards; set its "
                "`type` to ShardsDataset, or start the framework's own training command"
            )
        options, logger = dataset.train, self._logger()
        with dataset.names.in_errors():
            self._loader = open_loader(dataset, options, seed or 0, num_gpu, dist)
        first_step = self._iteration * options.accumulate
        logger.info(
            f"Training batches come from srshards.PatchLoader: {dataset.shards}, {self._loader.workers} workers, "
            f"from step {first_step}."
        )
        return TrainLoader(self._loader, dataset.names, sampler, options.batch_size, first_step, logger.warning)

    def close(self) -> None:
        if self._loader:
            self._loader.close()


def _option(opt: Any, name: str) -> Any:
    """Return an option of a dataset: of a mapping or, in traiNNer-redux, of a struct."""
    return opt.get(name) if isinstance(opt, Mapping) else getattr(opt, name, None)
