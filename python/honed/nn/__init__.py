"""Modules of ``torch.nn`` on honed's kernels: same constructors, same ``state_dict``."""

from honed.nn.activation import GELU, LogSoftmax, ReLU, ReLU6, SiLU, Softmax
from honed.nn.attention import KeyValues, MultiheadAttention
from honed.nn.batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from honed.nn.convolution import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from honed.nn.dropout import Dropout
from honed.nn.embedding import Embedding
from honed.nn.linear import Linear
from honed.nn.loss import CrossEntropyLoss
from honed.nn.normalization import GroupNorm, LayerNorm, RMSNorm
from honed.nn.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AvgPool1d,
    AvgPool2d,
    MaxPool1d,
    MaxPool2d,
)
from honed.nn.transformer import (
    Transformer,
    TransformerDecoder,
    TransformerDecoderLayer,
    TransformerEncoder,
    TransformerEncoderLayer,
)

__all__ = [
    "GELU",
    "AdaptiveAvgPool1d",
    "AdaptiveAvgPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "GroupNorm",
    "KeyValues",
    "LayerNorm",
    "Linear",
    "LogSoftmax",
    "MaxPool1d",
    "MaxPool2d",
    "MultiheadAttention",
    "RMSNorm",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Softmax",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]
