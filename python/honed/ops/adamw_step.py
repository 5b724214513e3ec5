"""One step of the AdamW optimizer."""

from honed._lib import _core, torch


def adamw_step(
    params,
    grads,
    exp_avgs,
    exp_avg_sqs,
    *,
    step,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=1e-2,
    maximize=False,
    max_exp_avg_sqs=None,
    master=None,
    grad_scale=1.0,
):
    """Updates parameters and their averages in place, all tensors in one region of threads.

    With t the number of the step, m the average of gradients and v that of their squares::

        p = p (1 - lr weight_decay)
        m = m + (1 - beta1) (g - m)
        v = v beta2 + (1 - beta2) g^2
        p = p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    in the order of ``torch.optim.AdamW``. It takes lists and writes into them, so it is no op of torch's
    registry: ``torch.compile`` breaks the graph there. :class:`honed.train.AdamW` is the optimizer made of
    it.

    Args:
        params: list of dense tensors or NumPy arrays, float64, float32, float16 or bfloat16, of any and
            different shapes.
        grads: list of tensors of the same shapes and strides, of the parameters' types or float32 beside 16
            bits.
        exp_avgs, exp_avg_sqs: m and v, likewise; zeros before the first step.
        step: t, counted from 1; or a list of tensors of one float number, how many steps each parameter has
            taken, which are counted up.
        lr, betas, eps, weight_decay: numbers.
        maximize: ascends instead.
        max_exp_avg_sqs: list of the largest v so far, which take v's place under the root (AMSGrad), or
            ``None``.
        master: list of float32 copies of 16-bit parameters, or ``None``. The copy is updated and the
            parameter is its rounding, so that steps smaller than the parameter's last place are not lost.
        grad_scale: gradients are divided by it; the tensors in ``grads`` are not written.

    Raises:
        ValueError: shapes or strides that do not fit, read-only memory, tensors that overlap, negated views.
        TypeError: a type without a kernel.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.AdamW.html,
        https://arxiv.org/abs/1711.05101

    >>> import numpy as np
    >>> p, g, m, v = np.ones(2), np.array([1.0, -3.0]), np.zeros(2), np.zeros(2)
    >>> adamw_step([p], [g], [m], [v], step=1, lr=0.1, weight_decay=0.0)
    >>> p.round(6).tolist()
    [0.9, 1.1]
    """
    params, exp_avgs, exp_avg_sqs = list(params), list(exp_avgs), list(exp_avg_sqs)
    max_exp_avg_sqs, master = (None if t is None else list(t) for t in (max_exp_avg_sqs, master))
    _core.adamw_step(
        params,
        list(grads),
        exp_avgs,
        exp_avg_sqs,
        max_exp_avg_sqs,
        master,
        float(step) if isinstance(step, (int, float)) else list(step),
        lr,
        *betas,
        eps,
        weight_decay,
        maximize,
        grad_scale,
    )
    if torch is not None and params and isinstance(params[0], torch.Tensor):
        # Written behind torch's back: packed copies and saved tensors must notice.
        written = (params, exp_avgs, exp_avg_sqs, max_exp_avg_sqs or (), master or ())
        torch.autograd.graph.increment_version([t for tensors in written for t in tensors])
