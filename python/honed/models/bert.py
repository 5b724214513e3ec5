"""An encoder of BERT's shape."""

from __future__ import annotations

import torch

from honed import nn
from honed.models import _folder

# A layer's parts: ours -> BERT's.
_PARTS = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
_ACTIVATIONS = {"gelu": "none", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}


class Bert(torch.nn.Module):
    """Turns tokens into vectors that know their whole sentence.

    Args:
        vocabulary: how many tokens there are.
        longest: how many positions. types: how many kinds of segments.
        width, heads, layers, hidden: BERT's ``hidden_size``, ``num_attention_heads``,
            ``num_hidden_layers``, ``intermediate_size``.
        dropout: share of values that training drops.
        gelu: ``"none"`` (BERT's) or ``"tanh"``. eps: of the norms.

    Source: Devlin et al., https://arxiv.org/abs/1810.04805

    >>> model = Bert(11, longest=8, width=16, heads=2, layers=1, hidden=32)
    >>> model(torch.tensor([[1, 2, 3]])).shape
    torch.Size([1, 3, 16])
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        longest: int = 512,
        types: int = 2,
        width: int = 768,
        heads: int = 12,
        layers: int = 12,
        hidden: int = 3072,
        dropout: float = 0.1,
        gelu: str = "none",
        eps: float = 1e-12,
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(longest, width)
        self.types = nn.Embedding(types, width)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = nn.Dropout(dropout)
        self.layers = torch.nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, hidden, dropout, nn.GELU(gelu), layer_norm_eps=eps, batch_first=True
            )
            for _ in range(layers)
        )
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                torch.nn.init.zeros_(parameter)

    @classmethod
    def from_pretrained(cls, folder) -> Bert:
        """Reads a folder that transformers' ``BertModel.save_pretrained`` wrote (no pooler). In eval mode.

        Raises:
            FileNotFoundError: a file is missing. ValueError: no BERT, or a variant of it. KeyError: a weight
            is missing.
        """
        config, state = _folder.read(folder, "bert", "bert.")
        act = config.get("hidden_act", "gelu")
        kind = config.get("position_embedding_type", "absolute")
        if act not in _ACTIVATIONS or kind != "absolute":
            raise ValueError(f"Bert.from_pretrained: got {act}, {kind}, expected gelu, absolute positions")
        model = cls(
            config["vocab_size"],
            longest=config["max_position_embeddings"],
            types=config.get("type_vocab_size", 2),
            width=config["hidden_size"],
            heads=config["num_attention_heads"],
            layers=config["num_hidden_layers"],
            hidden=config["intermediate_size"],
            dropout=config.get("hidden_dropout_prob", 0.1),
            gelu=_ACTIVATIONS[act],
            eps=config.get("layer_norm_eps", 1e-12),
        )
        tables = {"tokens": "word_embeddings", "positions": "position_embeddings"}
        tables["types"] = "token_type_embeddings"
        ours = {f"{name}.weight": state[f"embeddings.{theirs}.weight"] for name, theirs in tables.items()}
        for end in ("weight", "bias"):
            ours[f"norm.{end}"] = state[f"embeddings.LayerNorm.{end}"]
            for i in range(config["num_hidden_layers"]):
                theirs = f"encoder.layer.{i}"
                for part, name in _PARTS.items():
                    ours[f"layers.{i}.{part}.{end}"] = state[f"{theirs}.{name}.{end}"]
                heads = [state[f"{theirs}.attention.self.{name}.{end}"] for name in ("query", "key", "value")]
                ours[f"layers.{i}.self_attn.in_proj_{end}"] = torch.cat(heads)
        model.load_state_dict(ours)
        return model.to(ours["tokens.weight"].dtype).eval()

    def forward(self, tokens, attention_mask=None, token_type_ids=None):
        """``(B, T, width)`` of tokens ``(B, T)``; where ``attention_mask`` is 0 there is padding."""
        kinds = torch.zeros_like(tokens) if token_type_ids is None else token_type_ids
        x = self.tokens(tokens) + self.types(kinds) + self.positions.weight[: tokens.shape[1]]
        x = self.dropout(self.norm(x))
        hidden = None if attention_mask is None else attention_mask == 0
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=hidden)
        return x
