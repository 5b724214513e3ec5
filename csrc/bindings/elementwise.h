// What the elementwise ops share: memory without gaps is one row, whatever the order of its
// dimensions.
#pragma once
#include <algorithm>
#include <optional>

#include "bindings/function.h"

namespace honed::bindings {

// The order of dimensions, slowest first, in which the tensor's memory is contiguous; false where
// there are gaps, overlaps or negative strides, and then the order is the given one.
inline bool dense_order(const TensorView& t, int* order) {
  for (int i = 0; i < t.ndim; ++i) order[i] = i;
  std::stable_sort(order, order + t.ndim,
                   [&](int a, int b) { return t.strides[a] > t.strides[b]; });
  int64_t expected = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    int d = order[i];
    if (t.shape[d] == 1) continue;
    if (t.strides[d] != expected) {
      for (int j = 0; j < t.ndim; ++j) order[j] = j;
      return false;
    }
    expected *= t.shape[d];
  }
  return true;
}

// The next result, like `t`: with its strides where its memory is dense (as torch has it), else
// contiguous.
inline TensorView make_as(Results& results, const TensorView& t) {
  int order[kMaxDims];
  if (t.contiguous() || !dense_order(t, order)) return results.make_like(t);
  return results.make_in_order(t, order);
}

inline TensorView one_row(const TensorView& t) {
  TensorView row = t;
  row.ndim = 2;
  row.shape[0] = row.strides[1] = 1;
  row.shape[1] = row.strides[0] = t.numel();
  return row;
}

// Tensors of one shape as matrices (R,C) of unit stride along C: the dimensions in the first one's
// order of memory, joined where all allow it. Operands that do not lie so are copied; results (made
// as the first, or contiguous but for gaps between rows) always do.
template <int operands, int results>
class Matrices {
  static constexpr int kAll = operands + results;

 public:
  // Operands, then results; a result that is not wanted has no type.
  explicit Matrices(const TensorView (&tensors)[kAll]) {
    bool plain = true;
    for (const TensorView& t : tensors) plain = plain && (!t.data || t.contiguous());
    if (plain) {
      for (int k = 0; k < kAll; ++k) views_[k] = one_row(tensors[k]);
      return;
    }
    int order[kMaxDims];
    dense_order(tensors[0], order);
    for (int k = 0; k < kAll; ++k) {
      views_[k] = tensors[k];
      for (int i = 0; i < tensors[0].ndim && tensors[k].data; ++i) {
        views_[k].shape[i] = tensors[k].shape[order[i]];
        views_[k].strides[i] = tensors[k].strides[order[i]];
      }
    }
    if (join()) return;
    for (int k = 0; k < operands; ++k)
      if (!views_[k].contiguous()) views_[k] = *copies_[k].emplace(views_[k]).view();
    join();
  }
  const TensorView& operator[](int k) const { return views_[k]; }
  const TensorView* wanted(int k) const { return views_[k].data ? &views_[k] : nullptr; }

 private:
  // Joins neighbouring dimensions; false, and nothing done, where more than two are left.
  bool join() {
    int ndim = views_[0].ndim;
    int64_t shape[2] = {1, 1};  // columns, rows
    int64_t strides[kAll][2];
    int at = -1;
    for (int d = ndim - 1; d >= 0; --d) {
      int64_t size = views_[0].shape[d];
      if (size == 1) continue;
      bool joined = at >= 0;
      for (int k = 0; k < kAll && joined; ++k)
        joined = !views_[k].data || views_[k].strides[d] == strides[k][at] * shape[at];
      if (joined) {
        shape[at] *= size;
        continue;
      }
      if (++at == 2) return false;
      shape[at] = size;
      for (int k = 0; k < kAll; ++k) strides[k][at] = views_[k].strides[d];
    }
    for (int k = 0; k < kAll && at >= 0; ++k)
      if (views_[k].data && strides[k][0] != 1) return false;
    for (int k = 0; k < kAll; ++k) {
      views_[k].ndim = 2;
      views_[k].shape[0] = shape[1];
      views_[k].shape[1] = shape[0];
      views_[k].strides[0] = at == 1 ? strides[k][1] : shape[0];
      views_[k].strides[1] = 1;
    }
    return true;
  }

  TensorView views_[kAll];
  std::optional<Dense> copies_[operands];
};

// Half of the last dimension, of which `t` holds two.
inline TensorView half_of(const TensorView& t, int which) {
  TensorView half = t;
  int64_t& size = half.shape[t.ndim - 1];
  size /= 2;
  half.data = t.as<char>() + which * size * t.stride(-1) * size_of(t.dtype);
  return half;
}

}  // namespace honed::bindings
