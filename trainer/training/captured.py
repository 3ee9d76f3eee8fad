"""A function of batches, captured once as a CUDA graph and replayed: one launch instead of thousands."""

from collections.abc import Callable, Sequence

import torch

ImagePair = tuple[torch.Tensor, torch.Tensor]  # HR and input of a batch

NUM_WARM_UPS = 3


class Captured:
    """Calls `work` on copies of the batches in fixed memory, which the graph reads.

    The first calls run `work` as it is, because autotuning, lazy initialisation and compilation cannot be captured.
    The next one captures it, then replays. All batches must have the shapes of the first ones. `work` must not
    synchronise, and must keep all its state in tensors that it updates in place. It returns a tensor.
    """

    def __init__(self, work: Callable[[Sequence[ImagePair]], torch.Tensor], device: torch.device) -> None:
        self._work = work
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._inputs: list[ImagePair] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: torch.Tensor | None = None
        self._calls = 0

    def forget(self) -> None:
        """Make the next calls start anew: the work has changed."""
        self._graph, self._calls = None, 0

    def load(self, number: int, batch: ImagePair) -> None:
        """Copy the batch of this number, counted from 0, to the memory that the next call reads."""
        if number == len(self._inputs):
            self._inputs.append((torch.empty_like(batch[0]), torch.empty_like(batch[1])))
        for memory, images in zip(self._inputs[number], batch, strict=True):
            memory.copy_(images)

    def __call__(self) -> torch.Tensor:
        """Do the work on the batches last copied, and return its result."""
        self._calls += 1
        if self._calls <= NUM_WARM_UPS:
            return self._on_own_stream()
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                self._result = self._work(self._inputs)
            self._graph = graph
        self._graph.replay()
        assert self._result is not None
        return self._result.clone()  # the next replay overwrites it

    def _on_own_stream(self) -> torch.Tensor:
        """Run the work on the stream that is captured later: autograd keeps to the stream of its first use."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = self._work(self._inputs)
        current.wait_stream(self._stream)
        result.record_stream(current)
        return result
