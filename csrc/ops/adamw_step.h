// One step of AdamW over a list of tensors, in place, as torch.optim.AdamW counts:
//   g = grad / grad_scale (maximize: negated)        p = p (1 - lr weight_decay)
//   m = m + (1 - beta1) (g - m)                      v = v beta2 + (1 - beta2) g g
//   p = p - lr / (1 - beta1^t) m / (sqrt(u) / sqrt(1 - beta2^t) + eps),  u = v, amsgrad: max(u, v)
//
// Tensors are dense and those of one parameter have one layout. Sums are f32, f64 for f64. With a
// master, an f32 copy of a 16-bit parameter, p is the master and the parameter its rounding.
// Parallel over blocks of kAdamwBlock elements of all tensors, so that small tensors cost no region.
#pragma once
#include <span>

#include "core/tensor_view.h"

namespace honed {

inline constexpr int64_t kAdamwBlock = 8192;

struct AdamwTensor {
  void* param;
  const void* grad;
  void *exp_avg, *exp_avg_sq, *max_exp_avg_sq;  // max: nullptr: no amsgrad
  float* master;                                // nullptr: none
  int64_t count, first_item;
  double step_size, root;  // lr / (1 - beta1^t), sqrt(1 - beta2^t)
  DType dtype, grad_dtype, state_dtype;
};

struct AdamwStepArgs {
  const AdamwTensor* tensors;
  int64_t count;
  double beta1, beta2, eps, decay;  // decay: 1 - lr weight_decay
  double grad_scale;
  bool maximize;
};

// The tensors of one parameter.
struct AdamwParameter {
  TensorView param, grad, exp_avg, exp_avg_sq;
  const TensorView *max_exp_avg_sq, *master;  // nullptr: none
  double step;                                // t, counted from 1
};

struct AdamwOptions {
  double lr, beta1, beta2, eps, weight_decay, grad_scale;
  bool maximize;
};

void adamw_step(std::span<const AdamwParameter> parameters, const AdamwOptions& options);

}  // namespace honed
