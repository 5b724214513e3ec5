// Shape arithmetic of TensorView.
#include "core/tensor_view.h"

namespace honed {

int64_t TensorView::numel() const {
  int64_t n = 1;
  for (int i = 0; i < ndim; ++i) n *= shape[i];
  return n;
}

int64_t TensorView::size(int dim) const { return shape[dim < 0 ? dim + ndim : dim]; }
int64_t TensorView::stride(int dim) const { return strides[dim < 0 ? dim + ndim : dim]; }

bool TensorView::contiguous() const {
  int64_t expected = 1;
  for (int i = ndim - 1; i >= 0; --i) {
    if (shape[i] != 1 && strides[i] != expected) return numel() == 0;
    expected *= shape[i];
  }
  return true;
}

std::string shape_of(const TensorView& view) {
  std::string text = "[";
  for (int i = 0; i < view.ndim; ++i) {
    if (i) text += ", ";
    text += std::to_string(view.shape[i]);
  }
  return text + "]";
}

float element(const TensorView& view, int64_t offset) {
  if (view.dtype == DType::f32) return view.as<float>()[offset];
  return view.dtype == DType::f16 ? to_float(view.as<f16>()[offset])
                                  : to_float(view.as<bf16>()[offset]);
}

bool same_shape(const TensorView& a, const TensorView& b) {
  if (a.ndim != b.ndim) return false;
  for (int i = 0; i < a.ndim; ++i)
    if (a.shape[i] != b.shape[i]) return false;
  return true;
}

}  // namespace honed
