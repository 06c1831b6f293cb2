"""AdamW over fp32 masters of what is trained, and the learning rate as a function of the iteration alone."""

import math
from collections.abc import Mapping

import torch

from app.core.tuning_spec import TrainingPlan

MOST_GRADIENT_NORM = 1.0
"""As transformers' Trainer has it."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


def learning_rate(plan: TrainingPlan, iteration: int) -> float:
    """Of an iteration, counted from 0; the same curves as transformers' schedules."""
    if iteration < plan.warmup_iterations:
        return plan.learning_rate * iteration / plan.warmup_iterations
    done = (iteration - plan.warmup_iterations) / max(1, plan.iterations - plan.warmup_iterations)
    match plan.schedule:
        case "constant":
            return plan.learning_rate
        case "linear":
            return plan.learning_rate * (1 - done)
        case "cosine":
            return plan.learning_rate * (1 + math.cos(math.pi * done)) / 2


class Masters:
    """fp32 weights that the optimizer changes, and fp32 sums of their gradients over an iteration's passes.

    A parameter in bf16 is a rounded copy of its master: what one update changes is often less than bf16 can tell.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], weight_decay: float) -> None:
        self._parameters = dict(parameters)
        self._masters = {name: parameter.detach().float() for name, parameter in self._parameters.items()}
        for name, parameter in self._parameters.items():
            self._masters[name].grad = torch.zeros_like(self._masters[name])
            parameter.register_post_accumulate_grad_hook(_Collect(self._masters[name]))
        decayed = [master for master in self._masters.values() if master.dim() > 1]
        others = [master for master in self._masters.values() if master.dim() <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW([group for group in groups if group["params"]], fused=True)

    @property
    def gradients(self) -> list[torch.Tensor]:
        """Of the iteration so far, in the order of the parameters."""
        return [master.grad for master in self._masters.values() if master.grad is not None]

    def step(self, rate: float) -> float:
        """One update from the collected gradients, which are 0 afterwards. Their norm before it was clipped."""
        norm = float(torch.nn.utils.clip_grad_norm_(list(self._masters.values()), MOST_GRADIENT_NORM))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        for gradient in self.gradients:
            gradient.zero_()
        self._round()
        return norm

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that a later process needs to go on as if it were this one; copies, on the CPU."""
        state = {f"weight/{name}": master for name, master in self._masters.items()}
        for name, master in self._masters.items():
            of_one = self._optimizer.state.get(master, {})
            state |= {f"{kind}/{name}": of_one[kind] for kind in (*_MOMENTS, "step") if kind in of_one}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """What `state` gave. Raises KeyError, RuntimeError for another model's."""
        for name, master in self._masters.items():
            master.data.copy_(state[f"weight/{name}"])
            if f"step/{name}" in state:
                of_one = {kind: state[f"{kind}/{name}"].to(master.device, copy=True) for kind in _MOMENTS}
                self._optimizer.state[master] = of_one | {"step": state[f"step/{name}"].to(master.device, copy=True)}
        self._round()

    def _round(self) -> None:
        for name, parameter in self._parameters.items():
            if parameter.dtype != torch.float32:
                parameter.data.copy_(self._masters[name])


class _Collect:
    """Adds a parameter's gradient to its master's as soon as it is complete, and frees it."""

    def __init__(self, master: torch.Tensor) -> None:
        self._master = master

    def __call__(self, parameter: torch.nn.Parameter) -> None:
        assert parameter.grad is not None
        assert self._master.grad is not None
        self._master.grad.add_(parameter.grad)
        parameter.grad = None
