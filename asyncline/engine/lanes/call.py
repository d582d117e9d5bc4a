"""One call of `process`: its arguments from a Batch, its results back to the samples. Runs where `process` does."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncline.engine.lanes.accelerator import DeviceLost, OutOfMemory
from asyncline.engine.lanes.base import Batch
from asyncline.errors import OpError, hook_error, text_of
from asyncline.graph.collate import take_apart
from asyncline.graph.op import Op, is_async
from asyncline.graph.outcomes import OUTCOMES, Each, Rows, Skip


class WrongNumber(OpError):
    """`process` returned something else than a result for each sample, so that none can be given to anybody."""


NO_LISTS = (Mapping, Set, str, bytes, bytearray, memoryview)
"""What `process` returns by mistake: its keys, members or characters may be as many as the samples, by chance."""

MOST_CAUSES = 16
"""An exception may well be its own cause."""

STICKY = (
    "an illegal memory access",
    "the launch timed out",
    "device-side assert",
    "unspecified launch failure",
    "misaligned address",
    "illegal instruction",
    "invalid program counter",
    "hardware stack error",
    "operation not supported on global/shared address space",
    "uncorrectable ECC error",
)
"""What CUDA's texts of errors say after which every later call of the process fails (cuda.h: 700, 702, 710,
714 to 719, 214)."""


def arguments(op: Op, batch: Batch) -> tuple[Any, ...]:
    """What `process` gets; samples that have died meanwhile are left out."""
    batch.samples = samples = [sample for sample in batch.samples if not sample.dead]
    values = [sample.value for sample in samples]
    if op.collate is None:
        return (values,)
    return op.collate.join(values, [sample.rows for sample in samples])


def warm_up(op: Op) -> None:
    """Run `process` on what `Op.example` gives, a lone sample and a full batch, before the first request does."""
    example, preprocess = op.hook("example"), op.hook("preprocess")
    if example is None or is_async(preprocess) or op.warms_up:
        return
    value: Any = example()
    if preprocess is not None:
        value = preprocess(*(value if len(op.inputs) > 1 else (value,)))
    rows = None
    if type(value) is Each:
        value = value.samples[0] if value.samples else Skip(None)
    elif type(value) is Rows:
        rows = min(len(value), op.settings.batch_size)
        value = value.cut(slice(rows)) if rows else Skip(None)
    if type(value) in OUTCOMES:
        return
    for count in sorted({1, op.settings.batch_size // (rows or 1) or 1}):
        batch = Batch([_Example(value, rows) for _ in range(count)], lambda batch: None)  # type: ignore[misc]
        take_results(op, batch, op.hook("process")(*arguments(op, batch)))  # type: ignore[misc]  # the Op has it


@dataclass
class _Example:
    """Stands for a Sample."""

    value: Any
    rows: int | None
    dead = False


def take_results(op: Op, batch: Batch, returned: Any) -> None:
    """Take what `process` returned; a generator or an array is spelled out here."""
    count = len(batch.samples)
    if op.collate is not None and not _is_list_of_errors(returned):
        try:
            results = take_apart(returned, [sample.rows for sample in batch.samples])
        except ValueError as error:
            raise WrongNumber(f"op {op.name!r} process: {error}") from None
    else:
        is_list = type(returned) is list  # as nearly always: what it may be else is asked at some length
        if not is_list and (isinstance(returned, NO_LISTS) or not hasattr(returned, "__iter__")):
            got = "None" if returned is None else type(returned).__name__
            raise WrongNumber(f"op {op.name!r} process: expected {count} results in a list, got {got}")
        results = list(returned)
        if len(results) != count:
            raise WrongNumber(f"op {op.name!r} process: expected {count} results, got {len(results)}")
    if op.settings.nan == "refuse":
        results = [_refused(op) if _has_nan(result) else result for result in results]
    batch.results = results


def fail(op: Op, batch: Batch, raised: BaseException) -> None:
    """`process` raised."""
    batch.error = hook_error(raised, op.name, "process")
    batch.fault = find_fault(raised)


def find_fault(raised: BaseException | None) -> OutOfMemory | DeviceLost | None:
    """What is wrong with the device, if that is why `process` raised."""
    for _ in range(MOST_CAUSES):
        if raised is None:
            break
        if isinstance(raised, OutOfMemory | DeviceLost):
            return raised
        if isinstance(raised, MemoryError) or type(raised).__name__ == "OutOfMemoryError":  # torch's, by its name
            return OutOfMemory(text_of(raised))
        if isinstance(raised, RuntimeError) and "CUDA" in (text := text_of(raised)):
            if any(sticky in text for sticky in STICKY):
                return DeviceLost(text)
        raised = raised.__cause__
    return None


def _is_list_of_errors(returned: Any) -> bool:
    """With errors among them the results are those of samples, one for each."""
    return isinstance(returned, list) and any(isinstance(result, BaseException) for result in returned)


def _refused(op: Op) -> OpError:
    return OpError(f"op {op.name!r} process: the result is not a number (NaN)")


def _has_nan(result: Any) -> bool:
    if isinstance(result, tuple | list):
        return any(map(_has_nan, result))
    if isinstance(result, dict):
        return any(map(_has_nan, result.values()))
    if isinstance(result, float | np.floating):
        return bool(np.isnan(result))
    return isinstance(result, np.ndarray) and result.dtype.kind in "fc" and bool(np.isnan(result).any())
