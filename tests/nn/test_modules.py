"""honed.nn's modules of one op: torch's results, state and manners."""

import copy
import pickle

import pytest
import torch
from tests.nn.conftest import agree, twins

import honed.nn

X = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([[1, 0, 5], [9, 1, 1]])
CLASSES = torch.tensor([0, 5, -100, 2])
CASES = {
    "LayerNorm": ("LayerNorm", (8,), {}, (X,)),
    "LayerNorm, no bias": ("LayerNorm", (8,), {"bias": False, "eps": 1e-3}, (X,)),
    "LayerNorm, no weight": ("LayerNorm", (8,), {"elementwise_affine": False}, (X,)),
    "LayerNorm, two dimensions": ("LayerNorm", ((6, 8),), {}, (X,)),
    "RMSNorm": ("RMSNorm", (8,), {}, (X,)),
    "RMSNorm, no weight": ("RMSNorm", (8,), {"eps": 1e-3, "elementwise_affine": False}, (X,)),
    "GroupNorm": ("GroupNorm", (3, 6), {}, (X,)),
    "GroupNorm, no weight": ("GroupNorm", (2, 6), {"affine": False}, (X,)),
    "Embedding": ("Embedding", (10, 8), {}, (IDS,)),
    "Embedding, padding": ("Embedding", (10, 8), {"padding_idx": 1}, (IDS,)),
    "Embedding, by frequency": ("Embedding", (10, 8), {"scale_grad_by_freq": True}, (IDS,)),
    "GELU": ("GELU", (), {}, (X,)),
    "GELU, tanh": ("GELU", (), {"approximate": "tanh"}, (X,)),
    "SiLU": ("SiLU", (), {}, (X,)),
    "Softmax": ("Softmax", (-1,), {}, (X,)),
    "Softmax, another dimension": ("Softmax", (1,), {}, (X,)),
    "LogSoftmax": ("LogSoftmax", (-1,), {}, (X,)),
    "LogSoftmax, another dimension": ("LogSoftmax", (0,), {}, (X,)),
    "Dropout, no share": ("Dropout", (0.0,), {}, (X,)),
    "CrossEntropyLoss": ("CrossEntropyLoss", (), {}, (X[:, 0], CLASSES)),
    "CrossEntropyLoss, options": (
        "CrossEntropyLoss",
        (torch.arange(1.0, 9.0),),
        {"reduction": "sum", "label_smoothing": 0.1},
        (X[:, 0], CLASSES),
    ),
    "CrossEntropyLoss, each": (
        "CrossEntropyLoss",
        (),
        {"reduction": "none", "ignore_index": 5},
        (X[:, 0], CLASSES.clamp(min=0)),
    ),
    "CrossEntropyLoss, shares": ("CrossEntropyLoss", (), {}, (X[:, 0], X[:, 1].softmax(-1))),
    "CrossEntropyLoss, images": ("CrossEntropyLoss", (), {}, (X, torch.arange(32).view(4, 8) % 6)),
}


@pytest.mark.parametrize("case", CASES)
def test_is_torchs(case):
    name, args, options, inputs = CASES[case]
    plain, fast = twins(name, *args, **options)
    assert isinstance(fast, type(plain)) and repr(fast) == repr(plain)
    for gradients in (False, True):
        agree(plain, fast, *inputs, gradients=gradients)
        if name != "CrossEntropyLoss":  # torch.nn.Module.double() leaves the classes' weights as they were
            wide = [x.double() if x.is_floating_point() else x for x in inputs]
            agree(plain.double(), fast.double(), *wide, gradients=gradients)
            plain.float(), fast.float()


@pytest.mark.parametrize("case", CASES)
def test_manners(case):
    name, args, options, inputs = CASES[case]
    _, fast = twins(name, *args, **options)
    expected = fast(*inputs)
    for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert type(copied) is type(fast)
        assert torch.equal(copied(*inputs), expected)
    torch._dynamo.reset()
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(*inputs), expected, atol=1e-6)
    meta = copy.deepcopy(fast).to("meta")
    assert meta(*(x.to("meta") for x in inputs)).shape == expected.shape
    traced = torch.fx.symbolic_trace(torch.nn.Sequential(fast)) if len(inputs) == 1 else fast
    assert torch.allclose(traced(*inputs), expected, atol=1e-6)
    if name != "Embedding" and not options.get("padding_idx"):
        seen = []
        fast.register_forward_hook(lambda module, given, out: seen.append(out))
        fast(*inputs)
        assert len(seen) == 1


@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "Softmax", "GELU"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(name, dtype):
    plain, fast = twins(name, *({"Softmax": (-1,), "GELU": ()}.get(name, (8,))))
    agree(plain.to(dtype), fast.to(dtype), X.to(dtype), gradients=True)


@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "GroupNorm", "Softmax", "GELU", "CrossEntropyLoss"])
def test_autocast(name):
    args = {"GroupNorm": (3, 6), "Softmax": (-1,), "GELU": (), "CrossEntropyLoss": ()}.get(name, (8,))
    plain, fast = twins(name, *args)
    x = X[:, 0] if name == "CrossEntropyLoss" else X
    more = (CLASSES,) if name == "CrossEntropyLoss" else ()
    for given in (x, x.bfloat16()):
        with torch.autocast("cpu"):
            got, expected = fast(given, *more), plain(given, *more)
        assert got.dtype == expected.dtype
        assert torch.allclose(got.float(), expected.float(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm", "Embedding"])
def test_parametrized_weights(name):
    plain, fast = twins(name, *((10, 8) if name == "Embedding" else (8,)))
    for module in (plain, fast):
        torch.nn.utils.parametrize.register_parametrization(module, "weight", torch.nn.Tanh())
    x = IDS if name == "Embedding" else X
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            assert torch.allclose(fast(x), plain(x), atol=1e-6)


def test_embedding_renormalises_in_place():
    plain, fast = twins("Embedding", 10, 8, max_norm=1.0)
    with torch.no_grad():
        assert torch.allclose(fast(IDS), plain(IDS))
    assert torch.allclose(fast.weight, plain.weight) and fast.weight[9].norm() <= 1 + 1e-5


def test_in_place():
    x = X.clone()
    assert honed.nn.SiLU(inplace=True)(x) is x and torch.allclose(x, torch.nn.functional.silu(X))
    x = X.clone()
    torch.manual_seed(0)
    assert honed.nn.Dropout(0.5, inplace=True)(x) is x and (x == 0).any()


def test_dropout():
    fast = honed.nn.Dropout(0.25)
    x = torch.ones(200, 300, requires_grad=True)
    torch.manual_seed(1)
    y = fast(x)
    torch.manual_seed(1)
    assert torch.equal(fast(x), y) and not torch.equal(fast(x), y)
    kept = y != 0
    assert abs(kept.float().mean().item() - 0.75) < 5 * (0.75 * 0.25 / 60000) ** 0.5
    assert torch.allclose(y[kept], torch.tensor(1 / 0.75))
    y.backward(x * 2)
    assert torch.allclose(x.grad, kept * 2 / 0.75)
    assert torch.equal(fast.eval()(x), x)
