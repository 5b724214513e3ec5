// Names, sizes and scalar conversions of the element types.
#include "core/dtype.h"

#include <bit>

namespace honed {

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "float64";
    case DType::f32:
      return "float32";
    case DType::f16:
      return "float16";
    case DType::bf16:
      return "bfloat16";
    case DType::i64:
      return "int64";
    case DType::i32:
      return "int32";
    case DType::i16:
      return "int16";
    case DType::i8:
      return "int8";
    case DType::u8:
      return "uint8";
    case DType::boolean:
      return "bool";
  }
  return "unknown";
}

int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f16:
    case DType::bf16:
    case DType::i16:
      return 2;
    default:
      return 1;
  }
}

bool is_real(DType dtype) { return dtype == DType::f64 || is_float(dtype); }
bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
}

float to_float(bf16 value) { return std::bit_cast<float>(uint32_t{value.bits} << 16); }

bf16 to_bf16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {uint16_t((bits >> 16) | 0x40u)};  // quiet NaN
  return {uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

float to_float(f16 value) {
  uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  uint32_t exponent = (value.bits >> 10) & 0x1fu;
  uint32_t mantissa = value.bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {
    float magnitude = float(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

f16 to_f16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return {uint16_t(sign | 0x7e00u | ((bits >> 13) & 0x3ffu))};  // NaN
  if (bits >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // rounds to 2^16 or more
  if (bits < 0x38800000u) {                                    // subnormal: a multiple of 2^-24
    float scaled = std::bit_cast<float>(bits) + 0.5f;          // the sum rounds it to nearest even
    return {uint16_t(sign | (std::bit_cast<uint32_t>(scaled) - 0x3f000000u))};
  }
  uint32_t odd = (bits >> 13) & 1u;
  return {uint16_t(sign | ((bits + 0xfffu + odd - 0x38000000u) >> 13))};
}

}  // namespace honed
