"""DoLa: decoding by contrasting layers (Chuang et al. 2023, https://arxiv.org/abs/2309.03883)."""

from __future__ import annotations

import math

import torch

from honed.generation.loop import Loop
from honed.generation.stepper import stepper_for

RELATIVE_TOP = 0.1  # tokens below this share of the likeliest one's probability are left out
_DEEP = 40  # models of more layers use 20 at either end


def dola(
    model,
    input_ids,
    logits_processor,
    stopping_criteria,
    generation_config,
    synced_gpus=False,
    streamer=None,
    tokenizer=None,
    **model_kwargs,
):
    """Scores ``log p(token) - log q(token)`` for the tokens with ``p >= 0.1 * max p``, minus infinity for the
    others: p is the model's distribution, q the one that its head makes of an earlier layer's output.

    Of the candidate layers the one is taken whose q is farthest from p by the Jensen-Shannon divergence, for
    each row and token anew. The head is applied to the layer's output as it is, without the final norm, as
    in the authors' program.

    ``dola_layers`` names them as transformers does: "low" or "high", every second layer of the lower or the
    upper half, or a list of indices of ``hidden_states`` (0: the embeddings; the last one is not taken).

    A decoding method as ``generate`` calls it: ``model.generate(ids, dola_layers="high",
    repetition_penalty=1.2)`` on a honed model runs it, greedy or with ``do_sample=True``. Processors see the
    contrasted scores.

    Raises:
        ValueError: an encoder-decoder model, layers that the model has not, attentions or hidden states
            among the results.
    """
    if model.config.is_encoder_decoder:
        raise ValueError("dola: the model is an encoder-decoder, expected a decoder")
    loop = Loop("dola", model, input_ids, logits_processor, stopping_criteria, generation_config, streamer)
    layers = candidate_layers(generation_config.dola_layers, model.config.get_text_config())
    stepper = stepper_for(model, input_ids, model_kwargs, generation_config.max_length)
    loop.keep_below(stepper.limit)
    new = input_ids[:, stepper.length :]
    while True:
        logits, exits = stepper(new, exits=layers)
        logits = contrast(logits[:, -1], exits[:, :, -1])
        scores = loop.process(logits)
        loop.record(logits, scores)
        if not loop.push(loop.choose(scores)):
            return loop.result(stepper.cache)
        new = loop.ids[:, -1:]


def candidate_layers(asked, config) -> list[int]:
    """The indices of hidden states that ``dola_layers`` means for a model of this configuration.

    Where the head is the embeddings' matrix the first two states are skipped: they would only give back the
    token that was read.

    >>> from types import SimpleNamespace
    >>> candidate_layers("low", SimpleNamespace(num_hidden_layers=12, tie_word_embeddings=True))
    [2, 4]
    """
    last = config.num_hidden_layers
    if asked == "low":
        first = min(2, last // 2) if getattr(config, "tie_word_embeddings", True) else 0
        found = list(range(first, last // 2 if last <= _DEEP else 20, 2)) or [first]
    elif asked == "high":
        found = list(range(last // 2 if last <= _DEEP else last - 20, last, 2))
    elif isinstance(asked, list | tuple):
        if any(type(layer) is not int for layer in asked):
            raise TypeError(f"dola: dola_layers is {asked!r}, expected whole numbers")
        found = [layer for layer in asked if layer < last]
    else:
        raise ValueError(f"dola: dola_layers is {asked!r}, expected 'low', 'high' or a list of layers")
    if not found or min(found) < 0:
        raise ValueError(f"dola: dola_layers is {asked!r}, expected some of 0 to {last - 1}")
    return found


def contrast(logits: torch.Tensor, exits: torch.Tensor) -> torch.Tensor:
    """The contrasted scores (B, V) of final logits (B, V) and those of the candidate layers (n, B, V)."""
    final, early = logits.log_softmax(-1), exits.log_softmax(-1)
    if len(early) > 1:
        farthest = _divergence(final, early).argmax(0)
        early = early[farthest, torch.arange(len(farthest))]
    else:
        early = early[0]
    floor = final.amax(-1, keepdim=True) + math.log(RELATIVE_TOP)
    return (final - early).masked_fill_(final < floor, -torch.inf)


def _divergence(p, q):
    """Jensen-Shannon divergence of log-probabilities (B, V) and (n, B, V), over the last dimension."""
    middle = torch.logaddexp(p, q) - math.log(2)
    return 0.5 * ((p.exp() * (p - middle)).sum(-1) + (q.exp() * (q - middle)).sum(-1))
