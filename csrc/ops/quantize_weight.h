// Weights (N,K) into the panels of ops/linear.h: as they are, or rounded.
//
//   int8   q = round(w / s), s = max |w| / 127, a channel
//   int4   q = round((w - low) / step) in [0, 15], low and step f16 a group of inputs: of some ranges
//          inside [min w, max w], the one whose integers fit best after a least-squares refit of both
//
// The fit weighs the error of input k by importance[k] (all 1 where absent): with the mean square of
// what reaches the input, it is the error of the product that is least, not that of the weight.
//
// Parallel over panels.
#pragma once
#include "ops/linear.h"

namespace honed {

struct QuantizeWeightArgs {
  struct Source {
    const void* data;
    int64_t rows, row_stride, col_stride;
    DType dtype;
  };
  const Source* sources;
  int count;
  WeightKind kind;
  bool gated;
  int group;
  int64_t k, k_padded, panel_bytes;
  uint8_t* data;
  float* scales;
  const float* importance;  // int4: (k_padded,); nullptr: all 1
};

}  // namespace honed
