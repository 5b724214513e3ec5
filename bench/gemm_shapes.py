"""The shapes that bench/gemm.py times: y (M, N) = x (M, K) times the transpose of w (N, K)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    family: str
    name: str
    m: int
    n: int
    k: int

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.n * self.k


SQUARES = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
ROWS = (1, 2, 4, 8, 16, 64, 128, 512)

# Linear layers: outputs, inputs. A layer that an earlier model has too is timed once.
LAYERS = {
    "gpt2": {
        "qkv": (2304, 768),
        "attn-out": (768, 768),
        "up": (3072, 768),
        "down": (768, 3072),
        "head": (50257, 768),
    },
    "bert": {"query": (768, 768), "up": (3072, 768), "down": (768, 3072), "head": (30522, 768)},
    "smollm2": {
        "query": (576, 576),
        "key": (192, 576),
        "up": (1536, 576),
        "down": (576, 1536),
        "head": (49152, 576),
    },
    "llama1b": {
        "query": (2048, 2048),
        "key": (256, 2048),
        "up": (5632, 2048),
        "down": (2048, 5632),
        "head": (32000, 2048),
    },
    "llama7b": {
        "query": (4096, 4096),
        "up": (11008, 4096),
        "down": (4096, 11008),
        "head": (32000, 4096),
    },
}

# ResNet-50 on one image of 224 x 224: output pixels, output channels, input channels x window.
CONVOLUTIONS = {
    "conv1": (12544, 64, 147),
    "conv2-1x1-in": (3136, 64, 64),
    "conv2-3x3": (3136, 64, 576),
    "conv2-1x1-out": (3136, 256, 64),
    "conv2-1x1-next": (3136, 64, 256),
    "conv3-1x1-in": (3136, 128, 256),
    "conv3-3x3": (784, 128, 1152),
    "conv3-1x1-out": (784, 512, 128),
    "conv3-shortcut": (784, 512, 256),
    "conv3-1x1-next": (784, 128, 512),
    "conv4-1x1-in": (784, 256, 512),
    "conv4-3x3": (196, 256, 2304),
    "conv4-1x1-out": (196, 1024, 256),
    "conv4-shortcut": (196, 1024, 512),
    "conv4-1x1-next": (196, 256, 1024),
    "conv5-1x1-in": (196, 512, 1024),
    "conv5-3x3": (49, 512, 4608),
    "conv5-1x1-out": (49, 2048, 512),
    "conv5-shortcut": (49, 2048, 1024),
    "conv5-1x1-next": (49, 512, 2048),
    "fc": (1, 1000, 2048),
}

ODD = (
    (13, 17, 19),
    (31, 37, 41),
    (61, 67, 71),
    (127, 131, 137),
    (251, 257, 263),
    (509, 521, 523),
    (1009, 1013, 1019),
    (7, 1009, 1013),
    (1009, 7, 1013),
    (1009, 1013, 7),
    (3, 4099, 509),
    (2039, 31, 2053),
)
SKINNY_K = (
    (512, 512, 4),
    (512, 512, 8),
    (512, 512, 16),
    (2048, 2048, 16),
    (4096, 4096, 32),
    (1024, 1024, 64),
)
SKINNY_N = ((512, 1, 512), (512, 2, 768), (4096, 4, 1024), (512, 8, 2048), (4096, 10, 256), (2048, 16, 2048))

# The fixed cost of a call.
TINY = (
    (1, 8, 8),
    (8, 8, 8),
    (1, 16, 16),
    (4, 16, 16),
    (16, 16, 16),
    (1, 32, 32),
    (8, 32, 32),
    (1, 64, 64),
    (4, 64, 64),
    (1, 128, 64),
)


def _plain(family: str, sizes) -> list[Shape]:
    return [Shape(family, f"{m}x{n}x{k}", m, n, k) for m, n, k in sizes]


def layers(rows=ROWS) -> list[Shape]:
    seen, found = set(), []
    for model, of_model in LAYERS.items():
        for layer, size in of_model.items():
            if size not in seen:
                seen.add(size)
                found += [Shape(model, f"{model}/{layer}@{m}", m, *size) for m in rows]
    return found


def everything() -> list[Shape]:
    return [
        *_plain("square", ((s, s, s) for s in SQUARES)),
        *layers(),
        *(Shape("resnet50", f"resnet50/{name}", *size) for name, size in CONVOLUTIONS.items()),
        *_plain("odd", ODD),
        *_plain("skinny-k", SKINNY_K),
        *_plain("skinny-n", SKINNY_N),
    ]


def tiny() -> list[Shape]:
    return _plain("tiny", TINY)
