// What the bindings of losses share.
#pragma once
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

// The shape of the loss: the target's, or a number.
inline std::span<const int64_t> loss_shape(const TensorView& target, const LossOptions& options) {
  return {target.shape, options.reduction == Reduction::none ? size_t(target.ndim) : 0};
}

}  // namespace honed::bindings
