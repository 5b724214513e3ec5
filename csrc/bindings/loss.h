// What the bindings of losses share.
#pragma once
#include <algorithm>

#include "bindings/function.h"
#include "core/check.h"
#include "ops/cross_entropy.h"

namespace honed::bindings {

inline LossOptions loss_options(int64_t ignore_index, int64_t reduction, double smoothing,
                                double z_loss, double softcap) {
  HONED_CHECK(reduction >= 0 && reduction <= int64_t(Reduction::sum), "loss: reduction is ",
              reduction, ", expected 0 (none), 1 (mean) or 2 (sum)");
  return {ignore_index, Reduction(reduction), smoothing, z_loss, softcap};
}

// input: (..., C), target: (...)
inline void check_rows(const char* op, const TensorView& input, const TensorView& target) {
  HONED_CHECK(input.ndim > 0, op, ": input has no dimensions, expected at least 1");
  HONED_CHECK(target.ndim == input.ndim - 1 &&
                  std::equal(target.shape, target.shape + target.ndim, input.shape),
              op, ": target has shape ", shape_of(target), " and rows of input ", shape_of(input),
              ", expected a target for each row");
}

// The loss: of the target's shape, or a number; wide: f32 of a narrower input.
inline TensorView make_loss(Results& results, const TensorView& input, const TensorView& target,
                            const LossOptions& options, bool wide) {
  const size_t dims = options.reduction == Reduction::none ? size_t(target.ndim) : 0;
  return results.make({target.shape, dims},
                      wide && is_float(input.dtype) ? DType::f32 : input.dtype);
}

}  // namespace honed::bindings
