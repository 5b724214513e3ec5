// honed._core.rope
#include "ops/rope.h"

#include "bindings/function.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

auto forward(Results& results, const TensorView& x, const TensorView& cos, const TensorView& sin,
             const TensorView* positions, bool interleaved, bool inverse) {
  TensorView out = results.make_like(x);
  return [=] {
    // Any strides but along the last dimension; there a copy.
    std::optional<Dense> copy;
    if (x.ndim && x.size(-1) > 1 && x.stride(-1) != 1) copy.emplace(x);
    Dense dense_cos(cos), dense_sin(sin), p(positions);
    rope(out, copy ? *copy->view() : x, *dense_cos.view(), *dense_sin.view(), p.view(), interleaved,
         inverse);
  };
}

}  // namespace

void bind_rope(py::module_& m) {
  define<forward>(m,
                  "rope(Tensor x, Tensor cos, Tensor sin, Tensor? positions, bool interleaved, "
                  "bool inverse) -> Tensor");
}

}  // namespace honed::bindings
