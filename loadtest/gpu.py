"""What the lane of a CUDA device makes of it, beside the fastest loop around a CUDA graph; one Markdown table.

    python -m loadtest.gpu [--device cuda:0] [--turns 7] [--seconds 1]

    gpu.py               runs them, prints the table; exit code 1 when a budget is missed, 2 without a device
    ├── gpu_models.py    ViT-B/16 and ResNet-50 in bf16 with random weights
    ├── gpu_raw.py       theirs: three streams, a graph for each slot, no Python for an image
    ├── gpu_served.py    ours: the same module in a graph of one Op, in an Engine; and the lane alone
    └── gpu_copies.py    the arena to the device

Each network runs in two sizes of batch: the smallest that takes 2 ms of the device, and the smallest that takes
0.5 ms. None of this has been run on a device yet: there was none.
"""

import argparse
import gc
import importlib
import math
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import torch

from asyncline.backends.cuda import open_accelerator
from loadtest import gpu_copies
from loadtest.gpu_models import HEIGHT, RESNET, VIT, WIDTH, Kind
from loadtest.gpu_raw import RawLoop
from loadtest.gpu_served import EACH, Served
from loadtest.pairs import Spread, interleave, machine
from loadtest.report import BenchmarkFailed, Budget, Report, Row, table

IMAGES = 128
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
LONG_S, SHORT_S = 2e-3, 0.5e-3
LONG, SHORT, HIDDEN = Budget("≥", 0.97), Budget("≥", 0.90), Budget("≥", 0.97)
GAP = Budget("≤", 20, "µs")
PROBE = 20
"""Runs to find out how long one takes."""
CHUNK = 32
"""Images of a plain call."""
GAPS = 500
"""Batches that gaps are looked for among."""

Array = np.ndarray[Any, Any]


def main() -> int:
    """Returns the exit code."""
    options = _options()
    if not torch.cuda.is_available():
        print(f"not measured: torch {torch.__version__} sees no CUDA device", file=sys.stderr)
        return 2
    device = torch.device(options.device)
    torch.cuda.set_device(device)
    where, images = f"{_gpu(device)}; {machine()}", pictures()
    report, failed = Report(), False
    for kind in (VIT, RESNET):
        print(f"measuring {kind.name} ...", file=sys.stderr, flush=True)
        try:
            found = measure(kind, device, images, options.turns, options.seconds)
        except BenchmarkFailed as failure:
            failed = True
            found = Report([Row(kind.name, not_measured="FAILED")], [f"**{kind.name} FAILED**: {failure}"])
        report.rows += found.rows
        report.notes += found.notes
    print("measuring copies ...", file=sys.stderr, flush=True)
    copies = gpu_copies.measure(open_accelerator(options.device, "torch"), options.turns)
    report.rows += copies.rows
    report.notes += copies.notes
    print(f"{where}\n\n{table(report.rows)}\n")
    for note in report.notes:
        print(f"- {note}")
    return int(failed or any(row.holds is False for row in report.rows))


def measure(kind: Kind, device: torch.device, images: Array, turns: int, seconds: float) -> Report:
    """One network, in its sizes of batch."""
    module = make(kind, device)
    reference = reference_of(module, images)
    report = Report()
    for batch in sizes(module, images):
        found = measure_batch(kind, batch, module, images, reference, turns, seconds)
        report.rows += found.rows
        report.notes += found.notes
        gc.collect()
        torch.cuda.empty_cache()
    return report


