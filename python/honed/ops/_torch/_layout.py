"""Layouts of images while tracing, as csrc/bindings/channels.h has them."""


def lies_channels_last(t, channel):
    """Whether the channels lie last in memory without gaps, and the tensor is not contiguous as well."""
    return not t.is_contiguous() and t.movedim(channel, -1).is_contiguous()


def empty_in_layout(like, shape, channel, last, dtype=None):
    """An empty tensor of that shape, contiguous or with the channels last."""
    if not last:
        return like.new_empty(shape, dtype=dtype)
    moved = [*shape[:channel], *shape[channel + 1 :], shape[channel]]
    return like.new_empty(moved, dtype=dtype).movedim(-1, channel)
