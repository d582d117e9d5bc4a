"""Small torch models; also what `module:attr` names in the tests."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")


class Linear(torch.nn.Module):
    """`[n, 2]` of `x [n, 4]`; the weights are 0 to 7."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.linear.weight.copy_(torch.arange(8.0).reshape(2, 4))

    def forward(self, x):  # no annotations: TorchScript would read them
        return self.linear(x)


class Two(torch.nn.Module):
    """A dict of `sum` and `product`, of two inputs and an option."""

    def forward(self, left: Any, right: Any, scale: float = 1.0) -> Any:
        return {"sum": (left + right) * scale, "product": left * right}


class Convolution(torch.nn.Module):
    """Images `[n, 3, 8, 8]` to feature maps `[n, 4, 8, 8]` and their means `[n, 4]`; says how they were laid out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.seen: list[tuple[Any, bool]] = []

    def forward(self, image: Any) -> Any:
        self.seen.append((image.dtype, image.is_contiguous(memory_format=torch.channels_last)))
        features = self.convolution(image)
        return features, features.mean((2, 3))


class Same(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return x


class Made(torch.nn.Module):
    """What a function makes of `x`."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Any) -> Any:
        return self.make(x)


linear = Linear()
no_model = "a string"


def export(path: Any, batch: Any = None, **options: Any) -> Any:
    """Linear, exported: an open batch, of at most 64 rows."""
    shape = {"x": {0: torch.export.Dim("batch", min=1, max=64) if batch is None else batch}}
    program = torch.export.export(Linear().eval(), (torch.zeros(3, 4),), dynamic_shapes=shape)
    torch.export.save(program, path)
    return path
