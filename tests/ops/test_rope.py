"""rope_table against transformers, rope against a model's own function."""

import numpy as np
import pytest
import torch

from honed import ops

_PARAMETERS = {
    "default": {},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0, "max_position_embeddings": 64},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 64},
    "yarn_scaled": {
        "factor": 40.0,
        "original_max_position_embeddings": 64,
        "mscale": 0.7,
        "mscale_all_dim": 1.3,
        "beta_fast": 16,
        "beta_slow": 2,
        "truncate": False,
    },
    "yarn_attention": {"factor": 4.0, "original_max_position_embeddings": 64, "attention_factor": 1.25},
    "longrope": {
        "factor": 4.0,
        "original_max_position_embeddings": 64,
        "short_factor": [1.0 + 0.01 * i for i in range(8)],
        "long_factor": [2.0 + 0.5 * i for i in range(8)],
    },
}


@pytest.mark.parametrize("length", [50, 200])
@pytest.mark.parametrize("partial", [1.0, 0.25])
@pytest.mark.parametrize("name", _PARAMETERS)
def test_tables_are_those_of_transformers(name, partial, length):
    utils = pytest.importorskip("transformers.modeling_rope_utils")
    transformers = pytest.importorskip("transformers")
    kind = name.split("_")[0]
    parameters = {"rope_type": kind, "rope_theta": 5000.0, **_PARAMETERS[name]}
    if partial != 1.0:
        parameters["partial_rotary_factor"] = partial
    config = transformers.LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        head_dim=round(16 / partial),
        max_position_embeddings=64,
        rope_parameters={k: v for k, v in parameters.items() if k != "max_position_embeddings"},
    )
    if kind == "default":  # of the models NeoX is one that rotates a part
        neox = pytest.importorskip("transformers.models.gpt_neox.modeling_gpt_neox")
        frequencies, factor = neox.GPTNeoXRotaryEmbedding.compute_default_rope_parameters(config)
    else:
        frequencies, factor = utils.ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
    angles = torch.arange(length).float()[:, None] * frequencies.float()
    cos, sin = ops.rope_table(round(16 / partial), length, scaling=parameters)
    assert cos.dtype == sin.dtype == torch.float32
    assert torch.equal(cos, angles.cos() * factor)
    assert torch.equal(sin, angles.sin() * factor)


def test_tables_in_numpy_agree(monkeypatch):
    from honed.ops import _rope_table

    for name, parameters in _PARAMETERS.items():
        scaling = {"rope_type": name.split("_")[0], **parameters}
        want = ops.rope_table(16, 100, scaling=scaling)
        with monkeypatch.context() as patch:
            patch.setattr(_rope_table, "_lib", np)
            got = ops.rope_table(16, 100, scaling=scaling)
        for table, other in zip(got, want, strict=True):
            assert isinstance(table, np.ndarray) and table.dtype == np.float32
            # An angle of at most 100 is off by an ulp of it or two, from pow and the product.
            np.testing.assert_allclose(table, other.numpy(), atol=4 * 100 * np.finfo(np.float32).eps, rtol=0)


def test_rope_is_that_of_llama():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    q = torch.randn(2, 3, 7, 16)  # (B, H, T, D), as models have it
    cos, sin = ops.rope_table(16, 40)
    positions = torch.randint(40, (2, 7))
    wide_cos, wide_sin = (torch.cat((t[positions], t[positions]), -1) for t in (cos, sin))
    want, _ = llama.apply_rotary_pos_emb(q, q, wide_cos, wide_sin)
    got = ops.rope(q.transpose(1, 2), cos, sin, positions).transpose(1, 2)
    torch.testing.assert_close(got, want)


def test_rope_interleaved_is_that_of_gptj():
    gptj = pytest.importorskip("transformers.models.gptj.modeling_gptj")
    q = torch.randn(2, 7, 3, 16)
    cos, sin = ops.rope_table(16, 7)
    want = gptj.apply_rotary_pos_emb(q, sin.expand(2, 7, 8), cos.expand(2, 7, 8))
    torch.testing.assert_close(ops.rope(q, cos, sin, interleaved=True), want)


def test_gradient():
    x = torch.randn(1, 3, 2, 8, dtype=torch.float32, requires_grad=True)
    cos, sin = ops.rope_table(6, 3)
    for interleaved in (False, True):
        x.grad = None
        ops.rope(x, cos, sin, interleaved=interleaved).square().sum().backward()
        # A rotation keeps the norm.
        torch.testing.assert_close(x.grad, 2 * x.detach())


def test_refusals():
    x = torch.randn(1, 3, 2, 8)
    cos, sin = ops.rope_table(8, 5)
    with pytest.raises(IndexError, match=r"rope: position 5 is out of range, expected .* less than 5"):
        ops.rope(x, cos, sin, torch.tensor([0, 5, 1]))
    with pytest.raises(IndexError, match="rope: position -1 is out of range"):
        ops.rope(x, cos, sin, torch.tensor([[0, -1, 1]]))
    with pytest.raises(IndexError, match="rope: x has 3 positions, expected at most 2"):
        ops.rope(x, cos[:2], sin[:2])
    with pytest.raises(ValueError, match=r"rope: positions has shape \[2\]"):
        ops.rope(x, cos, sin, torch.tensor([0, 1]))
    with pytest.raises(TypeError, match="rope: positions is int32, expected int64"):
        ops.rope(x, cos, sin, torch.zeros(3, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"rope: x has shape \[3, 2, 8\]"):
        ops.rope(x[0], cos, sin)
    with pytest.raises(ValueError, match="rope: cos has shape"):
        ops.rope(x[..., :4], cos, sin)
    with pytest.raises(ValueError, match="rope: sin has shape"):
        ops.rope(x, cos, sin[:4])
    with pytest.raises(ValueError, match="rope_table: rope_type is 'spiral'"):
        ops.rope_table(8, 5, scaling={"rope_type": "spiral"})
    with pytest.raises(ValueError, match="rope_table: scaling of type 'linear' has no 'factor'"):
        ops.rope_table(8, 5, scaling={"rope_type": "linear"})
    with pytest.raises(ValueError, match="rope_table: 7 elements are rotated"):
        ops.rope_table(7, 5)
