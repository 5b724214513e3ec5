"""hone and unhone: a model's class, or the classes of its layers, are exchanged for honed's, and back."""

from __future__ import annotations

from os import PathLike, fspath

from torch import nn

from honed.fold import fold, unfold
from honed.hf.engine import Handle
from honed.hf.families import RECIPES
from honed.hf.model import HonedModel, honed_class
from honed.hf.strategies import HonedGeneration, generates, generating_class, original_class
from honed.nn.swap import LAYERS, swap, unswap


def hone(
    model,
    *,
    weights: str | None = None,
    train: bool = False,
    packed_cache: str | PathLike | None = None,
    free_originals: bool = False,
):
    """Makes a model run on honed's kernels, in place, and returns it.

    Args:
        model: any ``torch.nn.Module``. The Llama, Mistral, Qwen2, Qwen3 and GPT-2 language models of
            ``transformers`` run on the engine. In any other model each layer that :mod:`honed.nn` has becomes
            honed's, and in eval mode without gradients a convolution, linear layer or batch norm makes in one
            call what follows it: batch norm (folded into the weight), a sum, an activation. :func:`report`
            says what was left alone, and why.
        weights: how matrices are stored. ``None``: in the cheapest kind that holds every value exactly
            (grid4, grid8 for weights expanded from 4- and 8-bit files, bf16, f16, f32), chosen for each group
            of matrices packed together (q, k, v; gate, up).
            ``"bf16"``, ``"fp16"``: rounded. ``"int8"``: a scale an output. ``"int4"``: a scale a group.
            The model's own parameters are never changed: ``state_dict()`` shows the original weights.
        train: also goes by layers where there is an engine, so that gradients are honed's too. Training
            uses the model's own parameters, whatever ``weights`` says.
        packed_cache: a file for the packed weights. The first hone packs and writes it; later ones map it
            instead of packing, and processes that do so share its memory. Where it was made from other
            weights (every byte counts), in another way or by another version, or is damaged, it is written
            anew, and :func:`report` says why. One file a model and mode. Only on the engine.
        free_originals: moves the model's parameters out of memory once they are packed, to a temporary file
            (in ``TMPDIR``, on a disk) that is mapped in their place. They keep their values, and may be
            read, copied, saved and trained as ever; what is read comes back page by page. Parameters that
            ``from_pretrained`` left mapped on the model's own file stay there. Only on the engine.

    Returns:
        The same object. On the engine its class is a subclass of what it was, of the same name.

    On the engine, calls that need gradients, attentions, hidden states or hooks run on torch, and
    :func:`report` counts them.
    Outside ``generate`` and pipelines, call the model under ``torch.no_grad()`` or ``inference_mode()``.

    What follows what is read from the model's forward by ``torch.fx``, for the whole model or for the parts
    that can be read so (no control flow on values or shapes). Hooks, other modules, other attributes of
    modules and of their configurations are noticed at each call, and so are folded statistics; not so are
    values inside of other objects, or global ones, that a forward branches on: hone again after those.

    Changed weights are packed anew: optimizer steps, ``load_state_dict`` and in-place edits are seen at once,
    ``parameter.data`` edits at the next prompt (by layers: at the next call), by a sample of the values. Hone
    again after an edit of a few values through ``.data``.

    Raises:
        ValueError: another value of ``weights``. TypeError: not a ``torch.nn.Module``.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
    ...                      num_attention_heads=2, num_key_value_heads=1, eos_token_id=None, bos_token_id=1)
    >>> model = hone(LlamaForCausalLM(config).eval())
    >>> model.generate(max_new_tokens=3).shape
    torch.Size([1, 4])
    """
    if weights is not None and weights not in RECIPES:
        known = ", ".join(repr(name) for name in RECIPES)
        raise ValueError(f"hone: weights is {weights!r}, expected None, {known}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"hone: model is a {type(model).__name__}, expected a torch.nn.Module")
    unhone(model)
    cache = None if packed_cache is None else fspath(packed_cache)
    reason = "hone(train=True) goes by layers"
    if not train:
        handle = model.__dict__["_honed"] = Handle(weights, cache, free_originals)
        if handle.ready(model, thorough=True):
            model.__class__ = honed_class(type(model))
            return model
        reason = model.__dict__.pop("_honed").reason
    swap(model, weights, reason)
    if generates(model):
        model.__class__ = generating_class(type(model))
    model.__dict__[LAYERS].unread.update(fold(model))
    return model


def unhone(model):
    """Back to plain torch: the classes that model and layers had, no packed weights. Returns the model."""
    if isinstance(model, HonedGeneration):
        handle = model.__dict__.pop("_honed") if isinstance(model, HonedModel) else None
        model.__class__ = original_class(model)
        if handle is not None:
            handle.drop()
    unfold(model)
    unswap(model)
    return model
