"""Independent references for training: torch's own optimizer and averaging, one run at a time."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    StepLR,
)
from torch.optim.swa_utils import AveragedModel

from swabench.study.averaging import Newest
from swabench.study.methods import Method
from swabench.study.optimizers import SGD
from swabench.study.schedules import (
    Constant,
    Cosine,
    Cyclical,
    Linear,
    Multiplicative,
    Triangular,
)

Batches = Sequence[Sequence[Tensor]]


def linear(weights: Tensor, classes: int) -> nn.Linear:
    """A torch Linear with the given flat weights."""
    features = len(weights) // classes - 1
    layer = nn.Linear(features, classes, dtype=weights.dtype)
    with torch.no_grad():
        layer.weight.copy_(weights[: classes * features].view(classes, features))
        layer.bias.copy_(weights[classes * features :])
    return layer


def flat(module: nn.Module) -> Tensor:
    """A module's parameters as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def one_at_a_time(
    method: Method,
    start: Tensor,
    inputs: Tensor,
    labels: Tensor,
    batches: Batches,
    settings: SGD,
    classes: int,
) -> tuple[Tensor, Tensor]:
    """Train one head the usual way: torch.optim.SGD, torch's schedulers, AveragedModel.

    Returns:
        Final weights of the iterate and of the average (the iterate's where there is no plan).
    """
    model = linear(start, classes)
    plan = method.averaging
    phases = plan.phases if plan else 1
    averaged = AveragedModel(model)
    for phase in range(phases):
        if phase > 0:
            model.load_state_dict(averaged.module.state_dict())
        optimizer, scheduler, per_epoch = torch_optimizer(model, method, settings, len(batches[0]))
        averaged = AveragedModel(model)
        if getattr(plan, "include_start", False):
            averaged.update_parameters(model)
        length = len(batches) // phases
        every = round(plan.capture_every_epochs * len(batches[0])) if plan else 0
        steps = 0
        for epoch in batches[phase * length : (phase + 1) * length]:
            for rows in epoch:
                optimizer.zero_grad()
                F.cross_entropy(model(inputs[rows]), labels[rows]).backward()
                optimizer.step()
                steps += 1
                if plan and steps % every == 0:
                    averaged.update_parameters(model)
                if not per_epoch:
                    scheduler.step()
            if per_epoch:
                scheduler.step()
    return flat(model), flat(averaged.module) if plan else flat(model)


def torch_optimizer(
    model: nn.Module, method: Method, settings: SGD, steps: int, epochs: int = 1
) -> tuple[torch.optim.SGD, LRScheduler, bool]:
    rate = method.rate
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=1.0,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
    )
    for group in optimizer.param_groups:
        group["lr"] = getattr(rate, "learning_rate", 1.0)
    match rate:
        case Constant():
            return optimizer, LambdaLR(optimizer, lambda epoch: 1.0), True
        case Multiplicative():
            return optimizer, StepLR(optimizer, rate.every_epochs, rate.factor), True
        case Triangular():
            scheduler = CyclicLR(
                optimizer, rate.low, rate.high, rate.up_epochs, rate.down_epochs,
                cycle_momentum=False,
            )  # fmt: skip
            return optimizer, scheduler, True
        case Linear():
            return optimizer, LinearLR(optimizer, 1.0, 0.0, steps * epochs), False
        case Cosine():
            return optimizer, CosineAnnealingLR(optimizer, steps * epochs), False
        case Cyclical():
            return optimizer, LambdaLR(optimizer, sawtooth(rate, steps)), False
        case _:
            raise NotImplementedError(rate.schedule)


def network_one_at_a_time(
    method: Method,
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    batches: Batches,
    settings: SGD,
    statistics_batches: Sequence[Tensor],
) -> tuple[nn.Module, nn.Module]:
    """Train a network the usual way, and give its average exact BatchNorm statistics.

    Returns:
        The iterate, with its running statistics, and the average with re-estimated ones.
    """
    model = copy.deepcopy(network)
    plan = method.averaging
    phases = plan.phases if plan else 1
    averaged = AveragedModel(model)
    for phase in range(phases):
        if phase > 0:
            exact_batchnorm(averaged.module, inputs, statistics_batches)
            model.load_state_dict(averaged.module.state_dict())
        optimizer, scheduler, per_epoch = torch_optimizer(model, method, settings, len(batches[0]))
        averaged = AveragedModel(model)
        if getattr(plan, "include_start", False):
            averaged.update_parameters(model)
        length = len(batches) // phases
        for epoch in batches[phase * length : (phase + 1) * length]:
            model.train()
            for rows in epoch:
                optimizer.zero_grad()
                F.cross_entropy(model(inputs[rows]), labels[rows]).backward()
                optimizer.step()
                if not per_epoch:
                    scheduler.step()
            if per_epoch:
                scheduler.step()
            if isinstance(plan, Newest):
                averaged = AveragedModel(model)
            elif plan:
                averaged.update_parameters(model)
    average = averaged.module if plan else copy.deepcopy(model)
    if plan:
        exact_batchnorm(average, inputs, statistics_batches)
    return model.eval(), average.eval()


def exact_batchnorm(network: nn.Module, inputs: Tensor, batches: Sequence[Tensor]) -> None:
    """Set BatchNorm's statistics to mean and variance of all that reaches each layer, in float64.

    Everything that reaches a layer in one pass in training mode is kept and then measured whole.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    seen: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}

    def note(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen[layer].append(arguments[0].detach().double().transpose(0, 1).flatten(1))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    network.train()
    with torch.no_grad():
        for rows in batches:
            network(inputs[rows])
    for layer, hook in zip(layers, hooks, strict=True):
        hook.remove()
        variance, mean = torch.var_mean(torch.cat(seen[layer], dim=1), dim=1)
        layer.get_buffer("running_mean").copy_(mean)
        layer.get_buffer("running_var").copy_(variance)
    network.eval()


def sawtooth(rate: Cyclical, steps_per_epoch: int) -> Callable[[int], float]:
    """α(i) of Izmailov et al. (section 3.1), written out; torch counts i from 0."""
    c = round(rate.cycle_epochs * steps_per_epoch)

    def alpha(done: int) -> float:
        i = done + 1
        t = ((i - 1) % c + 1) / c
        return (1 - t) * rate.high + t * rate.low

    return alpha


def algorithm_1(
    w: Tensor, gradient: Callable[[int, Tensor], Tensor], alpha: Callable[[int], float], c: int,
    iterations: range,
) -> Tensor:  # fmt: skip
    """Algorithm 1 of the paper, line by line (its i counts from 1 within `iterations`)."""
    w_swa = w
    for i, iteration in enumerate(iterations, start=1):
        w = w - alpha(i) * gradient(iteration, w)
        if i % c == 0:
            n_models = i // c
            w_swa = (w_swa * n_models + w) / (n_models + 1)
    return w_swa


def algorithm_2(
    w: Tensor, gradient: Callable[[int, Tensor], Tensor], alpha: Callable[[int], float], c: int,
    n: int, p: int,
) -> Tensor:  # fmt: skip
    """Algorithm 2 of the paper, line by line."""
    for phase in range(p):
        w = algorithm_1(w, gradient, alpha, c, range(phase * (n // p), (phase + 1) * (n // p)))
    return w
