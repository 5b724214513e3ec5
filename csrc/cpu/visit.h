// From a DType to a template, inside the level.
#pragma once
#include "core/dtype.h"
#include "cpu/simd/vec.h"

HONED_BEGIN_LEVEL
namespace {

template <class T>
struct Tag {
  using type = T;
};

// Calls body(Tag<float>), body(Tag<f16>) or body(Tag<bf16>). The op has checked the type.
template <class F>
HONED_INLINE void visit_float(DType dtype, F&& body) {
  if (dtype == DType::f32)
    body(Tag<float>{});
  else if (dtype == DType::f16)
    body(Tag<f16>{});
  else
    body(Tag<bf16>{});
}

// The same, and body(Tag<double>).
template <class F>
HONED_INLINE void visit_real(DType dtype, F&& body) {
  if (dtype == DType::f64)
    body(Tag<double>{});
  else
    visit_float(dtype, body);
}

}  // namespace
HONED_END_LEVEL