def measure_batch(
    kind: Kind, batch: int, module: Any, images: Array, reference: Array, turns: int, seconds: float
) -> Report:
    """Turns of `seconds` for each, in one size of batch."""
    raw = RawLoop(module, images[:batch])
    device = str(next(module.parameters()).device)
    with Served(kind.source, device, batch, images) as served:
        count = max(10, math.ceil(seconds / raw.seconds(PROBE)))
        check("the raw loop", raw.outputs(), reference)
        check("the Engine", served.outputs(), reference)
        served.seconds(max(10, count // 5))  # the Batcher learns how long they take
        pairs = interleave(turns, partial(served.seconds, count), partial(raw.seconds, count))
        hidden = interleave(
            turns,
            partial(served.lane_seconds, count),
            partial(raw.seconds_without_copies, count),
            partial(raw.seconds, count),
        )
        gaps = Spread.of(served.gaps_us(GAPS))
    took_s = Spread.of(theirs for _, theirs in pairs).median
    what = f"{kind.name} bf16, batch {batch} ({took_s * 1e3:.2f} ms)"
    is_long = took_s >= LONG_S
    rows = [
        _row(f"{what}: Engine; raw loop", batch, pairs, LONG if is_long else SHORT),
        _row(
            f"{what}: lane, copies and all; runs alone",
            batch,
            [(ours, alone) for ours, alone, _ in hidden],
            HIDDEN if is_long else None,
        ),
        Row(f"{what}: the device idles between two runs", "µs", gaps, budget=GAP),
    ]
    copied = Spread.of(alone / theirs for _, alone, theirs in hidden)
    tflops = kind.gflop * batch / took_s / 1e3
    note = (
        f"{what}: {turns} turns of {count} batches, requests of {EACH} images. The raw loop does {tflops:,.0f} "
        f"TFLOP/s, and {copied} of its own speed without copies."
    )
    return Report(rows, [note])


def _row(what: str, batch: int, pairs: list[tuple[float, float]], budget: Budget | None) -> Row:
    """Of seconds for a batch: ours and theirs."""
    return Row(
        what,
        "images/s",
        Spread.of(batch / ours for ours, _ in pairs),
        Spread.of(batch / theirs for _, theirs in pairs),
        Spread.of(theirs / ours for ours, theirs in pairs),
        budget,
    )


def make(kind: Kind, device: torch.device) -> Any:
    """The module on the device, in bf16.

    :raises BenchmarkFailed: it is not the network that it is taken for.
    """
    path, _, attribute = kind.source.partition(":")
    module = getattr(importlib.import_module(path), attribute)()
    count = sum(parameter.numel() for parameter in module.parameters())
    if count != kind.parameters:
        raise BenchmarkFailed(f"{kind.name} has {count:,} parameters, not {kind.parameters:,}")
    return module.to(device=device, dtype=torch.bfloat16, memory_format=torch.channels_last)


def sizes(module: Any, images: Array) -> list[int]:
    """The smallest batches that take LONG_S and SHORT_S, or the largest there is."""
    found: dict[float, int] = {}
    for batch in SIZES:
        loop = RawLoop(module, images[:batch])
        loop.seconds_without_copies(3)
        took_s = loop.seconds_without_copies(PROBE)
        del loop  # and its memory, before the next
        for least_s in (LONG_S, SHORT_S):
            if took_s >= least_s or batch == SIZES[-1]:
                found.setdefault(least_s, batch)
        if len(found) == 2:
            break
    return sorted(set(found.values()), reverse=True)


def pictures() -> Array:
    """Images that a network tells apart: 7 × 7 fields of colour."""
    fields = np.random.default_rng(0).integers(0, 256, (IMAGES, 7, 7, 3), dtype=np.uint8)
    pixels = fields.repeat(HEIGHT // 7, 1).repeat(WIDTH // 7, 2)
    return np.ascontiguousarray(pixels.reshape(IMAGES, HEIGHT, 3 * WIDTH))


def reference_of(module: Any, images: Array) -> Array:
    """What the module makes of each image, by plain calls."""
    device = next(module.parameters()).device
    chunks = [torch.from_numpy(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
    with torch.inference_mode():
        result: Array = torch.cat([module(chunk.to(device)).float() for chunk in chunks]).cpu().numpy()
    return result


def check(who: str, outputs: Array, reference: Array) -> None:
    """Row n has to be what image n came to, and no other: bf16 differs a little from one size of batch to another.

    :raises BenchmarkFailed: it is not.
    """
    if outputs.shape[1:] != reference.shape[1:] or not np.isfinite(outputs).all():
        raise BenchmarkFailed(f"{who} gave {outputs.shape}, or numbers that are not finite")
    distances = np.linalg.norm(outputs[:, None] - reference[None], axis=2)
    own = distances.diagonal().copy()
    np.fill_diagonal(distances, np.inf)
    if wrong := int((own > distances.min(1) / 2).sum()):
        raise BenchmarkFailed(f"{who} gave {wrong} images what is not theirs")


def _gpu(device: torch.device) -> str:
    command = ["nvidia-smi", f"--id={device.index}", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        driver = "unknown"
    name = torch.cuda.get_device_name(device)
    return f"{name}, driver {driver}, torch {torch.__version__}, CUDA {torch.version.cuda}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtest.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda:0", choices=[f"cuda:{n}" for n in range(8)], metavar="cuda:0")
    parser.add_argument("--turns", type=int, choices=range(3, 21), default=7, metavar="3..20")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
