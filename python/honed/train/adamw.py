"""AdamW in one pass over memory for all parameters."""

from __future__ import annotations

import torch

from honed import ops

_TYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_HALVES = (torch.float16, torch.bfloat16)
_STATES = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "master")


class AdamW(torch.optim.AdamW):
    """``torch.optim.AdamW`` by :func:`honed.ops.adamw_step`.

    Same constructor, parameter groups, state and ``state_dict``: either loads what the other saved.
    Parameters that the kernel does not take (complex, on another device, of another class, with gaps in
    memory) and groups with ``capturable`` or ``differentiable`` are stepped by torch. ``foreach`` and
    ``fused`` choose among torch's implementations and matter to those only. ``torch.amp.GradScaler`` is
    divided out in the same pass; gradients themselves stay scaled.

    Args:
        params, lr, betas, eps, weight_decay, amsgrad, maximize, foreach, capturable, differentiable, fused:
            as ``torch.optim.AdamW`` has them.
        master_weights: float16 and bfloat16 parameters get a float32 copy that is updated in their place
            (state ``"master"``), and float32 averages. Without it averages have the parameter's type, as in
            torch.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html

    >>> layer = torch.nn.Linear(3, 1)
    >>> optimizer = AdamW(layer.parameters(), lr=0.1)
    >>> before = layer(torch.ones(3)).item()
    >>> layer(torch.ones(3)).sum().backward()
    >>> optimizer.step()
    >>> layer(torch.ones(3)).item() < before
    True
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2, *args, **kwargs):
        master_weights = kwargs.pop("master_weights", False)
        super().__init__(params, lr, betas, eps, weight_decay, *args, **kwargs)
        self.defaults["master_weights"] = master_weights
        for group in self.param_groups:
            group.setdefault("master_weights", master_weights)
        self._step_supports_amp_scaling = True

    def __setstate__(self, state):
        super().__setstate__(state)
        self._step_supports_amp_scaling = True
        for group in self.param_groups:
            group.setdefault("master_weights", self.defaults.get("master_weights", False))

    def load_state_dict(self, state_dict):
        """As torch's, but float32 states of 16-bit parameters stay float32."""
        super().load_state_dict(state_dict)
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        mine = [p for group in self.param_groups for p in group["params"]]
        for i, p in zip(saved, mine, strict=True):
            for name, value in state_dict["state"].get(i, {}).items():
                if name in _STATES and p.dtype in _HALVES and value.dtype == torch.float32:
                    self.state[p][name] = torch.empty_like(p, dtype=torch.float32).copy_(value)

    @torch.no_grad()
    def step(self, closure=None):
        """One step; the loss that ``closure`` returns, if it is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found = getattr(self, "found_inf", None)
        scale = getattr(self, "grad_scale", None)
        if found is not None and found.item():
            return loss
        others = []
        for group in self.param_groups:
            whole = not (group["capturable"] or group["differentiable"])
            mine, copied = [], []  # copied: with a master
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not (whole and _fits(p)):
                    others.append(p)
                elif group["master_weights"] and p.dtype in _HALVES:
                    copied.append(p)
                else:
                    mine.append(p)
            for params, master in ((mine, False), (copied, True)):
                if params:
                    self._step_native(group, params, master, 1.0 if scale is None else float(scale))
        if others:
            self._step_by_torch(others, scale)
        return loss

    def _step_native(self, group, params, master, scale):
        amsgrad = group["amsgrad"]
        states = []
        for p in params:
            state = self.state[p]
            if not state or master:
                _begin(state, p, master, amsgrad)
            states.append(state)
        beta1, beta2 = group["betas"]
        ops.adamw_step(
            params,
            [p.grad if p.grad.stride() == p.stride() else _like(p.grad, p) for p in params],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            step=[s["step"] for s in states],
            lr=float(group["lr"]),
            betas=(float(beta1), float(beta2)),
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            maximize=group["maximize"],
            max_exp_avg_sqs=[s["max_exp_avg_sq"] for s in states] if amsgrad else None,
            master=[s["master"] for s in states] if master else None,
            grad_scale=scale,
        )

    def _step_by_torch(self, params, scale):
        """Those parameters only: the others' gradients are out of sight meanwhile."""
        wanted = {id(p) for p in params}
        hidden = []
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and id(p) not in wanted:
                    hidden.append((p, p.grad))
                    p.grad = None
        try:
            if scale is not None:
                for p in params:
                    p.grad.div_(scale.to(p.device))
            given = {n: self.__dict__.pop(n) for n in ("grad_scale", "found_inf") if n in self.__dict__}
            # torch's step without the hooks around it, which have run.
            torch.optim.AdamW.step.__wrapped__(self)
            self.__dict__.update(given)
        finally:
            for p, grad in hidden:
                p.grad = grad


def _fits(p) -> bool:
    """Whether the kernel takes a parameter and its gradient."""
    grad = p.grad
    if grad.is_sparse:
        raise RuntimeError("AdamW does not support sparse gradients, please consider SparseAdam instead")
    return (
        type(p) in (torch.nn.Parameter, torch.Tensor)
        and type(grad) in (torch.Tensor, torch.nn.Parameter)
        and p.dtype in _TYPES
        and (grad.dtype == p.dtype or (grad.dtype == torch.float32 and p.dtype in _HALVES))
        and p.is_cpu
        and not (p.is_neg() or grad.is_neg())
        and (p.is_contiguous() or torch.empty_like(p).stride() == p.stride())  # dense
    )


def _like(grad, p):
    """The gradient with its parameter's strides."""
    return torch.empty_like(p, dtype=grad.dtype).copy_(grad)


def _begin(state, p, master, amsgrad):
    """States that are not there yet, or narrower than they are to be."""
    dtype = torch.float32 if master else p.dtype
    if "step" not in state:
        state["step"] = torch.tensor(0.0, dtype=torch.get_default_dtype())
    for name in ("exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsgrad else [])):
        if name not in state:
            state[name] = torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)
        elif state[name].dtype != dtype:
            state[name] = state[name].to(dtype)
    # One that is narrower went through torch's optimizer, which has not stepped it.
    if master and state.get("master", p).dtype != torch.float32:
        state["master"] = p.detach().to(torch.float32)
