"""The ways to multiply that bench/gemm.py compares. A provider takes a Problem and returns a call that
gives the tuple of its results, or raises Unavailable with the reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from gemm_shapes import Shape

import honed
from honed import _core
from honed.testing import allowed_error

GROUP = 32  # inputs of int4 weights that share a scale


class Unavailable(Exception):
    """This provider is not installed or does not do this type."""


class Unfit(Unavailable):
    """It does not do this shape."""


@cache
def _numbers(dtype: torch.dtype, count: int) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0)).to(dtype)


def _random(dtype: torch.dtype, rows: int, columns: int, offset: int) -> torch.Tensor:
    """From one pool of each size class: drawing 130 million numbers for each shape would take longest."""
    count = rows * columns + offset
    return _numbers(dtype, 1 << max(20, (count - 1).bit_length()))[offset:count].view(rows, columns)


@dataclass(frozen=True)
class Problem:
    """x (M, K), w (N, K) and, for gradients, dy (M, N)."""

    shape: Shape
    dtype: torch.dtype
    threads: int
    x: torch.Tensor
    w: torch.Tensor
    dy: torch.Tensor | None = None

    @classmethod
    def of(cls, shape: Shape, dtype: torch.dtype, threads: int, backward: bool) -> Problem:
        m, n, k = shape.m, shape.n, shape.k
        x, w = _random(dtype, m, k, 64), _random(dtype, n, k, 0)
        return cls(shape, dtype, threads, x, w, _random(dtype, m, n, 128) if backward else None)

    @property
    def products(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The matrices whose products are asked for."""
        return [(self.x, self.w.T)] if self.dy is None else [(self.dy, self.w), (self.dy.T, self.x)]


# ---- floats


def honed_packed(p: Problem) -> Callable:
    kinds = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
    packed = honed.ops.quantize_weight(p.w, kinds[p.dtype])
    return lambda: (honed.ops.linear(p.x, packed),)


def honed_plain(p: Problem) -> Callable:
    return lambda: (_core.linear(p.x, p.w),)


def torch_linear(p: Problem) -> Callable:
    return lambda: (torch.nn.functional.linear(p.x, p.w),)


def torch_onednn(p: Problem) -> Callable:
    """What torch.compile's freezing makes of a linear layer: a weight in oneDNN's own layout."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(p.w)
        call = torch.ops.mkldnn._linear_pointwise
        call(p.x, packed, None, "none", [], "")
    except (RuntimeError, AttributeError) as error:
        raise Unavailable(f"oneDNN: {str(error).splitlines()[0]}") from error
    return lambda: (call(p.x, packed, None, "none", [], ""),)


def torch_mkl(p: Problem) -> Callable:
    """The same with MKL's packed matrices; float32 only, and only where torch was built with MKL."""
    try:
        packed = torch.ops.mkl._mkl_reorder_linear_weight(p.w, p.shape.m)
        call = torch.ops.mkl._mkl_linear
    except (RuntimeError, AttributeError) as error:
        raise Unavailable(f"MKL: {str(error).splitlines()[0]}") from error
    return lambda: (call(p.x, packed, p.w, None, p.shape.m),)


# ---- gradients


def _gradients(linear: Callable) -> Callable:
    """Both gradients of a linear layer, by autograd; the graph is made once."""

    def provider(p: Problem) -> Callable:
        with torch.inference_mode(False), torch.enable_grad():
            x, w = (t.clone().requires_grad_() for t in (p.x, p.w))
            dy, y = p.dy.clone(), linear(x, w)

        def call():
            with torch.inference_mode(False):
                return torch.autograd.grad(y, (x, w), dy, retain_graph=True)

        return call

    return provider


# ---- integers


def honed_int8(p: Problem) -> Callable:
    packed = honed.ops.quantize_weight(p.w, "int8")
    return lambda: (honed.ops.linear(p.x, packed),)


