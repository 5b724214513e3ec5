// honed._core.dropout
#include "ops/dropout.h"

#include "bindings/function.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& input, const TensorView& seed, double p) {
  HONED_CHECK(seed.dtype == DType::i64 && seed.numel() == 1, "dropout: seed is ",
              name_of(seed.dtype), " of shape ", shape_of(seed), ", expected one int64");
  TensorView out = results.make_like(input);
  uint64_t bits = uint64_t(*seed.as<int64_t>());
  return [=] {
    Rows x(input), y(out);
    dropout(y.view(), x.view(), bits, p);
  };
}

}  // namespace

void bind_dropout(py::module_& m) {
  define<forward>(m, "dropout(Tensor input, Tensor seed, float p) -> Tensor");
}

}  // namespace honed::bindings
