"""A Net as a Module of torch; imported only where torch is installed."""

import torch

from loadtest import models_nets
from loadtest.models_nets import KERNEL


def conv_net() -> torch.nn.Module:
    net = models_nets.conv_net()
    layers: list[torch.nn.Module] = []
    for kernel, bias, stride in net.convolutions:
        layer = torch.nn.Conv2d(kernel.shape[1], kernel.shape[0], KERNEL, stride, KERNEL // 2)
        layers += [_with(layer, kernel, bias), torch.nn.ReLU()]
    layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    for weight, bias in net.dense:
        layers += [_with(torch.nn.Linear(weight.shape[1], weight.shape[0]), weight, bias), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def _with(layer: torch.nn.Module, weight: models_nets.Array, bias: models_nets.Array) -> torch.nn.Module:
    layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    return layer
