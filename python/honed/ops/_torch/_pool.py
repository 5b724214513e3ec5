"""What the poolings share in torch: shapes of results and gradients."""

from honed.ops._torch._layout import empty_in_layout, lies_channels_last


def channel_of(t, dims):
    return t.dim() - dims - 1


def spatial(t, dims):
    """``(h, w)``; h is 1 of one dimension."""
    return (t.shape[-2] if dims == 2 else 1, t.shape[-1])


def is_last(t, dims):
    return lies_channels_last(t, channel_of(t, dims))


def empty_result(t, dims, h, w, last=None, dtype=None):
    """An empty tensor with other spatial sizes, in the layout of t or the given one."""
    channel = channel_of(t, dims)
    if last is None:
        last = lies_channels_last(t, channel)
    return empty_in_layout(t, (*t.shape[:-dims], *(h, w)[2 - dims :]), channel, last, dtype)


def anything(like, shape):
    """An input of that shape, for gradients that do not depend on its elements."""
    return like.new_zeros(()).expand(shape).requires_grad_()


def pooled(size, kernel, stride, padding, dilation, ceil_mode):
    """How many windows there are along a dimension."""
    count = (
        size + 2 * padding - dilation * (kernel - 1) - 1 + (stride - 1 if ceil_mode else 0)
    ) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return count
