"""Loaded models. Heavy packages are imported here only, and only when a Session is made.

base.py   Session: the contract
onnx.py   OnnxSession: onnxruntime on the CPU
"""

from asyncline.backends.base import Session, TensorInfo
from asyncline.backends.onnx import OnnxSession

__all__ = ["OnnxSession", "Session", "TensorInfo"]
