"""torch.nn.MultiheadAttention on honed's kernels."""

from __future__ import annotations

import torch

from honed.nn._packed import Packed, cut, renew
from honed.ops import dropout, linear, matmul, scaled_dot_product_attention, softmax
from honed.ops._dispatch import is_compiling, multiplies

F = torch.nn.functional


class KeyValues:
    """Keys and values of an attention's earlier steps, for decoding: ``(B, H, length, D)`` each.

    Self attention adds those of its input at every call; cross attention projects its memory at the first
    call and reads it after that.

    >>> attention, past = MultiheadAttention(4, 2, batch_first=True), KeyValues()
    >>> with torch.no_grad():
    ...     for x in torch.ones(3, 1, 1, 4):
    ...         y, _ = attention(x, x, x, need_weights=False, cache=past)
    >>> past.length
    3
    """

    def __init__(self):
        self.length = 0
        self._keys = self._values = None

    def append(self, keys, values):
        """Adds what is ``(B, H, T, D)``; returns all of them."""
        end = self.length + keys.shape[2]
        if self._keys is None or end > self._keys.shape[2]:
            self._keys, self._values = self._grown(self._keys, keys), self._grown(self._values, values)
        self._keys[:, :, self.length : end] = keys
        self._values[:, :, self.length : end] = values
        self.length = end
        return self.both()

    def both(self):
        """Keys and values so far."""
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]

    def _grown(self, held, like):
        b, h, t, d = like.shape
        buffer = like.new_empty(b, h, max(64, 2 * (self.length + t)), d)
        if held is not None:
            buffer[:, :, : self.length] = held[:, :, : self.length]
        return buffer


