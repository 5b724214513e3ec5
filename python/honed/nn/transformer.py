"""torch.nn's Transformer layers and stacks on honed's kernels."""

from __future__ import annotations

import torch
from torch.nn.modules.transformer import _detect_is_causal_mask, _get_seq_len

from honed.nn._calls import is_plain
from honed.nn.activation import GELU, ReLU, SiLU
from honed.nn.attention import MultiheadAttention, boolean_or_float
from honed.nn.dropout import Dropout
from honed.nn.linear import Linear
from honed.nn.normalization import LayerNorm
from honed.ops import add_layer_norm

F = torch.nn.functional
_CHILDREN = {
    torch.nn.Linear: Linear,
    torch.nn.Dropout: Dropout,
    torch.nn.LayerNorm: LayerNorm,
    torch.nn.MultiheadAttention: MultiheadAttention,
}


def adopt(module) -> None:
    """Gives the layers that torch's constructor made honed's classes; their parameters stay."""
    for child in module.modules():
        child.__class__ = _CHILDREN.get(type(child), type(child))


class _Layer:
    """What encoder and decoder layers share: sublayers, each of which is added to its input.

    A sublayer gives ``y`` and what is still to be added to it: ``None`` where its last product did that.
    """

    def _attended(self, attention, dropout, x, memory, residual, masks, cache, weights):
        """Attention of ``x`` to ``memory``; appends its weights to a list, if there is one."""
        mask, padding, causal = masks
        if not is_plain(attention, MultiheadAttention):
            _refuse(cache, weights, attention)
            options = {"need_weights": False, "attn_mask": mask, "is_causal": causal}
            return dropout(attention(x, memory, memory, padding, **options)[0]), residual
        inside = residual if _is_idle(dropout) else None
        y, w = attention.attend(
            x, memory, memory, padding, weights is not None, mask, causal, residual=inside, cache=cache
        )
        if weights is not None:
            weights.append(w)
        return (y, None) if inside is not None else (dropout(y), residual)

    def _fed_forward(self, dropout, x, residual):
        name = _name(self.activation)
        if name is not None and is_plain(self.linear1, Linear):
            y = self.linear1.fused(x, name)
        else:
            y = self.activation(self.linear1(x))
        y = self.dropout(y)
        if _is_idle(dropout) and is_plain(self.linear2, Linear):
            return self.linear2.fused(y, residual=residual), None
        return dropout(self.linear2(y)), residual


