// y[b,c,s] = (x[b,c,s] - mean) / dev * w[c] + b[c]      x, y: (B,C,S), contiguous; w, b: (C,) or absent
// dx = (g w - mean(g w) - n mean(g w n)) / dev, dw[c] = sum_bs g n, db[c] = sum_bs g
//
// mean, var (biased) and the other means are over a group of C / groups channels of one b; dev =
// sqrt(var + eps), n = (x - mean) / dev, g = dy. Types as in ops/_norm.h. Parallel over b and groups;
// the sums of each b are added in their order.
#pragma once
#include "ops/_norm.h"

namespace honed {

struct GroupNormArgs {
  const void *x, *w, *b;  // w nullptr: ones, b nullptr: zeros; of the sums' type
  void* y;
  int64_t batch, channels, groups, size;  // B, C, groups, S
  double eps;
  DType dtype;
};

struct GroupNormBackwardArgs {
  const void *g, *x, *w;
  void *dx, *w_sums, *b_sums;  // nullptr: not wanted; sums: (B,C)
  int64_t batch, channels, groups, size;
  double eps;
  DType dtype;
};

// x, y, g and dx: contiguous, (B,C,...).
void group_norm(const TensorView& y, const TensorView& x, const TensorView* w, const TensorView* b,
                int64_t groups, double eps);
void group_norm_backward(const NormGradients& gradients, int64_t groups, double eps);

}  // namespace honed