class MultiheadAttention(torch.nn.MultiheadAttention):
    """``out_proj(concat of softmax(q k^T / sqrt(D) + mask) v)``; torch's constructor, arguments and results.

    Self attention projects q, k and v in one product. Without gradients the projections' weights are packed
    as those of :class:`honed.nn.Linear`; ``storage`` is its. With ``need_weights=False`` no ``T x S`` matrix
    is made, dropout included; with it (torch's default) the weights come from a product and a softmax.

    Beyond torch's arguments, ``forward`` takes ``cache=KeyValues()`` to decode step by step: queries then
    stand after the keys that it holds. ``is_causal=True`` needs no ``attn_mask`` here.

    A query that sees no key gives 0 without weights and NaN with them, as torch's own composition does.

    Source: Vaswani et al., https://arxiv.org/abs/1706.03762;
    https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiheadAttention.html

    >>> attention = MultiheadAttention(8, 2, batch_first=True)
    >>> x = torch.ones(3, 5, 8)
    >>> y, weights = attention(x, x, x)
    >>> y.shape, weights.shape
    (torch.Size([3, 5, 8]), torch.Size([3, 5, 5]))
    """

    op = "scaled_dot_product_attention"
    storage: str | None = None
    _packs: dict[str, Packed] | None = None

    def forward(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights=True,
        attn_mask=None,
        average_attn_weights=True,
        is_causal=False,
        *,
        cache=None,
    ):
        if torch.overrides.has_torch_function((query, key, value)) or query.is_nested:
            return super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        out, weights = self.attend(
            query, key, value, key_padding_mask, need_weights, attn_mask, is_causal, cache=cache
        )
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=-3)
        return out, weights

    def attend(
        self,
        query,
        key,
        value,
        key_padding_mask=None,
        need_weights=False,
        attn_mask=None,
        is_causal=False,
        *,
        residual=None,
        cache=None,
    ):
        """``forward(...) + residual`` and the weights of every head, ``(N, H, L, S)`` or ``None``.

        It passes hooks by: layers call it where there are none.
        """
        attn_mask, key_padding_mask = boolean_or_float(attn_mask, key_padding_mask, query.dtype)
        batched = F._mha_shape_check(query, key, value, key_padding_mask, attn_mask, self.num_heads)
        if not batched:
            one = 0 if self.batch_first else 1
            same, shared = query is key, key is value
            query = query.unsqueeze(one)
            key = query if same else key.unsqueeze(one)
            value = key if shared else value.unsqueeze(one)
            residual = None if residual is None else residual.unsqueeze(one)
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        q, k, v = self._heads(query, key, value, cache)
        if key_padding_mask is not None and key_padding_mask.shape != (k.shape[0], k.shape[2]):
            raise RuntimeError(
                f"MultiheadAttention: key_padding_mask has shape {list(key_padding_mask.shape)}, "
                f"expected {[k.shape[0], k.shape[2]]}"
            )
        offset = k.shape[2] - q.shape[2] if cache is not None and query is key else 0
        more = self.bias_k is not None or self.add_zero_attn
        causal = False
        if is_causal:
            # As in torch the hint replaces the mask, where nothing else needs one.
            floats = key_padding_mask is not None and key_padding_mask.dtype != torch.bool
            causal = not (need_weights or floats or (more and key_padding_mask is not None))
            if attn_mask is None and (more or not causal):
                attn_mask, causal = _later(q, k, offset), False
        if more:
            k, v, attn_mask, key_padding_mask = self._extended(k, v, attn_mask, key_padding_mask)
        p = self.dropout if self.training else 0.0
        weights = None
        if causal and not offset and key_padding_mask is None:
            y = scaled_dot_product_attention(q, k, v, None, p, True)
        elif causal:
            seen = None if key_padding_mask is None else ~key_padding_mask
            y = scaled_dot_product_attention(q, k, v, None, p, True, query_offset=offset, key_mask=seen)
        else:
            mask = self._merged(attn_mask, key_padding_mask, q, k)
            if need_weights:
                y, weights = _with_weights(q, k, v, mask, p)
            else:
                y = scaled_dot_product_attention(q, k, v, mask, p)
        y = y.transpose(1, 2) if self.batch_first else y.permute(2, 0, 1, 3)
        out = self.out_proj
        y = self._project("out", y.flatten(2), out.weight, out.bias, residual=residual)
        if not batched:
            y = y.squeeze(0 if self.batch_first else 1)
            weights = None if weights is None else weights.squeeze(0)
        return y, weights

    def _heads(self, query, key, value, cache):
        """The projected q, k, v as ``(N, H, L, D)``; keys and values with those of earlier steps."""
        e, bias = self.embed_dim, self.in_proj_bias
        same = query is key and key is value
        if not self._qkv_same_embed_dim:
            biases = (None,) * 3 if bias is None else bias.chunk(3)
            weights = self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
            parts = {n: (w, b, None) for n, w, b in zip("qkv", weights, biases, strict=True)}
        else:
            starts = {"q": (0, e), "k": (e, 2 * e), "v": (2 * e, 3 * e), "kv": (e, 3 * e), "qkv": None}
            parts = {n: (self.in_proj_weight, bias, rows) for n, rows in starts.items()}
        if same and "qkv" in parts:
            q, k, v = self._project("qkv", query, *parts["qkv"]).chunk(3, dim=-1)
        else:
            q = self._project("q", query, *parts["q"])
            if cache is not None and cache.length and query is not key:
                return self._split(q), *cache.both()
            if key is value and "kv" in parts:
                k, v = self._project("kv", key, *parts["kv"]).chunk(2, dim=-1)
            else:
                k, v = self._project("k", key, *parts["k"]), self._project("v", value, *parts["v"])
        q, k, v = self._split(q), self._split(k), self._split(v)
        return (q, k, v) if cache is None else (q, *cache.append(k, v))

    def _split(self, x):
        x = x.unflatten(-1, (self.num_heads, self.head_dim))
        return x.transpose(1, 2) if self.batch_first else x.permute(1, 2, 0, 3)

    def _project(self, name, input, weight, bias, rows=None, residual=None):
        """The product with some rows of a weight: packed where no gradient is wanted."""
        plain = type(weight) is torch.nn.Parameter and (bias is None or type(bias) is torch.nn.Parameter)
        if not is_compiling() and plain and multiplies(weight, bias, input, residual) == 1:
            packs = self._packs
            if packs is None:
                packs = self._packs = {}
            packed = packs[name] = renew(packs.get(name), weight, bias, self.storage, rows)
            if packed.product is not None:
                return linear(input, packed.product, residual=residual)
        weight, bias = cut(weight, bias, rows)
        return linear(input, weight, bias, residual=residual)

    def _extended(self, k, v, attn_mask, key_padding_mask):
        """Keys and values with ``bias_k``, ``bias_v`` and zeros at their end; masks let these through."""
        n, s = k.shape[0], k.shape[2]
        if self.bias_k is not None:
            k = torch.cat([k, self.bias_k.view(1, self.num_heads, 1, -1).expand(n, -1, -1, -1)], 2)
            v = torch.cat([v, self.bias_v.view(1, self.num_heads, 1, -1).expand(n, -1, -1, -1)], 2)
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        attn_mask, key_padding_mask = (
            None if mask is None else F.pad(mask, (0, k.shape[2] - s))
            for mask in (attn_mask, key_padding_mask)
        )
        return k, v, attn_mask, key_padding_mask

    def _merged(self, attn_mask, key_padding_mask, q, k):
        """One mask in the meaning of scaled_dot_product_attention: True is seen, floats are added."""
        n, h, t, _ = q.shape
        s = k.shape[2]
        if attn_mask is not None:
            expected = (t, s) if attn_mask.dim() == 2 else (n * h, t, s)
            if attn_mask.shape != expected:
                raise RuntimeError(
                    f"MultiheadAttention: attn_mask has shape {list(attn_mask.shape)}, "
                    f"expected {list(expected)}"
                )
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.view(n, h, t, s)
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.view(n, 1, 1, s)
        if attn_mask is None or key_padding_mask is None:
            mask = key_padding_mask if attn_mask is None else attn_mask
        elif attn_mask.dtype != key_padding_mask.dtype:  # a causal mask made here beside floats
            mask = key_padding_mask.masked_fill(attn_mask, -torch.inf)
        else:
            mask = attn_mask + key_padding_mask  # of booleans: either
        return ~mask if mask is not None and mask.dtype == torch.bool else mask


def boolean_or_float(attn_mask, key_padding_mask, dtype):
    """Both masks boolean (True: hidden), or both float as torch makes them, with its errors and warnings."""
    given = [mask for mask in (attn_mask, key_padding_mask) if mask is not None]
    if all(mask.dtype == torch.bool for mask in given):
        return attn_mask, key_padding_mask
    beside = None if attn_mask is None else attn_mask.dtype
    key_padding_mask = F._canonical_mask(key_padding_mask, "key_padding_mask", beside, "attn_mask", dtype)
    return F._canonical_mask(attn_mask, "attn_mask", None, "", dtype, False), key_padding_mask


def _later(q, k, offset):
    """The keys that stand after their query, True; ``None`` for a single query at the end."""
    t, s = q.shape[2], k.shape[2]
    return None if t + offset == s and t == 1 else q.new_ones(t, s, dtype=torch.bool).triu(offset + 1)


def _with_weights(q, k, v, mask, p):
    scores = matmul(q, k.mT, scale=q.shape[-1] ** -0.5)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = softmax(scores, -1)
    if p > 0.0:
        weights = dropout(weights, p)
    return matmul(weights, v), weights
