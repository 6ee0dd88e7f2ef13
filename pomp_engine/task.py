"""What a run needs from its task; everything else is the same for all tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from pomp_engine import solver
from pomp_engine.checkpoint import ModelCheckpointer

# Numbers by data set and kind: {"lvis_v1_val": {"bbox": {"AP": …}}}.
Results = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Task:
    """The parts of a run that differ from task to task; see :mod:`pomp_engine.run` and :mod:`pomp_engine.loop`.

    Attributes:
        package: whose messages go into the run's log.
        register: registers the data sets of a configuration.
        build: builds a model with random weights.
        check: called with the configuration, the model and whether the run trains; raises UserError for any fault.
        load: called with the model and a file of weights.
        build_loader: called with the configuration, whose ``SEED`` is settled by then, the model with its weights, and
            the iteration to start from; returns endless batches, which are lists of examples. It may also check what
            only the first step needs: a finished run does not call it.
        evaluate: returns the scores of each data set of ``DATASETS.TEST``; called in all processes.
        score: returns the same from files, without a model; called in the main process.
        checkpointer: called as ``checkpointer(model, folder, optimizer=…, scheduler=…, scaler=…)``.
        build_optimizer: called with the configuration and the model.
        prepare: called once the weights are loaded, even if the run turns out to be finished.
        kinds: what to call the evaluators' kinds of results, such as ``box`` for ``bbox``.
    """

    package: str
    register: Callable[[CfgNode], None]
    build: Callable[[CfgNode], nn.Module]
    check: Callable[[CfgNode, nn.Module, bool], None]
    load: Callable[[nn.Module, str], None]
    build_loader: Callable[[CfgNode, nn.Module, int], Iterable[list[dict[str, Any]]]]
    evaluate: Callable[[CfgNode, nn.Module], Results]
    score: Callable[[CfgNode], Results]
    checkpointer: Callable[..., ModelCheckpointer] = ModelCheckpointer
    build_optimizer: Callable[[CfgNode, nn.Module], torch.optim.Optimizer] = solver.build_optimizer
    prepare: Callable[[CfgNode, nn.Module], None] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
