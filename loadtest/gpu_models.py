"""ViT-B/16 and ResNet-50 with random weights: as much work as the real ones, and as many parameters.

Both take images as they come from a decoder, uint8, and convert them on the device: a quarter of the bytes of fp32
cross the bus. `[n, HEIGHT, 3 * WIDTH]`, the colours of a pixel side by side, to `[n, CLASSES]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HEIGHT = WIDTH = 224
CLASSES = 1000


@dataclass(frozen=True)
class Kind:
    """A network to measure with."""

    name: str
    source: str
    """`module:attr` of the function that makes it."""
    parameters: int
    """How many the original has."""
    gflop: float
    """Of one image: two for each multiplication of the original with its addition."""


class Pixels(nn.Module):
    """uint8 `[n, HEIGHT, 3 * WIDTH]` to `[n, 3, HEIGHT, WIDTH]` in the dtype of the weights, channels last."""

    def __init__(self) -> None:
        super().__init__()
        # Of ImageNet, in steps of 8 bit.
        self.register_buffer("mean", 255 * torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("scale", 1 / (255 * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)))

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.view(-1, HEIGHT, WIDTH, 3).permute(0, 3, 1, 2)
        return (pixels.to(self.mean.dtype) - self.mean) * self.scale


class Bottleneck(nn.Module):
    """Three convolutions and a way around them."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.ways = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.around: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.around = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.ways(x) + self.around(x))


class ResNet50(nn.Module):
    """He et al. 2015, with the stride in the 3 × 3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            Pixels(),
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        inputs = 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for block in range(blocks):
                layers.append(Bottleneck(inputs, width, stride if block == 0 else 1))
                inputs = width * Bottleneck.expansion
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images).mean((2, 3)))


class Block(nn.Module):
    """One layer of a transformer, normalised before attention and before the two linear ones."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width, eps=1e-6)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        split = self.query_key_value(self.before_attention(x)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        attention = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attended(attention.transpose(1, 2).reshape(rows, length, width))
        return x + self.mlp(x)


class ViTB16(nn.Module):
    """Dosovitskiy et al. 2020: patches of 16 × 16, 12 layers of 768 with 12 heads."""

    def __init__(self) -> None:
        super().__init__()
        width, patch = 768, 16
        self.pixels = Pixels()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) / 50)
        self.places = nn.Parameter(torch.randn(1, 1 + (HEIGHT // patch) * (WIDTH // patch), width) / 50)
        self.blocks = nn.Sequential(*(Block(width, 12) for _ in range(12)))
        self.normalised = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patches(self.pixels(images)).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(patches.shape[0], -1, -1), patches], 1) + self.places
        return self.head(self.normalised(self.blocks(x))[:, 0])


def vit_b_16() -> nn.Module:
    return _made(ViTB16)


def resnet_50() -> nn.Module:
    return _made(ResNet50)


def _made(kind: Callable[[], nn.Module]) -> Any:
    """The same weights each time, laid out as convolutions like them on CUDA."""
    torch.manual_seed(0)
    return kind().eval().to(memory_format=torch.channels_last)


VIT = Kind("ViT-B/16", "loadtest.gpu_models:vit_b_16", 86_567_656, 35.2)
RESNET = Kind("ResNet-50", "loadtest.gpu_models:resnet_50", 25_557_032, 8.2)
