// What the normalisations over the last dimensions share.
#pragma once
#include <optional>

#include "bindings/function.h"
#include "ops/_norm.h"

namespace honed::bindings {

// The tensor as rows of its last `dims` dimensions; borrowed where the strides allow it.
class NormRows {
 public:
  NormRows(const TensorView& tensor, int64_t dims) {
    TensorView t = tensor;
    for (int64_t joined = 1; joined < dims; ++joined) {
      int last = t.ndim - 1;
      if (t.shape[last - 1] != 1 && t.strides[last - 1] != t.strides[last] * t.shape[last]) {
        dense_.emplace(tensor);
        t = *dense_->view();
        joined = 0;
        continue;
      }
      t.shape[last - 1] *= t.shape[last];
      t.strides[last - 1] = t.strides[last];
      --t.ndim;
    }
    rows_.emplace(t);
  }
  const TensorView& view() const { return rows_->view(); }

 private:
  std::optional<Dense> dense_;
  std::optional<Rows> rows_;
};

inline void check_dims(const char* op, const TensorView& x, int64_t dims) {
  HONED_CHECK(x.ndim > 0, op, ": input has no dimensions, expected at least 1");
  HONED_CHECK(dims > 0 && x.ndim >= dims, op, ": input has shape ", shape_of(x),
              ", expected at least ", dims, " dimensions");
}

inline void check_last(const char* op, const TensorView& x, int64_t dims, int64_t size) {
  check_dims(op, x, dims);
  int64_t last = 1;
  for (int64_t i = 1; i <= dims; ++i) last *= x.size(int(-i));
  HONED_CHECK(last == size, op, ": input has shape ", shape_of(x),
              dims == 1 ? ", expected its last dimension to be "
                        : ", expected the elements of its last dimensions to be ",
              size);
}

// A weight or bias has the shape of the last `dims` dimensions.
inline void check_vector(const char* op, const char* what, const TensorView* v, const TensorView& x,
                         int64_t dims) {
  if (!v) return;
  bool same = v->ndim == dims;
  for (int64_t i = 1; same && i <= dims; ++i) same = v->size(int(-i)) == x.size(int(-i));
  TensorView last = x;
  last.ndim = int(dims);
  for (int64_t i = 0; i < dims; ++i) last.shape[i] = x.shape[x.ndim - dims + i];
  HONED_CHECK(same, op, ": ", what, " has shape ", shape_of(*v), ", expected ", shape_of(last));
}

inline void check_like(const char* op, const char* what, const TensorView* t, const TensorView& x) {
  HONED_CHECK(!t || same_shape(*t, x), op, ": ", what, " has shape ", shape_of(*t),
              ", expected input's, ", shape_of(x));
}

}  // namespace honed::bindings
