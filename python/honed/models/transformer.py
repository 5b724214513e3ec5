"""The encoder-decoder of "Attention Is All You Need"."""

from __future__ import annotations

import math

import torch

from honed import nn


def sinusoids(length: int, width: int):
    """``(length, width)``: sines of a position at falling frequencies, then cosines."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(length)[:, None] * rate
    return torch.cat([angle.sin(), angle.cos()], dim=1)[:, :width]


class Transformer(torch.nn.Module):
    """Reads a sequence of tokens, writes another one.

    Args:
        source_vocabulary, target_vocabulary: how many tokens there are on either side.
        d_model, heads, layers, d_ff: width, attention heads, layers of encoder and of decoder, hidden width.
        dropout: share of values that training drops.
        padding: the token that fills sequences up; nobody attends to it. The same on both sides.
        tied: one table embeds source and target and makes the logits; needs equal vocabularies. Without it
            the logits still come from the target's table.
        longest: how many positions there are.
        norm_first: normalises before each sublayer (trains without warm-up) instead of after.

    Shapes: tokens are ``(B, S)`` and ``(B, T)`` int64, logits ``(B, T, target_vocabulary)``, attention
    weights ``(B, heads, T, S)``.

    Source: Vaswani et al., https://arxiv.org/abs/1706.03762; Press and Wolf (tying),
    https://arxiv.org/abs/1608.05859

    >>> model = Transformer(11, 13, d_model=16, heads=2, layers=1, d_ff=32).eval()
    >>> source, target = torch.tensor([[3, 4, 5]]), torch.tensor([[1, 2]])
    >>> model(source, target).shape
    torch.Size([1, 2, 13])
    >>> logits, weights = model(source, target, need_weights=True)
    >>> weights[0].shape
    torch.Size([1, 2, 2, 3])
    """

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        *,
        d_model: int = 512,
        heads: int = 8,
        layers: int = 6,
        d_ff: int = 2048,
        dropout: float = 0.1,
        padding: int = 0,
        tied: bool = False,
        longest: int = 1024,
        norm_first: bool = True,
    ):
        super().__init__()
        if tied and source_vocabulary != target_vocabulary:
            raise ValueError(
                f"Transformer: tied with {source_vocabulary} and {target_vocabulary} tokens, expected as many"
            )
        self.padding, self.d_model = padding, d_model
        self.source = nn.Embedding(source_vocabulary, d_model)
        self.target = self.source if tied else nn.Embedding(target_vocabulary, d_model)
        self.head = nn.Linear(d_model, target_vocabulary, bias=False)
        self.head.weight = self.target.weight
        self.register_buffer("positions", sinusoids(longest, d_model), persistent=False)
        self.dropout = nn.Dropout(dropout)
        sizes = (d_model, heads, d_ff, dropout)
        options = {"batch_first": True, "norm_first": norm_first}
        self.encoder = torch.nn.ModuleList(
            nn.TransformerEncoderLayer(*sizes, **options) for _ in range(layers)
        )
        self.decoder = torch.nn.ModuleList(
            nn.TransformerDecoderLayer(*sizes, **options) for _ in range(layers)
        )
        ends = [nn.LayerNorm(d_model) if norm_first else torch.nn.Identity() for _ in range(2)]
        self.encoder_norm, self.decoder_norm = ends
        for parameter in self.parameters():
            if parameter.dim() > 1:
                torch.nn.init.xavier_uniform_(parameter)
        for table in (self.source, self.target):
            torch.nn.init.normal_(table.weight, std=d_model**-0.5)

    def _embed(self, table, tokens, start=0):
        x = table(tokens) * math.sqrt(self.d_model)
        return self.dropout(x + self.positions[start : start + tokens.shape[1]])

    def encode(self, source):
        """``(B, S, d_model)`` of the source's tokens."""
        hidden = source == self.padding
        x = self._embed(self.source, source)
        for layer in self.encoder:
            x = layer(x, src_key_padding_mask=hidden)
        return self.encoder_norm(x)

    def decode(self, target, memory, source, *, caches=None, weights=None):
        """Logits of the token after each of the target's.

        ``memory`` is ``encode(source)``. With ``caches`` (see :meth:`generate`) ``target`` holds new tokens
        only; the attention weights of each layer are appended to the list ``weights``.
        """
        hidden = source == self.padding
        start = 0 if caches is None else caches[0][0].length
        x = self._embed(self.target, target, start)
        for i, layer in enumerate(self.decoder):
            x = layer(
                x,
                memory,
                memory_key_padding_mask=hidden,
                tgt_is_causal=True,
                cache=None if caches is None else caches[i],
                weights=weights,
            )
        return self.head(self.decoder_norm(x))

    def forward(self, source, target, *, need_weights=False):
        """Logits; with ``need_weights`` also what each decoder layer attends to in the source."""
        weights = [] if need_weights else None
        logits = self.decode(target, self.encode(source), source, weights=weights)
        return (logits, weights) if need_weights else logits

    @torch.no_grad()
    def generate(self, source, *, start: int, end: int, longest: int = 64):
        """The most likely token after each, from ``start`` on until every row has said ``end``.

        Returns ``(B, T)`` tokens without ``start``; after ``end`` there is padding.
        """
        memory = self.encode(source)
        caches = [(nn.KeyValues(), nn.KeyValues()) for _ in self.decoder]
        last = source.new_full((source.shape[0], 1), start)
        done, made = torch.zeros_like(last, dtype=torch.bool), []
        while len(made) < longest and not done.all():
            last = self.decode(last, memory, source, caches=caches)[:, -1].argmax(-1, keepdim=True)
            made.append(last.masked_fill(done, self.padding))
            done |= last == end
        return torch.cat(made, 1) if made else source[:, :0]
