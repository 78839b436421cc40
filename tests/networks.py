"""ResNet-50 as tests and benchmarks train it: seeded random weights, features as they are."""

from functools import partial

import torch
from torch import nn
from torchvision.models import resnet50

from swabench.study.inputs import BackboneSettings
from swabench.study.stages import Boundary
from swabench.training.backbone import Standardize, load_backbone, trained_part

MNISTS = ((0.1307,), (0.3081,))
"""Mean and deviation of MNIST's pixels."""

narrow_resnet50 = partial(resnet50, width_per_group=4)
"""Narrow within its blocks, as wide as ever between them: 3 million weights, not 24."""


def resnet50_above(boundary: Boundary, classes: int = 10) -> nn.Sequential:
    """The layers that train, with a final layer that is the same every time."""
    standardize = Standardize.identity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return trained_part(load_backbone(BackboneSettings()), boundary, standardize, classes)
