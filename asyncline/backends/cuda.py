"""The Accelerator of a device name: by torch where it is installed, else by pycuda."""

from __future__ import annotations

import importlib.util
from typing import Literal

from asyncline.backends.device import cuda_index
from asyncline.backends.pycuda import PycudaAccelerator
from asyncline.backends.torch_cuda import TorchAccelerator
from asyncline.engine.lanes.accelerator import Accelerator
from asyncline.errors import LoadError


def open_accelerator(device: str, library: Literal["torch", "pycuda"] | None = None) -> Accelerator:
    """An Accelerator, entered by the calling thread.

    :param device: `cuda` or `cuda:1`.
    :param library: by default torch where it is installed, else pycuda.
    :raises LoadError: the device is not there, or neither library is.
    """
    index = cuda_index(device)
    if index is None:
        raise LoadError(f"{device} is no CUDA device: use cuda or cuda:1")
    if library is None:
        library = "torch" if importlib.util.find_spec("torch") is not None else "pycuda"
    accelerator: Accelerator = TorchAccelerator(index) if library == "torch" else PycudaAccelerator(index)
    accelerator.enter()
    return accelerator
