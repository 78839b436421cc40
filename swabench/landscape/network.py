"""The loss of networks with flat weights, for the landscape: BatchNorm measured anew at each point.

A network's loss depends on BatchNorm's statistics, and statistics measured elsewhere say nothing
about these weights. So all training images of the landscape pass in one batch, which every layer
normalises by its own: the statistics of just these weights on just these images.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from swabench.landscape.geometry import Score
from swabench.study.inputs import SplitName
from swabench.training.batchnorm import reestimated_statistics
from swabench.training.convolution import lay_out, memory_format
from swabench.training.flat import parameter_views
from swabench.training.learner import Split, accuracy_and_loss, log_probabilities


def network_scores(
    network: nn.Module,
    frozen: nn.Module | None,
    training: Split,
    test: Split,
    *,
    evaluation_batch: int,
) -> dict[SplitName, Score]:
    """Scores of flat weights (K, P), by split; that of the training images can be differentiated.

    Args:
        network: The layers that train; its own weights are not looked at.
        frozen: Layers below them; None where the splits hold these layers' output.
        training: Images that BatchNorm is measured on and whose loss is the training loss.
        test: Images that the network with those statistics is tested on.
        evaluation_batch: Test images at a time.
    """
    device = training.labels.device
    layers = lay_out(network, device).requires_grad_(False)
    below = lay_out(frozen or nn.Identity(), device).eval().requires_grad_(False)

    def inputs(raw: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = below(raw).float()
        if found.dim() == 4:
            return found.contiguous(memory_format=memory_format(device))
        return found

    def predict(weights: Tensor, raw: Tensor) -> Tensor:
        logits: Tensor = functional_call(
            layers, dict(parameter_views(weights, layers)), inputs(raw)
        )
        return logits

    def train_logits(weights: Tensor) -> Tensor:
        layers.train()
        return predict(weights, training.inputs)

    @torch.no_grad()
    def test_logits(weights: Tensor) -> Tensor:
        with reestimated_statistics(layers):
            predict(weights, training.inputs)
        return torch.cat([predict(weights, part) for part in test.inputs.split(evaluation_batch)])

    return {
        "train": _score(train_logits, training.labels),
        "test": _score(test_logits, test.labels),
    }


def filter_normalized(direction: Tensor, weights: Tensor, network: nn.Module) -> Tensor:
    """A direction, shape (P,), as long as the weights (P,) in every filter (Li et al. 2018).

    A filter is what makes one channel of a convolution, or one class of the final layer. Biases
    and BatchNorm's own weights stand still. So a distance along it is a share of the weights' own
    norms, which mean nothing by themselves where BatchNorm follows: arXiv 1712.09913, section 4.
    """
    result = torch.zeros_like(direction)
    views = (dict(parameter_views(vector, network)) for vector in (direction, weights, result))
    drawn, own, target = views
    for name, view in target.items():
        if view.dim() > 1:
            others = tuple(range(1, view.dim()))
            norms = [
                torch.linalg.vector_norm(v[name], dim=others, keepdim=True) for v in (own, drawn)
            ]
            view.copy_(drawn[name] * (norms[0] / norms[1]))
    return result


def _score(logits: Callable[[Tensor], Tensor], labels: Tensor) -> Score:
    def score(weights: Tensor) -> tuple[Tensor, Tensor]:
        found = [
            accuracy_and_loss(log_probabilities(logits(one)).unsqueeze(0), labels)
            for one in weights
        ]
        accuracies, losses = zip(*found, strict=True)
        return torch.cat(accuracies), torch.cat(losses)

    return score