def _normed(norm, y, residual):
    """``norm(s)`` and ``s = y + residual``."""
    if residual is None:
        return norm(y), y
    if is_plain(norm, LayerNorm) and y.dtype == residual.dtype and y.shape == residual.shape:
        return add_layer_norm(y, residual, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    s = residual + y
    return norm(s), s


def _added(y, residual):
    return y if residual is None else residual + y


class TransformerEncoderLayer(_Layer, torch.nn.TransformerEncoderLayer):
    """Self attention, then two linear layers, each added to its input and normalised; torch's arguments.

    The sum is made in the product's pass where no dropout comes between, and so is the activation if it is
    relu, gelu or silu. ``forward`` also takes ``cache`` (:class:`honed.nn.KeyValues`) to decode step by step,
    and ``weights``, a list that the attention weights ``(N, H, L, S)`` are appended to.

    Source: Vaswani et al., https://arxiv.org/abs/1706.03762; Xiong et al. (``norm_first``),
    https://arxiv.org/abs/2002.04745;
    https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerEncoderLayer.html

    >>> layer = TransformerEncoderLayer(8, 2, 16, batch_first=True)
    >>> layer(torch.ones(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        adopt(self)

    def forward(
        self, src, src_mask=None, src_key_padding_mask=None, is_causal=False, *, cache=None, weights=None
    ):
        if src.is_nested or torch.overrides.has_torch_function((src,)):
            _refuse(cache, weights, src)
            return super().forward(src, src_mask, src_key_padding_mask, is_causal)
        masks = (*boolean_or_float(src_mask, src_key_padding_mask, src.dtype), is_causal)
        x, attention = src, (masks, cache, weights)
        if self.norm_first:
            y = self.norm1(x)
            y, x = _normed(self.norm2, *self._attended(self.self_attn, self.dropout1, y, y, x, *attention))
            return _added(*self._fed_forward(self.dropout2, y, x))
        x, _ = _normed(self.norm1, *self._attended(self.self_attn, self.dropout1, x, x, x, *attention))
        return _normed(self.norm2, *self._fed_forward(self.dropout2, x, x))[0]


class TransformerDecoderLayer(_Layer, torch.nn.TransformerDecoderLayer):
    """Self attention, attention to ``memory``, then two linear layers; torch's arguments.

    As :class:`TransformerEncoderLayer`; ``cache`` is a pair, for self attention and for ``memory``, and
    ``weights`` gets those of the attention to ``memory``.

    Source: Vaswani et al., https://arxiv.org/abs/1706.03762;
    https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerDecoderLayer.html

    >>> layer = TransformerDecoderLayer(8, 2, 16, batch_first=True)
    >>> layer(torch.ones(3, 5, 8), torch.ones(3, 7, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        adopt(self)

    def forward(
        self,
        tgt,
        memory,
        tgt_mask=None,
        memory_mask=None,
        tgt_key_padding_mask=None,
        memory_key_padding_mask=None,
        tgt_is_causal=False,
        memory_is_causal=False,
        *,
        cache=None,
        weights=None,
    ):
        own, others = (None, None) if cache is None else cache
        to_self = (tgt_mask, tgt_key_padding_mask, tgt_is_causal), own, None
        to_memory = (memory_mask, memory_key_padding_mask, memory_is_causal), others, weights
        x, (one, two, three) = tgt, (self.norm1, self.norm2, self.norm3)
        first, second = (self.self_attn, self.dropout1), (self.multihead_attn, self.dropout2)
        if self.norm_first:
            y = one(x)
            y, x = _normed(two, *self._attended(*first, y, y, x, *to_self))
            y, x = _normed(three, *self._attended(*second, y, memory, x, *to_memory))
            return _added(*self._fed_forward(self.dropout3, y, x))
        x, _ = _normed(one, *self._attended(*first, x, x, x, *to_self))
        x, _ = _normed(two, *self._attended(*second, x, memory, x, *to_memory))
        return _normed(three, *self._fed_forward(self.dropout3, x, x))[0]


class TransformerEncoder(torch.nn.TransformerEncoder):
    """``num_layers`` copies of a layer, one after the other, and a norm; torch's arguments.

    Makes no nested tensors. Where torch would (``enable_nested_tensor``, without gradients, in eval mode),
    the padding of its output is 0, and so it is here.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerEncoder.html

    >>> encoder = TransformerEncoder(TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    >>> encoder(torch.ones(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def forward(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
        first = self.layers[0]
        if src.is_nested or torch.overrides.has_torch_function((src,)):
            return super().forward(src, mask, src_key_padding_mask, is_causal)
        mask, padding = boolean_or_float(mask, src_key_padding_mask, src.dtype)
        causal = _detect_is_causal_mask(mask, is_causal, _get_seq_len(src, first.self_attn.batch_first))
        x = src
        for layer in self.layers:
            x = layer(x, src_mask=mask, is_causal=causal, src_key_padding_mask=padding)
        if padding is not None and mask is None and self._zeroes(first, src, padding):
            x = x.masked_fill(padding.bool().unsqueeze(-1), 0.0)
        return x if self.norm is None else self.norm(x)

    def _zeroes(self, first, src, padding) -> bool:
        """Whether torch would compute on nested tensors, which leaves zeros where they end."""
        if (
            not (getattr(self, "use_nested_tensor", False) and torch.backends.mha.get_fastpath_enabled())
            or first.training
            or src.dim() != 3
            or torch.is_autocast_enabled()
            or (torch.is_grad_enabled() and (src.requires_grad or any(_of(first))))
        ):
            return False
        if not getattr(self, "mask_check", True):
            return True
        hidden = padding.bool()
        return not torch.compiler.is_compiling() and not bool((hidden[:, :-1] & ~hidden[:, 1:]).any())


class TransformerDecoder(torch.nn.TransformerDecoder):
    """``num_layers`` copies of a layer, one after the other, and a norm; torch's arguments.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerDecoder.html

    >>> decoder = TransformerDecoder(TransformerDecoderLayer(8, 2, 16, batch_first=True), 2)
    >>> decoder(torch.ones(3, 5, 8), torch.ones(3, 7, 8)).shape
    torch.Size([3, 5, 8])
    """


class Transformer(torch.nn.Transformer):
    """Encoder and decoder of "Attention Is All You Need"; torch's arguments.

    An encoder or decoder that is given stays what it is.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Transformer.html

    >>> model = Transformer(8, 2, 1, 1, 16, batch_first=True)
    >>> model(torch.ones(3, 7, 8), torch.ones(3, 5, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        given = [id(argument) for argument in (*args, *kwargs.values())]
        for part in (self.encoder, self.decoder):
            if id(part) not in given:
                adopt(part)


_CHILDREN |= {
    torch.nn.TransformerEncoderLayer: TransformerEncoderLayer,
    torch.nn.TransformerDecoderLayer: TransformerDecoderLayer,
    torch.nn.TransformerEncoder: TransformerEncoder,
    torch.nn.TransformerDecoder: TransformerDecoder,
}


def _of(layer):
    return (parameter.requires_grad for parameter in layer.parameters())


def _refuse(cache, weights, what):
    if cache is not None or weights is not None:
        raise TypeError(
            f"TransformerLayer: got cache or weights with a {type(what).__name__}, expected plain tensors "
            "and a honed.nn.MultiheadAttention without hooks"
        )


def _is_idle(dropout) -> bool:
    """True where the module returns its input."""
    return is_plain(dropout, Dropout, torch.nn.Dropout) and not (dropout.training and dropout.p > 0)


def _name(activation) -> str | None:
    """What honed.ops.linear calls it, or ``None``."""
    if activation is F.relu or activation is torch.relu or is_plain(activation, torch.nn.ReLU, ReLU):
        return "relu"
    if activation is F.gelu:
        return "gelu"
    if is_plain(activation, torch.nn.GELU, GELU):
        return "gelu" if activation.approximate == "none" else "gelu_tanh"
    if activation is F.silu or is_plain(activation, torch.nn.SiLU, SiLU):
        return "silu"
    return None
