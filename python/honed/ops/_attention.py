"""What attention's options mean, with and without torch."""

from operator import index

from honed._lib import torch

NAME = "scaled_dot_product_attention"


def window_bounds(window, is_causal) -> tuple[int, int]:
    """How far left and right a query sees, -1 without bound."""
    try:
        widths = (None, None) if window is None else window
        left, right = (-1 if width is None else index(width) for width in widths)
        if left < -1 or right < -1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"{NAME}: window is {window!r}, expected (left, right), each a number of keys, or -1 or None"
        ) from None
    return left, 0 if is_causal else right


def offset_and_end(query_offset) -> tuple[int, bool]:
    """The offset, and whether it counts from the end."""
    if isinstance(query_offset, str):
        if query_offset == "end":
            return 0, True
    elif hasattr(query_offset, "__index__"):
        return int(query_offset), False
    raise ValueError(f"{NAME}: query_offset is {query_offset!r}, expected a whole number or 'end'")


def seed_of(seed, like) -> int:
    """The dropout's seed: what was given, or the next number of torch's generator."""
    if seed is None:
        if torch is None or not isinstance(like, torch.Tensor):
            raise ValueError(f"{NAME}: got dropout_p and no seed, expected a seed with arrays")
        return int(torch.randint(1 << 62, ()))
    if not hasattr(seed, "__index__") or not 0 <= int(seed) < 1 << 63:
        raise ValueError(f"{NAME}: seed is {seed!r}, expected a whole number from 0 to 2^63 - 1")
    return int(seed)


def offset_of(bias, query, key, query_offset):
    """The offset that an object of ``torch.nn.attention.bias`` stands for."""
    got, expected = [query.shape[-2], key.shape[-2]], [bias.seq_len_q, bias.seq_len_kv]
    if got != expected:
        raise ValueError(f"{NAME}: T and S are {got}, expected attn_mask's {expected}")
    if query_offset != 0:
        raise ValueError(f"{NAME}: got {type(bias).__name__} and query_offset, expected at most one of them")
    return expected[1] - expected[0] if bias.variant.name == "LOWER_RIGHT" else 0
