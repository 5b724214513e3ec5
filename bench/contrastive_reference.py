"""Contrastive search (https://arxiv.org/abs/2202.06417) in plain PyTorch with a cache: the definition, as one
would write it for speed without a kernel of one's own."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize


@torch.inference_mode()
def search(model, ids: torch.Tensor, alpha: float, top_k: int, count: int) -> torch.Tensor:
    """One row ``ids`` (1, T) and ``count`` new tokens."""
    outputs = model(ids, use_cache=True, output_hidden_states=True, logits_to_keep=1)
    cache, logits = outputs.past_key_values, outputs.logits[:, -1]
    past = normalize(outputs.hidden_states[-1], dim=-1)
    for _ in range(count):
        chances, candidates = logits.softmax(-1)[0].topk(top_k)
        cache.batch_repeat_interleave(top_k)
        outputs = model(candidates[:, None], past_key_values=cache, use_cache=True, output_hidden_states=True)
        states = normalize(outputs.hidden_states[-1], dim=-1)
        penalty = (states @ past.transpose(1, 2)).amax(-1)[:, 0]
        best = ((1 - alpha) * chances - alpha * penalty).argmax()[None]
        cache.batch_select_indices(best)
        past = torch.cat((past, states[best]), 1)
        logits = outputs.logits[best, -1]
        ids = torch.cat((ids, candidates[best][None]), 1)
    return ids
