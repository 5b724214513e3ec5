"""A decoder of GPT-2's shape."""

from __future__ import annotations

import torch

from honed import nn, ops
from honed.models import _folder

# A block's parts: ours -> GPT-2's.
_PARTS = {
    "norm1": "ln_1",
    "self_attn.in_proj_": "attn.c_attn",
    "self_attn.out_proj": "attn.c_proj",
    "norm2": "ln_2",
    "linear1": "mlp.c_fc",
    "linear2": "mlp.c_proj",
}
_ACTIVATIONS = {"gelu_new": "tanh", "gelu_pytorch_tanh": "tanh", "gelu": "none"}


class GPT(torch.nn.Module):
    """Predicts the next token: embeddings, blocks of causal self attention, logits by the embedding's table.

    Args:
        vocabulary: how many tokens there are.
        longest: how many positions.
        width, heads, layers: GPT-2's ``n_embd``, ``n_head``, ``n_layer``.
        dropout: share of values that training drops.
        hidden: width of the feed-forward part, ``4 * width`` if ``None``.
        gelu: ``"tanh"`` (GPT-2's) or ``"none"``.
        eps: of the norms.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019

    >>> model = GPT(11, longest=8, width=16, heads=2, layers=1)
    >>> tokens = torch.tensor([[1, 2, 3]])
    >>> model(tokens).shape
    torch.Size([1, 3, 11])
    >>> model(tokens[:, :-1], tokens[:, 1:]).shape  # a loss
    torch.Size([])
    >>> model.eval().generate(tokens, 4).shape
    torch.Size([1, 7])
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        longest: int = 1024,
        width: int = 768,
        heads: int = 12,
        layers: int = 12,
        dropout: float = 0.0,
        hidden: int | None = None,
        gelu: str = "tanh",
        eps: float = 1e-5,
    ):
        super().__init__()
        self.longest = longest
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(longest, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = torch.nn.ModuleList(
            nn.TransformerEncoderLayer(
                width,
                heads,
                hidden or 4 * width,
                dropout,
                nn.GELU(gelu),
                layer_norm_eps=eps,
                batch_first=True,
                norm_first=True,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, eps=eps)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                last = name.endswith(("out_proj.weight", "linear2.weight"))  # of a sum of 2 * layers
                torch.nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5 if last else 0.02)
            elif name.endswith("bias"):
                torch.nn.init.zeros_(parameter)

    @classmethod
    def from_pretrained(cls, folder) -> GPT:
        """Reads a folder that transformers' ``GPT2LMHeadModel.save_pretrained`` wrote. In eval mode.

        Raises:
            FileNotFoundError: a file is missing. ValueError: no GPT-2, or a variant of it (scaled attention,
            another activation). KeyError: a weight is missing.
        """
        config, state = _folder.read(folder, "gpt2", "transformer.")
        act = config.get("activation_function", "gelu_new")
        odd = [
            name for name in ("scale_attn_by_inverse_layer_idx", "add_cross_attention") if config.get(name)
        ]
        if odd or act not in _ACTIVATIONS or not config.get("scale_attn_weights", True):
            raise ValueError(f"GPT.from_pretrained: got {odd or act}, expected GPT-2 as it was published")
        model = cls(
            config["vocab_size"],
            longest=config["n_positions"],
            width=config["n_embd"],
            heads=config["n_head"],
            layers=config["n_layer"],
            hidden=config.get("n_inner"),
            gelu=_ACTIVATIONS[act],
            eps=config.get("layer_norm_epsilon", 1e-5),
        )
        ours = {"tokens.weight": state["wte.weight"], "positions.weight": state["wpe.weight"]}
        ours |= {f"norm.{end}": state[f"ln_f.{end}"] for end in ("weight", "bias")}
        ours["head.weight"] = state.get("lm_head.weight", state["wte.weight"])
        for i in range(config["n_layer"]):
            for part, theirs in _PARTS.items():
                for end in ("weight", "bias"):
                    value = state[f"h.{i}.{theirs}.{end}"]
                    # GPT-2 keeps its matrices as (inputs, outputs).
                    name = f"blocks.{i}.{part}{end}" if part.endswith("_") else f"blocks.{i}.{part}.{end}"
                    ours[name] = value.T if value.dim() == 2 else value
        model.load_state_dict(ours)
        return model.to(state["wte.weight"].dtype).eval()

    def forward(self, tokens, targets=None, *, caches=None):
        """Logits ``(B, T, vocabulary)``, or with ``targets`` ``(B, T)`` the mean loss; -100 is left out.

        The loss is made without the logits ever being whole. With ``caches`` the tokens come after those
        that the caches hold.
        """
        start = 0 if caches is None else caches[0].length
        end = start + tokens.shape[1]
        if end > self.longest:
            raise ValueError(f"GPT: got {end} tokens, expected at most {self.longest}")
        x = self.tokens(tokens) + self.positions.weight[start:end]
        x = self.dropout(x)
        for i, block in enumerate(self.blocks):
            x = block(x, is_causal=True, cache=None if caches is None else caches[i])
        x = self.norm(x)
        if targets is None:
            return self.head(x)
        return ops.linear_cross_entropy(x, self.head.weight, targets)

    @torch.no_grad()
    def generate(self, tokens, count: int, *, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0):
        """``tokens`` and ``count`` more: the most likely, or drawn as :func:`honed.ops.sample` says."""
        caches = [nn.KeyValues() for _ in self.blocks]
        new = tokens
        for _ in range(count):
            logits = self(new, caches=caches)[:, -1]
            new = ops.sample(logits, temperature=temperature, top_k=top_k, top_p=top_p)[:, None]
            tokens = torch.cat([tokens, new], 1)
        return tokens
