"""Layouts of images while tracing, as csrc/bindings/channels.h and _conv.h have them."""


def lies_channels_last(t, channel):
    """Whether the channels lie last in memory without gaps, and the tensor is not contiguous as well."""
    return not t.is_contiguous() and t.movedim(channel, -1).is_contiguous()


def empty_in_layout(like, shape, channel, last, dtype=None):
    """An empty tensor of that shape, contiguous or with the channels last."""
    if not last:
        return like.new_empty(shape, dtype=dtype)
    moved = [*shape[:channel], *shape[channel + 1 :], shape[channel]]
    return like.new_empty(moved, dtype=dtype).movedim(-1, channel)


def empty_image(input, shape):
    """The empty result of a convolution: with the channels last where ``input`` has them so."""
    last = input.dim() > 3 and not input.is_contiguous() and input.stride(1) == 1 and input.shape[1] != 1
    return empty_in_layout(input, shape, 1, last)
