"""Modules of ``torch.nn`` on honed's kernels: same constructors, same ``state_dict``."""

from honed.nn.activation import GELU, LogSoftmax, SiLU, Softmax
from honed.nn.attention import KeyValues, MultiheadAttention
from honed.nn.dropout import Dropout
from honed.nn.embedding import Embedding
from honed.nn.linear import Linear
from honed.nn.loss import CrossEntropyLoss
from honed.nn.normalization import GroupNorm, LayerNorm, RMSNorm
from honed.nn.transformer import (
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)

__all__ = [
    "GELU",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "GroupNorm",
    "KeyValues",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "MultiheadAttention",
    "RMSNorm",
    "SiLU",
    "Softmax",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]
