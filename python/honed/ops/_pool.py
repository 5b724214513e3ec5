"""Arguments of the poolings: a number or one a dimension, as (height, width)."""


def sizes(name, what, value, dims, default=None, least=None):
    """``(h, w)`` of an argument; of one dimension h is ``least``, what changes nothing.

    ``value`` is an int, a sequence of one, or of one a dimension; ``default`` stands for ``None`` and ``()``.
    """
    if type(value) is int:
        return (value, value) if dims == 2 else (least, value)
    if value is None or isinstance(value, (tuple, list)):
        given = value if value else default
        if given is not None and len(given) in (1, dims) and all(_is_int(n) for n in given):
            w = int(given[-1])
            return (int(given[0]), w) if dims == 2 else (least, w)
    elif _is_int(value):
        return sizes(name, what, int(value), dims, default, least)
    number = "a number" if dims == 1 else "a number or a tuple of two"
    raise (ValueError if isinstance(value, (tuple, list)) else TypeError)(
        f"{name}: {what} is {value!r}, expected {number}"
    )


def _is_int(n):
    return hasattr(n, "__index__") and not isinstance(n, bool)


def window(name, dims, kernel_size, stride, padding, dilation=1):
    """``(kernel_h, kernel_w, stride_h, ...)`` as the bindings take them."""
    kernel = sizes(name, "kernel_size", kernel_size, dims, least=1)
    return (
        *kernel,
        *sizes(name, "stride", stride, dims, kernel[2 - dims :], 1),
        *sizes(name, "padding", padding, dims, least=0),
        *sizes(name, "dilation", dilation, dims, least=1),
    )
