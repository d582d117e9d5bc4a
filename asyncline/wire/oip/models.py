"""What a server says of its models beside their metadata: configuration, statistics, the index of them all.

These are Triton's extensions of the protocol, as far as its clients read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asyncline.wire.oip.messages import TensorMetadata


@dataclass(frozen=True)
class Step:
    """One model of an ensemble."""

    model_name: str
    input_map: Mapping[str, str] = field(default_factory=dict)
    """By the names of its inputs: tensors of the ensemble."""
    output_map: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """How a model is set up. An ensemble has `steps`; another may have `dynamic_batching`."""

    name: str
    platform: str
    inputs: tuple[TensorMetadata, ...]
    """Shapes are without the batch, where there is one."""
    outputs: tuple[TensorMetadata, ...]
    backend: str = ""
    max_batch_size: int = 0
    """Most rows of a request; 0: the first length of a tensor is no batch."""
    optional: frozenset[str] = frozenset()
    """Inputs that may be left out."""
    steps: tuple[Step, ...] = ()
    instances: int = 1
    gpus: tuple[int, ...] = ()
    """Of the instances; empty: the CPU's."""
    dynamic_batching: bool = False
    max_queue_delay_us: int = 0
    decoupled: bool = False
    """Whether a request may have several answers, or none."""


@dataclass(frozen=True)
class Duration:
    """Something that happened `count` times and took `ns` in all."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True)
class BatchUsage:
    """Executions of one size."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


@dataclass(frozen=True)
class Usage:
    """What a model has done since the start. The counts of queue and compute are those of success: requests."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    inference_count: int = 0
    """Rows that were run."""
    execution_count: int = 0
    """Batches that were run."""
    batches: tuple[BatchUsage, ...] = ()
    last_inference_ms: int = 0
    """Since the epoch; 0: never."""


@dataclass(frozen=True)
class ModelStatistics:
    name: str
    version: str
    usage: Usage


@dataclass(frozen=True)
class ModelIndex:
    """One line of the repository's index."""

    name: str
    version: str
    state: str
    """READY or UNAVAILABLE."""
    reason: str = ""
