"""How much each input of a layer matters, without calibration data: from one pass over random tokens."""

from __future__ import annotations

import torch

from honed.hf.strategies import original_class

_TOKENS = 256


@torch.no_grad()
def input_importance(model, modules, limit: int) -> dict:
    """The mean square of what reaches each input of ``modules``, over one pass of random token ids.

    Random ids do as well as real text here: which inputs are large is a property of the weights (outlier
    channels). Weighing int4's rounding errors by it takes the perplexity of SmolLM2-135M, with its weights
    off their original 4-bit grid, from +21 % to +6 %; real text gives the same +6 %.
    """
    if not modules:
        return {}
    squares = {}

    def see(module, args):
        rows = args[0].detach().float().flatten(0, -2)
        squares[module] = rows.square().mean(0).nan_to_num(0.0, 1e20).clamp(max=1e20)

    hooks = [module.register_forward_pre_hook(see) for module in dict.fromkeys(modules)]
    ids = torch.randint(
        model.config.vocab_size, (1, min(_TOKENS, limit)), generator=torch.Generator().manual_seed(0)
    )
    # In training mode dropout would change what is measured, and draw from the caller's random numbers.
    training = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        original_class(model).forward(model, input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
        for module, flag in training:
            module.training = flag
    return squares
