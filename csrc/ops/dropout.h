// y[i] = x[i] / (1 - p) where element i is kept, else 0      x: (R,C), y: (R,C) contiguous
//
// i counts the elements in row-major order. It is kept where random_column(random_bits(seed, i /
// 2^20), i % 2^20) >= drop_threshold(p) (core/rng.h): the mask depends on seed and place only, not
// on strides or threads, and is made again in the backward, which is the same function of the
// gradient. f64, f32, f16 or bf16; any row stride and unit stride along C of x. Parallel over rows,
// or over blocks of kDropoutBlock columns of the only row.
#pragma once
#include "core/tensor_view.h"

namespace honed {

inline constexpr int64_t kDropoutBlock = 4096, kDropoutRow = 1 << 20;

struct DropoutArgs {
  const void* x;
  void* y;
  int64_t rows, cols, x_stride;
  uint64_t seed;
  uint32_t threshold;
  double scale;
  DType dtype;
};

// y and x are 2-D; p in [0, 1].
void dropout(const TensorView& y, const TensorView& x, uint64_t seed, double p);

}  // namespace honed