def honed_int8_row(p: Problem) -> Callable:
    """One scale a row of x, as torch has one for all of x."""
    packed = honed.ops.quantize_weight(p.w, "int8", group=None)
    return lambda: (honed.ops.linear(p.x, packed),)


def honed_int4(p: Problem) -> Callable:
    packed = honed.ops.quantize_weight(p.w, "int4", group=GROUP)
    return lambda: (honed.ops.linear(p.x, packed),)


def _torch_dynamic(engine: str) -> Callable:
    """torch.ao's dynamic quantisation: int8 weights a channel, rows rounded with one scale a tensor."""

    def provider(p: Problem) -> Callable:
        if engine not in torch.backends.quantized.supported_engines:
            raise Unavailable(f"torch was built without the {engine} engine")
        torch.backends.quantized.engine = engine
        scales = (p.w.abs().amax(1) / 127).double()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            q = torch.quantize_per_channel(
                p.w, scales, torch.zeros(p.shape.n, dtype=torch.long), 0, torch.qint8
            )
            packed = torch.ops.quantized.linear_prepack(q, None)
        call = torch.ops.quantized.linear_dynamic
        return lambda: (call(p.x, packed, False),)

    return provider


def torch_int4(p: Problem) -> Callable:
    """torch's weight-only int4 product, bfloat16 rows."""
    n, k = p.shape.n, p.shape.k
    if k % GROUP or n % 16:
        raise Unfit(f"needs groups of {GROUP} inputs and 16 outputs")
    grouped = p.w.view(n, k // GROUP, GROUP)
    scale = grouped.abs().amax(2, keepdim=True) / 7
    q = ((grouped / scale).round() + 8).clamp(0, 15).to(torch.int32).view(n, k)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q, 2)
    scales = torch.stack([scale[..., 0].T, torch.zeros(k // GROUP, n)], -1).bfloat16().contiguous()
    x = p.x.bfloat16()
    return lambda: (torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, GROUP, scales),)


def _onnx_call(p: Problem, nodes: list, constants: dict[str, np.ndarray]) -> Callable:
    try:
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise Unavailable(f"ONNX Runtime: {error}") from error
    graph = helper.make_graph(
        [helper.make_node(*args, domain=domain, **attributes) for domain, args, attributes in nodes],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [p.shape.m, p.shape.k])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [p.shape.m, p.shape.n])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    sets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = p.threads, 1
    options.log_severity_level = 3
    model = helper.make_model(graph, opset_imports=sets, ir_version=10).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = {"x": p.x.numpy()}
    return lambda: (torch.from_numpy(session.run(None, given)[0]),)


def _channels_int8(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    """w as ONNX has it, (K, N) int8, and a scale a channel."""
    scale = p.w.abs().amax(1) / 127
    return (p.w / scale[:, None]).round().to(torch.int8).T.contiguous().numpy(), scale.numpy()


def onnx_dynamic(p: Problem) -> Callable:
    """What quantize_dynamic's DynamicQuantizeLinear and MatMulInteger are fused to."""
    q, s = _channels_int8(p)
    node = ("com.microsoft", ("DynamicQuantizeMatMul", ["x", "q", "s", "z"], ["y"]), {})
    return _onnx_call(p, [node], {"q": q, "s": s, "z": np.zeros_like(s, dtype=np.int8)})


def onnx_qdq(p: Problem) -> Callable:
    """Static quantisation: the scale of x is known before."""
    q, s = _channels_int8(p)
    low, high = float(p.x.min()), float(p.x.max())
    step = (high - low) / 255
    x_scale = {"xs": np.float32(step), "xz": np.uint8(round(-low / step))}
    nodes = [
        ("", ("QuantizeLinear", ["x", "xs", "xz"], ["xq"]), {}),
        ("", ("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]), {}),
        ("", ("DequantizeLinear", ["q", "s", "z"], ["wd"]), {"axis": 1}),
        ("", ("MatMul", ["xd", "wd"], ["y"]), {}),
    ]
    return _onnx_call(p, nodes, {"q": q, "s": s, "z": np.zeros_like(s, dtype=np.int8), **x_scale})


def onnx_int4(p: Problem) -> Callable:
    """MatMulNBits, 4 bits, rows rounded to int8 (accuracy level 4)."""
    n, k = p.shape.n, p.shape.k
    if k % GROUP:
        raise Unfit(f"needs groups of {GROUP} inputs")
    grouped = p.w.view(n, k // GROUP, GROUP)
    scale = grouped.abs().amax(2, keepdim=True) / 7
    q = ((grouped / scale).round() + 8).clamp(0, 15).to(torch.uint8).numpy()
    packed = q[..., 0::2] | q[..., 1::2] << 4
    attributes = {"K": k, "N": n, "bits": 4, "block_size": GROUP, "accuracy_level": 4}
    node = ("com.microsoft", ("MatMulNBits", ["x", "q", "s"], ["y"]), attributes)
    return _onnx_call(p, [node], {"q": packed, "s": scale.view(n, -1).numpy()})


FLOAT64 = {"honed": honed_plain, "torch": torch_linear}
FLOAT16 = {"honed-packed": honed_packed, **FLOAT64, "torch-onednn": torch_onednn}
FLOAT32 = {**FLOAT16, "torch-mkl": torch_mkl}
BACKWARD = {"honed": _gradients(honed.ops.linear), "torch": _gradients(torch.nn.functional.linear)}
INT8 = {
    "honed-int8-row": honed_int8_row,
    "honed-int8": honed_int8,
    "torch-fbgemm": _torch_dynamic("fbgemm"),
    "torch-onednn": _torch_dynamic("onednn"),
    "onnx-dynamic": onnx_dynamic,
    "onnx-qdq": onnx_qdq,
}
INT4 = {"honed-int4": honed_int4, "torch-int4": torch_int4, "onnx-int4": onnx_int4}


# ---- is the result right?


def _some(count: int, most: int) -> torch.Tensor:
    """Both ends and, of a long dimension, a sample of what lies between."""
    if count <= most:
        return torch.arange(count)
    between = torch.randperm(count, generator=torch.Generator().manual_seed(count))[: most - 64]
    return torch.cat([torch.arange(32), between, torch.arange(count - 32, count)])


def _rounded_rows(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (x / scale).round() * scale


def checker(p: Problem, integers: str) -> Callable:
    """check(results) -> (relative error, complaint): against float64 on sampled rows and columns.

    A float result may err twice as much as torch's own. With integers, the weight is what it was rounded
    to, and rows rounded to int8 are the measure.
    """
    parts = []
    own = BACKWARD["torch"](p)() if p.dy is not None else torch_linear(p)()
    for (left, right), theirs in zip(p.products, own, strict=True):
        rows, columns = _some(left.shape[0], 128), _some(right.shape[1], 1024)
        left64, right64 = left[rows].double(), right[:, columns].double()
        wanted, weight = left64 @ right64, right64
        measure = theirs[rows][:, columns]
        if integers:
            packed = honed.ops.quantize_weight(p.w, integers, group=GROUP)
            weight = torch.as_tensor(packed.unpack())[columns].double().T
            measure = _rounded_rows(left64) @ weight
        parts.append((rows, columns, wanted, left64 @ weight, measure))

    def check(results: tuple[torch.Tensor, ...]) -> tuple[float, str]:
        relative, complaint = 0.0, ""
        for result, (rows, columns, wanted, exact, measure) in zip(results, parts, strict=True):
            got = result[rows][:, columns].double()
            relative = max(relative, ((got - wanted).norm() / wanted.norm()).item())
            error = (got - exact).abs().max().item()
            allowed = allowed_error(exact, measure, result.dtype)
            if not error <= allowed:
                complaint = f"error {error:.3g}, allowed {allowed:.3g}"
        return relative, complaint

    return check
