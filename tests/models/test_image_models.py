"""honed.models for images: torchvision's names, the results of plain functions of torch, learning."""

import copy
import re

import pytest
import torch

import honed
from honed.models import MLP, ConvNet, MobileNetV2, ResNet
from honed.testing import allowed_error

F = torch.nn.functional
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
RESNETS = {18: (2, (2, 2, 2, 2)), 34: (2, (3, 4, 6, 3)), 50: (3, (3, 4, 6, 3))}  # convolutions of a block


def norm(name):
    return [f"{name}.{part}" for part in NORM]


def resnet_names(layers):
    """torchvision's, in its order."""
    convolutions, counts = RESNETS[layers]
    names = ["conv1.weight", *norm("bn1")]
    for stage, count in enumerate(counts, 1):
        for block in range(count):
            path = f"layer{stage}.{block}"
            for i in range(1, convolutions + 1):
                names += [f"{path}.conv{i}.weight", *norm(f"{path}.bn{i}")]
            if block == 0 and (stage > 1 or convolutions == 3):
                names += [f"{path}.downsample.0.weight", *norm(f"{path}.downsample.1")]
    return [*names, "fc.weight", "fc.bias"]


def mobilenet_names():
    names = ["features.0.0.weight", *norm("features.0.1")]
    for i in range(1, 18):
        wide = ("0.0", "0.1", "1", "2") if i == 1 else ("0.0", "0.1", "1.0", "1.1", "2", "3")
        for conv, after in zip(wide[::2], wide[1::2], strict=True):
            names += [f"features.{i}.conv.{conv}.weight", *norm(f"features.{i}.conv.{after}")]
    names += ["features.18.0.weight", *norm("features.18.1")]
    return [*names, "classifier.1.weight", "classifier.1.bias"]


class Functions:
    """Forward passes by functions of torch over a state_dict."""

    def __init__(self, state, training):
        self.state, self.training = state, training

    def conv(self, x, conv, bn, stride=1):
        weight = self.state[f"{conv}.weight"]
        groups = x.shape[1] // weight.shape[1]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        weight, bias, mean, var, _ = (self.state[name] for name in norm(bn))
        return F.batch_norm(x, mean, var, weight, bias, self.training)

    def linear(self, x, name):
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def resnet(self, x):
        x = F.max_pool2d(F.relu(self.conv(x, "conv1", "bn1", 2)), 3, 2, 1)
        blocks = {re.match(r"layer\d\.\d+", name)[0]: 0 for name in self.state if name.startswith("layer")}
        for path in blocks:
            stride = 2 if path.endswith(".0") and path != "layer1.0" else 1
            wide = f"{path}.conv3.weight" in self.state
            y = F.relu(self.conv(x, f"{path}.conv1", f"{path}.bn1", 1 if wide else stride))
            y = self.conv(y, f"{path}.conv2", f"{path}.bn2", stride if wide else 1)
            if wide:
                y = self.conv(F.relu(y), f"{path}.conv3", f"{path}.bn3")
            if f"{path}.downsample.0.weight" in self.state:
                x = self.conv(x, f"{path}.downsample.0", f"{path}.downsample.1", stride)
            x = F.relu(y + x)
        return self.linear(x.mean((2, 3)), "fc")

    def mobilenet(self, x):
        x = F.relu6(self.conv(x, "features.0.0", "features.0.1", 2))
        for i in range(1, 18):
            path, y = f"features.{i}.conv", x
            if i > 1:
                y = F.relu6(self.conv(y, f"{path}.0.0", f"{path}.0.1"))
            deep, last, after = ("0", "1", "2") if i == 1 else ("1", "2", "3")
            stride = 2 if i in (2, 4, 7, 14) else 1
            y = F.relu6(self.conv(y, f"{path}.{deep}.0", f"{path}.{deep}.1", stride))
            y = self.conv(y, f"{path}.{last}", f"{path}.{after}")
            x = x + y if x.shape == y.shape else y
        x = F.relu6(self.conv(x, "features.18.0", "features.18.1"))
        return self.linear(x.mean((2, 3)), "classifier.1")

    def convnet(self, x):
        paths = sorted({int(name.split(".")[1]) for name in self.state if name.startswith("features")})
        for i, (conv, bn) in enumerate(zip(paths[::2], paths[1::2], strict=True)):
            x = F.max_pool2d(x, 2) if i > 0 else x
            x = F.relu(self.conv(x, f"features.{conv}", f"features.{bn}"))
        return self.linear(x.mean((2, 3)), "head")

    def mlp(self, x):
        x = F.relu(self.linear(x.flatten(1), "layers.0"))
        return self.linear(F.relu(self.linear(x, "layers.3")), "layers.6")


