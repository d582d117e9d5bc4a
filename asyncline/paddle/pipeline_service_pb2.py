"""The messages under the names that Paddle's module of this name has."""

from asyncline.wire.paddle import PaddleTensor as Tensor
from asyncline.wire.paddle import PipelineRequest as Request
from asyncline.wire.paddle import PipelineResponse as Response

__all__ = ["Request", "Response", "Tensor"]
