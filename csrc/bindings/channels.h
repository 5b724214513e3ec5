// The layouts of images: contiguous, or with the channels last, whichever the input has.
#pragma once
#include "bindings/function.h"

namespace honed::bindings {

// The tensor with dimension `channel` moved to the end.
inline TensorView channels_moved(const TensorView& t, int channel) {
  TensorView moved = t;
  for (int i = channel; i + 1 < t.ndim; ++i) {
    moved.shape[i] = t.shape[i + 1];
    moved.strides[i] = t.strides[i + 1];
  }
  moved.shape[t.ndim - 1] = t.shape[channel];
  moved.strides[t.ndim - 1] = t.strides[channel];
  return moved;
}

// Whether the channels lie last in memory without gaps, and the tensor is not contiguous as well.
// (honed.ops._torch._layout says the same while tracing.)
inline bool lies_channels_last(const TensorView& t, int channel) {
  return !t.contiguous() && channels_moved(t, channel).contiguous();
}

// A tensor as the kernels take it, in the order of its dimensions in the layout, dense: copied where it does not
// lie so.
inline TensorView in_layout(const TensorView& t, int channel, bool last) {
  return last ? channels_moved(t, channel) : t;
}

// The next result, of that shape and type, in the layout.
inline TensorView make_in_layout(Results& results, const TensorView& like, int channel, bool last) {
  if (!last) return results.make_like(like);
  int order[kMaxDims];
  for (int i = 0; i < like.ndim; ++i) order[i] = i < channel ? i : i + 1;
  order[like.ndim - 1] = channel;
  return results.make_in_order(like, order);
}

}  // namespace honed::bindings
