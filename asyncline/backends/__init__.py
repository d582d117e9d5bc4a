"""Loaded models. Heavy packages are imported here only, and only when a Session is made.

base.py             Session: the contract; TensorInfo, ModelInfo
model.py            Model: a model file as an Op
joined.py           batches of requests that are batches, and of samples that differ in length
source.py           what a Model can be made of: files, Modules, functions
onnx.py             OnnxSession: onnxruntime on the CPU and CUDA
onnx_file.py        what an ONNX file says of itself, read without loading it
torch.py            TorchSession: Modules, TorchScript, exported programs
torch_file.py       what an exported program says of itself
tensorrt.py         TensorRTSession: engines, by TensorRT 10 or 11
tensorrt_build.py   building engines, and keeping them
device.py           DeviceSession: a Session that a lane can pipeline
torch_cuda.py       Accelerator (asyncline/engine/lanes/accelerator.py) by torch
pycuda.py           the same by pycuda
cuda.py             open_accelerator: one of the two
fake.py             FakeSession: takes as long, and fails, as it is told
fake_cuda.py        FakeAccelerator: a CUDA device that is not there
"""

from asyncline.backends.base import ModelInfo, Session, TensorInfo
from asyncline.backends.fake import FakeSession
from asyncline.backends.model import Model, describe, request_for
from asyncline.backends.onnx import OnnxSession
from asyncline.backends.tensorrt import TensorRTSession
from asyncline.backends.tensorrt_build import BuildOptions
from asyncline.backends.torch import TorchSession

__all__ = [
    "BuildOptions",
    "FakeSession",
    "Model",
    "ModelInfo",
    "OnnxSession",
    "Session",
    "TensorInfo",
    "TensorRTSession",
    "TorchSession",
    "describe",
    "request_for",
]
