"""Small readable models built from :mod:`honed.nn`."""

from honed.models.bert import Bert
from honed.models.convnet import ConvNet
from honed.models.gpt import GPT
from honed.models.mlp import MLP
from honed.models.mobilenet import MobileNetV2
from honed.models.resnet import ResNet
from honed.models.transformer import Transformer

__all__ = ["GPT", "MLP", "Bert", "ConvNet", "MobileNetV2", "ResNet", "Transformer"]
