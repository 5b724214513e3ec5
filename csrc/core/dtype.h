// Element types and their storage. No inline functions: this header is compiled at every CPU level.
#pragma once
#include <cstdint>

namespace honed {

struct f16 {
  uint16_t bits;
};
struct bf16 {
  uint16_t bits;
};

enum class DType : uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

const char* name_of(DType dtype);
int64_t size_of(DType dtype);  // bytes an element
bool is_float(DType dtype);    // f32, f16 or bf16: what the float kernels take
bool is_real(DType dtype);     // f64 too
float to_float(f16 value);
float to_float(bf16 value);
f16 to_f16(float value);    // nearest even
bf16 to_bf16(float value);  // nearest even

}  // namespace honed
