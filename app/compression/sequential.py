"""Compression that calibrates: layer by layer, with llm-compressor's subgraphs and modifiers.

As in llm-compressor's sequential pipeline the samples go through one layer, the modifiers then change that layer, and
what the samples have become is kept for the next one. Different are three things. A layer has weights only while it is
its turn. It is written, as engines read it, as soon as it is done. And the samples go through each layer once, not
twice: until a layer's weights are rounded, which calibration does not feed back, it computes what it has always done.
"""

import contextlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.utils import match_named_modules, patch_attr
from llmcompressor.args import DatasetArguments
from llmcompressor.core import LifecycleCallbacks
from llmcompressor.core.session_functions import create_session
from llmcompressor.modeling.moe.context import moe_calibration_context
from llmcompressor.modeling.offset_norm import norm_calibration_context
from llmcompressor.modifiers.utils.hooks import HooksMixin
from llmcompressor.pipelines.cache import IntermediatesCache
from llmcompressor.pipelines.sequential.helpers import Subgraph, trace_subgraphs
from llmcompressor.utils.helpers import DisableQuantization, calibration_forward_context
from llmcompressor.utils.pytorch.module import infer_sequential_targets
from torch import nn

from app.compression.checkpoint import Checkpoint, WeightsUnusable
from app.compression.modifiers import modifiers
from app.compression.skeleton import Filling, build
from app.core.recipe import Recipe, linear_layers

Samples = Sequence[list[int]]


class Sequential:
    """The parts of one such compression: a layer each."""

    phase = "calibrating"

    def __init__(self, folder: Path, source: Checkpoint, recipe: Recipe, calibration: Samples) -> None:
        """Raises WeightsUnusable."""
        self._source, self._recipe = source, recipe
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = build(folder, source)
        self._batches = [{"input_ids": torch.tensor([sample])} for sample in calibration]
        targets = infer_sequential_targets(self._model)
        self._graphs = self._traced(targets)
        layers = {module: name for name, module in match_named_modules(self._model, targets)}
        self._layers = [
            tuple(f"{layers[module]}." for module in graph.submodules(self._model, recurse=False) if module in layers)
            for graph in self._graphs
        ]
        """For each subgraph, what the names of the layers in it begin with: none for what comes before them."""
        stray = [
            name
            for name in linear_layers(source.shapes)
            if name not in recipe.keep and not any(name.startswith(layer) for layer in self._layers if layer)
        ]
        if stray:
            raise WeightsUnusable(f"{stray[0]} is quantized but lies in no layer; keep it, by recipe.keep")
        self.rest = [
            name for name in source.tensors if not any(name.startswith(layer) for layer in self._layers if layer)
        ]
        """Tensors that stay as they are: embeddings, the last norm, the output layer."""

    @property
    def count(self) -> int:
        """Of layers."""
        return sum(bool(layers) for layers in self._layers)

    @contextlib.contextmanager
    def layers(self, done: int) -> Iterator[Iterator[dict[str, torch.Tensor]]]:
        """The new tensors of one layer after another; the first `done` ones are left as they are, and not given."""
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(create_session())
            stack.enter_context(norm_calibration_context(self._model))
            stack.enter_context(moe_calibration_context())
            stack.enter_context(_unpinned())
            filling = Filling(self._model, self._source, self._device)
            try:
                session.initialize(
                    model=self._model, start=-1, recipe=modifiers(self._recipe), calib_data=self._batches
                )
                LifecycleCallbacks.calibration_start()
            except (RuntimeError, ValueError) as error:
                raise WeightsUnusable(
                    f"llm-compressor does not know how to treat a {type(self._model).__name__} ({_first(error)}); "
                    "choose W8A8_FP8, which looks at weights alone"
                ) from error
            session.state.loss_masks, session.state.sequential_prefetch = None, False
            stack.enter_context(calibration_forward_context(self._model))
            stack.enter_context(DisableQuantization(self._model))
            yield stack.enter_context(contextlib.closing(self._through(filling, session, done)))

    def _through(self, filling: Filling, session: Any, done: int) -> Generator[dict[str, torch.Tensor]]:
        between = IntermediatesCache.empty(len(self._batches), torch.device("cpu"))
        for number, batch in enumerate(self._batches):
            between.update(number, {name: value.to(self._device) for name, value in batch.items()})
        reached = 0
        for graph, layers in zip(self._graphs, self._layers, strict=True):
            reached += bool(layers)
            passed = not layers or reached <= done
            modules = self._computing(graph, layers)
            with filling.filled(modules):
                with HooksMixin.disable_hooks() if passed else contextlib.nullcontext():
                    self._forward(graph, between, session, last=graph is self._graphs[-1])
                if not passed:
                    LifecycleCallbacks.sequential_epoch_end(graph.submodules(self._model))
                    yield filling.tensors(modules, layers)
        LifecycleCallbacks.calibration_end()
        session.finalize()

    def _forward(self, graph: Subgraph, between: IntermediatesCache, session: Any, *, last: bool) -> None:
        before: dict[str, Any] = {}
        for number in range(len(self._batches)):
            session.state.current_batch_idx = number
            outputs = graph.forward(self._model, **between.fetch(number, graph.input_names))
            if not last:
                before = {name: _same(value, before.get(name)) for name, value in outputs.items()}
                between.update(number, before)
            between.delete(number, graph.consumed_names)

    def _traced(self, targets: list[str]) -> list[Subgraph]:
        try:
            found: list[Subgraph] = trace_subgraphs(
                self._model, self._batches[0], targets, DatasetArguments().tracing_ignore
            )
            return found
        except Exception as error:  # whatever a model does that cannot be traced
            raise WeightsUnusable(
                f"a {type(self._model).__name__} cannot be taken apart into layers ({type(error).__name__}); choose "
                "W8A8_FP8, which looks at weights alone"
            ) from error

    def _computing(self, graph: Subgraph, layers: tuple[str, ...]) -> list[nn.Module]:
        """The modules that compute in it with weights of their own.

        A graph names its layers, but calls what is before and behind all layers from within functions as well. The
        output layer's result is not needed.
        """
        found = [module for module in graph.submodules(self._model) if module._parameters]
        if not layers or graph is self._graphs[-1]:
            every, output = tuple(layer for some in self._layers for layer in some), self._model.get_output_embeddings()
            found += [
                module
                for name, module in self._model.named_modules()
                if module._parameters and module is not output and not f"{name}.".startswith(every)
            ]
            found = [module for module in dict.fromkeys(found) if module is not output]
        return found


@contextlib.contextmanager
def _unpinned() -> Iterator[None]:
    """Without an accelerator there is no memory to pin, and AWQ would try."""
    if torch.accelerator.is_available():
        yield
        return
    with patch_attr(IntermediatesCache, "pin_memory", lambda cache, number, names=None: None):
        yield


def _same(value: Any, other: Any) -> Any:
    """`other` where it is equal: samples of one length share masks and positions, which would fill the memory."""
    if isinstance(value, torch.Tensor):
        alike = isinstance(other, torch.Tensor) and value.shape == other.shape and value.dtype == other.dtype
        return other if alike and torch.equal(value, other) else value
    if isinstance(value, tuple) and isinstance(other, tuple) and len(value) == len(other):
        return tuple(_same(one, another) for one, another in zip(value, other, strict=True))
    return value


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
