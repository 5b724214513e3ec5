"""hone() on image models of transformers, small and with random weights: torch's values, blocks folded."""

import copy

import pytest
import torch
import transformers
from tests.hf.test_folding import close, fused

import honed

transformers.logging.set_verbosity_error()

# name -> the class, its configuration's options, how many calls become one
MODELS = {
    "ResNet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2], "layer_type": "basic"}, 10),
    "ResNet, bottleneck": ({"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2]}, 12),
    "RegNet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "groups_width": 4}, 12),
    "MobileNetV2": ({"depth_multiplier": 0.35, "image_size": 32}, 50),
    "MobileNetV2, torch's padding": ({"depth_multiplier": 0.35, "tf_padding": False}, 50),
    "MobileNetV1": ({"depth_multiplier": 0.25, "image_size": 32}, 27),
    "EfficientNet": ({"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320}, 20),
    "ConvNext": ({"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}, 5),
    "ViT": (
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "image_size": 32,
            "patch_size": 8,
        },
        2,
    ),
}


def make(name):
    options, _ = MODELS[name]
    kind = name.partition(",")[0]
    torch.manual_seed(len(name))
    config = getattr(transformers, f"{kind}Config")(num_labels=5, **options)
    model = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1), module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 2), module.bias.normal_(std=0.3)
    return model


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(pixel_values=x).logits


@pytest.mark.parametrize("name", MODELS)
def test_is_torchs(name):
    plain = make(name)
    fast = honed.hone(copy.deepcopy(plain))
    assert len(fused(fast)) >= MODELS[name][1]
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for format in (torch.contiguous_format, torch.channels_last):
        close(Logits(fast), Logits(plain), x.to(memory_format=format))
    outs = []
    for model in (plain, fast):
        with torch.no_grad():
            outs.append(model(x, output_hidden_states=True, labels=torch.tensor([1, 2])))
    assert outs[0].keys() == outs[1].keys() and type(outs[0]) is type(outs[1])
    assert torch.allclose(outs[0].loss, outs[1].loss, rtol=1e-4)
    for one, other in zip(outs[0].hidden_states, outs[1].hidden_states, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)
    assert {*fast.state_dict()} == {*plain.state_dict()}
    assert honed.report(fast).rows
    honed.unhone(fast)
    with torch.no_grad():
        assert torch.equal(fast(x).logits, plain(x).logits)