CASES = {
    "MLP": (lambda: MLP(48, 5, hidden=(20, 16), dropout=0.0), "mlp", (6, 3, 4, 4)),
    "ConvNet": (lambda: ConvNet(3, 5, widths=(6, 9, 12), dropout=0.0), "convnet", (6, 3, 13, 17)),
    "ResNet-18": (lambda: ResNet(18, channels=1, classes=5), "resnet", (4, 1, 32, 64)),
    "ResNet-50": (lambda: ResNet(50, classes=5), "resnet", (4, 3, 32, 64)),
    "MobileNetV2": (lambda: MobileNetV2(classes=5, dropout=0.0), "mobilenet", (4, 3, 32, 64)),
    "MobileNetV2, narrow": (lambda: MobileNetV2(width=0.35, dropout=0.0), "mobilenet", (3, 3, 39, 64)),
}


def made(case):
    """A model none of whose parameters and statistics is trivial, the name of its function, images."""
    torch.manual_seed(0)
    make, function, shape = CASES[case]
    model = make()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.dim() == 1:
                low, high = (0.7, 1.3) if name.endswith(("var", "weight")) else (-0.2, 0.2)
                value.uniform_(low, high)
    return model, function, torch.randn(shape)


def evaluated(model, function, x, training, dtype):
    """Output, gradients and running statistics of the model (``function`` is None) or of the function."""
    model = copy.deepcopy(model).to(dtype).train(training)
    state = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    x = x.to(dtype, copy=True).requires_grad_()
    state = {name: state[name] for name in model.state_dict()}
    y = model(x) if function is None else getattr(Functions(state, training), function)(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)).sum().backward()
    found = {"output": y, "input": x.grad}
    found |= {name: p.grad for name, p in model.named_parameters()}
    found |= {name: b for name, b in model.named_buffers() if b.is_floating_point()}
    return {name: value.detach() for name, value in found.items()}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("case", CASES)
def test_is_the_function(case, training):
    """Output, every gradient and running statistic in float64 are as near to torch's as float32 could be."""
    model, function, x = made(case)
    exact = evaluated(model, function, x, training, torch.float64)
    single = evaluated(model, function, x, training, torch.float32)
    got = evaluated(model, None, x, training, torch.float64)
    assert got.keys() == exact.keys()
    for name, value in exact.items():
        assert value.abs().max() > 0, f"nothing to compare: {name}"
        own = (single[name] - value).abs().max()
        assert (got[name] - value).abs().max() <= own, name


