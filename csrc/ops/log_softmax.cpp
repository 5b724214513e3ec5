// log_softmax: softmax's code with another last step.
#include "ops/log_softmax.h"

namespace honed {

void log_softmax(const TensorView& y, const TensorView& x, int dim) {
  run_softmax("log_softmax", y, x, dim, true);
}
void log_softmax_backward(const TensorView& dx, const TensorView& g, const TensorView& y, int dim) {
  run_softmax_backward("log_softmax_backward", dx, g, y, dim, true);
}

}  // namespace honed
