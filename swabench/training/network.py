"""The learner of `trainable: layer4 | all`: one network, trained by torch.optim.

BatchNorm is this module's own affair: while training a layer normalises by its minibatch and
keeps running statistics; predictions are made with statistics measured anew, so that no row of a
table differs from another by that alone.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swabench.study.inputs import Precision, SplitName
from swabench.study.optimizers import Optimizer
from swabench.system.device import exact_float32, is_out_of_memory
from swabench.system.errors import first_line
from swabench.training.batchnorm import mixed_batches, reestimated_statistics
from swabench.training.convolution import lay_out, memory_format
from swabench.training.flat import adopt, adopt_convolutions, as_in_vector, batchnorm_layers
from swabench.training.graph import CudaGraph
from swabench.training.learner import Splits
from swabench.training.optimizers import HasResult, vector_optimizer
from swabench.training.state import State, cloned, put

Mode = Literal["training", "training, BatchNorm fixed", "evaluation"]


class NetworkLearner:
    """One network (R = 1).

    All parameters lie in one vector, their gradients in another; so do the BatchNorm statistics.

    Args:
        network: What trains; any module. Its parameters' values are not looked at.
        splits: What `frozen` takes, or the network itself where there is none; and labels.
        weights: Starting weights, shape (P,), as `flat.flatten` orders them.
        statistics: Starting BatchNorm statistics, shape (S,).
        optimizer: The update rule.
        frozen: Layers below the boundary, run anew each step; None where inputs are cached.
        batchnorm_steps: Steps in which BatchNorm trains: normalises by the minibatch and tracks
            running statistics. None for all; after them, and with 0 always, it is a fixed map,
            and an average shares the iterate's statistics.
        precision: Number format of the forward and backward pass in training; the weights, their
            updates, the averages and all that is measured keep their own.
        evaluation_batch: Images at a time where nothing trains.
        minibatch: Images of a whole minibatch, whose steps a GPU replays; by default the first's.
        say: Takes a line where something is done in another way than planned.

    Raises:
        InputError: There is no such optimizer.
    """

    trajectories = 1

    def __init__(
        self,
        network: nn.Module,
        splits: Splits,
        weights: Tensor,
        statistics: Tensor,
        optimizer: Optimizer,
        *,
        frozen: nn.Module | None = None,
        batchnorm_steps: int | None = None,
        precision: Precision = "float32",
        evaluation_batch: int = 1000,
        minibatch: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._device = splits["train"].labels.device
        self._weights = weights.to(self._device, copy=True)
        self._statistics = statistics.to(self._device, copy=True)
        self._gradient = torch.zeros_like(self._weights)
        self._network = network.to(self._weights).eval()
        adopt(self._network, self._weights, self._statistics)
        self._precision: Precision = precision
        self._prepare_training()
        self._splits = splits
        self._frozen = lay_out(frozen or nn.Identity(), self._device)
        self._frozen.eval().requires_grad_(False)
        self._batchnorm_steps = batchnorm_steps
        self._evaluation_batch = evaluation_batch
        self._minibatch = minibatch
        self._optimizer = vector_optimizer(optimizer, self._weights)
        self._steps = 0
        self._modes: dict[nn.Module, Mode] = {}
        self._say = say
        self._replays = self._device.type == "cuda"
        self._graph: tuple[bool, CudaGraph] | None = None

    def weights(self) -> Tensor:
        """The iterate's weights now, shape (1, P); a copy."""
        return self._result().clone().unsqueeze(0)

    @property
    def reestimates(self) -> bool:
        """Whether BatchNorm trains throughout, so that its statistics are re-estimated."""
        return self._batchnorm_steps is None

    def step(self, rows: Tensor, rates: Tensor) -> None:
        """Take one step on training rows (B,) at rates (1,)."""
        trains = self._batchnorm_trains()
        if self._replays:
            self._replay_backward(rows, trains)
        else:
            self._backward(rows)
        self._set_rate(rates[0])
        self._optimizer.step()
        self._steps += 1

    def restart(self, trajectory: int, weights: Tensor) -> None:
        """Put an average (P,) in place of the iterate: momentum zero, BatchNorm re-estimated."""
        _, statistics = self.predict([], weights.unsqueeze(0))
        self._statistics.copy_(statistics[0])
        self._weights.copy_(weights)
        for state in self._optimizer.state.values():
            for value in state.values():  # Adam's count of steps, too
                if torch.is_tensor(value):
                    value.zero_()
        if isinstance(self._optimizer, HasResult):
            self._optimizer.begin_anew()

    def state(self) -> State:
        """Weights, running statistics, what the optimizer gathered, and the count of steps."""
        return {
            "vectors": [self._weights, self._statistics],
            "optimizer": self._optimizer.state_dict(),
            "steps": self._steps,
        }

    def load_state(self, state: State) -> None:
        """Go on from there."""
        put([self._weights, self._statistics], state["vectors"])
        self._optimizer.load_state_dict(cloned(state["optimizer"]))
        self._steps = state["steps"]

    def predict(
        self, splits: Sequence[SplitName], weights: Tensor | None = None, *, running: bool = False
    ) -> tuple[list[Tensor], Tensor]:
        """Class scores of whole splits, (K, N, C) each, and BatchNorm's statistics, (K, S).

        Statistics are re-estimated for each of K weights (K, P), or for the iterate, K = 1; the
        iterate's running ones serve where `running` asks for them, or BatchNorm does not train.
        """
        every = [None] if weights is None else list(weights)
        found = [self._predict(splits, each, running) for each in every]
        scores = zip(*(scores for scores, _ in found), strict=True)
        statistics = torch.stack([statistics for _, statistics in found])
        return [torch.stack(of_split) for of_split in scores], statistics

    # --- training --------------------------------------------------------------------------

    def _set_rate(self, rate: Tensor) -> None:
        group = self._optimizer.param_groups[0]
        # A fused step takes a tensor: a number would make a GPU wait for it.
        group["lr"] = rate if group.get("fused") else rate.item()

    def _result(self) -> Tensor:
        """The weights that are measured and kept, shape (P,)."""
        optimizer = self._optimizer
        return optimizer.result() if isinstance(optimizer, HasResult) else self._weights

    def _prepare_training(self) -> None:
        """Decide what steps go through: the network, or a copy of it in another precision."""
        self._trained = self._network
        self._rounded: Tensor | None = None
        if self._precision == "bfloat16":
            # Rounded in one go; autocast would do it layer by layer, and back for the gradients.
            self._rounded = self._weights.bfloat16()
            self._trained = copy.deepcopy(self._network)
            adopt(self._trained, self._weights, self._statistics)
            adopt_convolutions(self._trained, self._rounded)
        self._parameters = list(self._trained.parameters())
        self._gradients = self._gradient.split([p.numel() for p in self._parameters])
        self._weights.grad = self._gradient

    def _batchnorm_trains(self) -> bool:
        """Bring what trains into its mode for the coming step; says whether BatchNorm trains."""
        trains = self._batchnorm_steps is None or self._steps < self._batchnorm_steps
        self._bring_into(self._trained, "training" if trains else "training, BatchNorm fixed")
        return trains

    def _bring_into(self, network: nn.Module, mode: Mode) -> None:
        if mode == self._modes.get(network):  # a walk through all modules takes its time
            return
        network.train(mode != "evaluation")
        for layer in batchnorm_layers(network).values():
            layer.train(mode == "training")
        self._modes[network] = mode

    def _backward(self, rows: Tensor) -> None:
        """The gradient of the minibatch's mean cross-entropy, into the gradients' vector."""
        train = self._splits["train"]
        if self._rounded is not None:
            self._rounded.copy_(self._weights)
        scores = self._scores_in_training(train.inputs.index_select(0, rows))
        loss = F.cross_entropy(scores, train.labels.index_select(0, rows))
        # Not `backward`, which would add to a vector of zeros.
        found = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        # Those of a type at a time: so each is one kernel.
        for dtype in {each.dtype for each in found}:
            pairs = zip(self._gradients, found, strict=True)
            some = [(part, as_in_vector(each)) for part, each in pairs if each.dtype == dtype]
            torch._foreach_copy_([part for part, _ in some], [each for _, each in some])

    def _scores_in_training(self, raw: Tensor) -> Tensor:
        inputs = self._inputs(raw)
        # Weights are used once in a pass: a cache of cast ones would only stand in a graph's way.
        with torch.autocast(
            self._device.type,
            torch.bfloat16,
            enabled=self._precision == "bfloat16",
            cache_enabled=False,
        ):
            scores: Tensor = self._trained(inputs)
        return scores.to(self._weights.dtype)

    def _replay_backward(self, rows: Tensor, trains: bool) -> None:
        """The same through a CUDA graph; a smaller minibatch, the epoch's last, is run as it is."""
        self._minibatch = self._minibatch or len(rows)
        if len(rows) != self._minibatch:
            self._backward(rows)
            return
        if self._graph is None or self._graph[0] != trains:
            self._graph = None  # so that the memory of two is never held at once
            self._graph = self._captured(rows, trains)
        if self._graph:
            self._graph[1](rows)
        else:
            self._backward(rows)

    def _captured(self, rows: Tensor, trains: bool) -> tuple[bool, CudaGraph] | None:
        """A graph of the backward pass; None where it cannot be captured, and then never again."""
        kept = self._statistics.clone()
        try:
            return trains, CudaGraph(self._backward, rows)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._replays = False
            reason = first_line(error)
            self._say(f"training goes on without a CUDA graph, which takes longer: {reason}")
            return None
        finally:
            self._statistics.copy_(kept)

    # --- evaluation ------------------------------------------------------------------------

    @torch.no_grad()
    @exact_float32()
    def _predict(
        self, splits: Sequence[SplitName], weights: Tensor | None, running: bool
    ) -> tuple[list[Tensor], Tensor]:
        """Scores (N, C) of splits, and the statistics (S,) that they were made with."""
        if weights is None and isinstance(self._optimizer, HasResult):
            weights = self._optimizer.result()
        kept = self._weights.clone() if weights is not None else None
        tracked = self._statistics.clone()
        if weights is not None:
            self._weights.copy_(weights)
        try:
            if self.reestimates and not running:
                self._reestimate()
            return self._scores(splits), self._statistics.clone()
        finally:
            if kept is not None:
                self._weights.copy_(kept)
            self._statistics.copy_(tracked)

    def _reestimate(self) -> None:
        """Measure BatchNorm's statistics anew, in one pass over the training images."""
        train = self._splits["train"]
        self._bring_into(self._network, "evaluation")
        with reestimated_statistics(self._network):
            for rows in mixed_batches(len(train), self._evaluation_batch):
                self._network(self._inputs(train.inputs.index_select(0, rows.to(self._device))))

    def _scores(self, splits: Sequence[SplitName]) -> list[Tensor]:
        self._bring_into(self._network, "evaluation")
        found = []
        for name in splits:
            batches = self._splits[name].inputs.split(self._evaluation_batch)
            found.append(torch.cat([self._network(self._inputs(batch)) for batch in batches]))
        return found

    def _inputs(self, raw: Tensor) -> Tensor:
        """What the network takes, of what the splits hold."""
        with torch.no_grad(), exact_float32():  # as where these layers' outputs are cached
            inputs: Tensor = self._frozen(raw).to(self._weights.dtype)
        if inputs.dim() == 4:
            inputs = inputs.contiguous(memory_format=memory_format(self._device))
        return inputs
