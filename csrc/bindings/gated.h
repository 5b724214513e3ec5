// The operands of swiglu and geglu: two tensors, or the halves of one.
#pragma once
#include "bindings/elementwise.h"
#include "core/check.h"

namespace honed::bindings {

struct Gated {
  TensorView gate, up;
  TensorView whole;  // of which they are halves
  bool halves;

  Gated(const char* op, const TensorView& first, const TensorView* second,
        const TensorView* grad = nullptr)
      : gate(first), whole(first), halves(!second) {
    if (halves) {
      HONED_CHECK(first.ndim > 0 && first.size(-1) % 2 == 0, op, ": gate has shape ",
                  shape_of(first),
                  " and up is absent, expected an even last dimension to take halves of");
      gate = half_of(first, 0);
      up = half_of(first, 1);
    } else {
      HONED_CHECK(same_shape(first, *second), op, ": gate has shape ", shape_of(first), " and up ",
                  shape_of(*second), ", expected equal shapes");
      up = *second;
    }
    HONED_CHECK(!grad || same_shape(*grad, gate), op, ": grad has shape ",
                grad ? shape_of(*grad) : "", ", expected ", shape_of(gate));
  }

  // New tensors for the gradients: two in the order of gate's memory, or one for both halves.
  Gated make(Results& results, bool need_gate, bool need_up) const {
    Gated made = *this;
    if (halves) {
      TensorView both = results.make_like(whole);
      made.gate = half_of(both, 0);
      made.up = half_of(both, 1);
      results.skip();
    } else {
      made.gate = make_if(results, need_gate);
      made.up = make_if(results, need_up);
    }
    return made;
  }

 private:
  TensorView make_if(Results& results, bool need) const {
    if (need) return make_as(results, gate);
    results.skip();
    return {};
  }
};

}  // namespace honed::bindings
