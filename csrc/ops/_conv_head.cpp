// y[n, (o, k)] = activation(sum_c x[n, c] w[c, (o, k)] + b[o] + residual[n, (o, k)])
#include "ops/_conv_head.h"

#include <cstring>

#include "core/arena.h"
#include "ops/matmul.h"

namespace honed {

namespace {

// (outputs, elements) as one dimension, outputs the slower or the faster index.
bool is_flat(const TensorView& t, bool outputs_first) {
  int64_t step = 1;
  for (int i = 0; i < 4; ++i) {
    const int d = outputs_first ? 4 - i : (i == 0 ? 1 : 5 - i);
    if (t.size(d) != 1 && t.stride(d) != step) return false;
    step *= t.size(d);
  }
  return true;
}

TensorView matrix(const TensorView& t, int64_t rows, int64_t row, int64_t cols, int64_t col) {
  TensorView m = t;
  m.ndim = 2;
  m.shape[0] = rows;
  m.shape[1] = cols;
  m.strides[0] = row;
  m.strides[1] = col;
  return m;
}

}  // namespace

bool conv_head(const TensorView& y, const TensorView& x, const TensorView& w,
               const ConvShape& shape, const ConvEpilogue& e) {
  // matmul adds the residual after the activation
  if (shape.groups != 1 || (e.residual && e.activation != Activation::none)) return false;
  for (int i = 0; i < 3; ++i)
    if (x.size(2 + i) != 1 || shape.before[i] != 0 || y.size(2 + i) != shape.kernel[i] ||
        (shape.dilation[i] != 1 && shape.kernel[i] != 1))
      return false;
  bool first = true;
  auto all_flat = [&] {
    return is_flat(y, first) && is_flat(w, first) && (!e.residual || is_flat(*e.residual, first));
  };
  if (!all_flat()) {
    first = false;
    if (!all_flat()) return false;
  }
  const int64_t outputs = y.size(1), count = w.numel() / w.size(0), taps = count / outputs;
  const int64_t size = size_of(x.dtype);
  auto flat = [&](const TensorView& t) { return matrix(t, t.size(0), t.stride(0), count, 1); };
  Scratch repeated(e.bias ? count * size : 0);
  Epilogue epilogue;
  epilogue.activation = e.activation;
  TensorView bias, residual;
  if (e.bias) {
    for (int64_t i = 0; i < count; ++i)
      std::memcpy(repeated.as<char>() + i * size,
                  e.bias->as<char>() + (first ? i / taps : i % outputs) * e.bias->stride(0) * size,
                  size_t(size));
    bias = *e.bias;
    bias.data = repeated.as<void>();
    bias.shape[0] = count;
    bias.strides[0] = 1;
    epilogue.bias = &bias;
  }
  if (e.residual) {
    residual = flat(*e.residual);
    epilogue.residual = &residual;
  }
  matmul(flat(y), matrix(x, x.size(0), x.stride(0), x.size(1), x.stride(1)), flat(w), epilogue);
  return true;
}

}  // namespace honed