@pytest.mark.parametrize(
    "memory_format", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"]
)
@pytest.mark.parametrize("case", CASES)
def test_outputs_in_float32(case, memory_format):
    """As near to float64 as torch's functions, plain, honed, and plain again; the state stays what it was."""
    model, function, x = made(case)
    model = model.eval().to(memory_format=memory_format)
    exact = evaluated(model, function, x, False, torch.float64)["output"]
    single = evaluated(model, function, x, False, torch.float32)["output"]
    allowed = allowed_error(exact, single, torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for change in (lambda model: model, honed.hone, honed.unhone):
        with torch.no_grad():
            got = change(model)(x.to(memory_format=memory_format))
        assert (got.double() - exact).abs().max() <= allowed
        assert list(model.state_dict()) == list(before)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_can_be_traced(case):
    model, function, x = made(case)
    exact = evaluated(model, function, x, False, torch.float64)["output"]
    single = evaluated(model, function, x, False, torch.float32)["output"]
    with torch.no_grad():
        traced = torch.fx.symbolic_trace(model.eval())(x)
    assert (traced.double() - exact).abs().max() <= allowed_error(exact, single, torch.float32)


@pytest.mark.parametrize("layers, parameters", [(18, 11689512), (34, 21797672), (50, 25557032)])
def test_resnet_has_torchvisions_names(layers, parameters):
    with torch.device("meta"):
        model = ResNet(layers)
    assert list(model.state_dict()) == resnet_names(layers)
    assert sum(p.numel() for p in model.parameters()) == parameters  # as torchvision documents


def test_mobilenet_has_torchvisions_names(mobilenetv2):
    state = torch.load(mobilenetv2, weights_only=True)
    model = MobileNetV2.from_pretrained(mobilenetv2)
    assert list(model.state_dict()) == mobilenet_names()
    assert set(state) == set(mobilenet_names()) and not model.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "width, channels",
    [(1.4, (48, 24, 32, 48, 88, 136, 224, 448, 1792)), (0.35, (16, 8, 8, 16, 24, 32, 56, 112, 1280))],
)
def test_mobilenet_of_another_width(width, channels):
    """Multiples of 8, as those who published such weights rounded."""
    with torch.device("meta"):
        state = MobileNetV2(width=width).state_dict()
    firsts = ["features.1.conv.1.weight", *(f"features.{i}.conv.2.weight" for i in (2, 4, 7, 11, 14, 17))]
    names = ["features.0.0.weight", *firsts, "features.18.0.weight"]
    assert tuple(len(state[name]) for name in names) == channels


@pytest.mark.parametrize("layers", RESNETS)
@pytest.mark.parametrize("ending", ["safetensors", "pth"])
def test_resnet_of_a_folder(tmp_path, layers, ending):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = ResNet(layers, channels=1, classes=3).half().eval()
    # torchvision's older files are without these.
    state = {name: v for name, v in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    (save_file if ending == "safetensors" else torch.save)(state, tmp_path / f"model.{ending}")
    again = ResNet.from_pretrained(tmp_path)
    assert not again.training and again.fc.weight.dtype == torch.float16
    assert list(again.state_dict()) == resnet_names(layers)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())


def test_folders_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors or \.pth file"):
        ResNet.from_pretrained(tmp_path)
    torch.save(MobileNetV2(width=0.35, classes=3).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"ResNet\.from_pretrained: .* expected those of a ResNet-18 to 152"):
        ResNet.from_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="size mismatch"):
        MobileNetV2.from_pretrained(tmp_path)
    assert MobileNetV2.from_pretrained(tmp_path, width=0.35).classifier[1].out_features == 3
    torch.save(ResNet(18, classes=3).state_dict(), tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"holds 2 \.pth files, expected one"):
        ResNet.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"MobileNetV2\.from_pretrained: .* another model's weights"):
        MobileNetV2.from_pretrained(tmp_path / "b.pth")
    with pytest.raises(ValueError, match="ResNet: got 20 layers, expected one of"):
        ResNet(20)


def test_photos_are_named(mobilenetv2, labels, photos, example, tmp_path):
    """The example's first guess of each photo; the cat is a tabby, which ImageNet has beside the Egyptian."""
    pytest.importorskip("PIL")
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    lines = example("classify_photos", mobilenetv2, tmp_path / "labels.txt", *photos).splitlines()
    first = [lines[lines.index(str(path)) + 1].split(maxsplit=1) for path in photos]
    assert [name for _, name in first] == ["Egyptian cat", "espresso"]
    assert all(float(share.rstrip("%")) > 50 for share, _ in first)


@pytest.mark.parametrize("model, least", [("mlp", 85), ("cnn", 90)])
def test_digits_are_learnt(digits, example, model, least):
    printed = example("train_images", "--data", digits, "--model", model, "--epochs", 2)
    assert float(printed.split("%")[0]) >= least and "of 1,000 other images" in printed


def test_the_curve(digits, example, tmp_path):
    pytest.importorskip("matplotlib").use("agg")
    example("train_images", "--data", digits, "--model", "mlp", "--epochs", 1, "--curve", tmp_path / "a.png")
    head, *rows = (tmp_path / "a.csv").read_text().splitlines()
    rows = [tuple(map(float, row.split(","))) for row in rows]
    assert head == "loss,accuracy" and len(rows) == 32 and rows[-1][0] < rows[0][0] / 2
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
