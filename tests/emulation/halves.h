// The AVX512-FP16 intrinsics that csrc/cpu/kernels/linear_half.h uses, in plain C++: 32 numbers
// that are rounded to float16 after every operation (nearest even, subnormals kept).
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated {

struct Half {
  uint16_t bits;
};
struct Halves {
  double lane[32];
};
inline int half_products = 0;  // since the program began

inline double value_of(Half h) {
  int exponent = h.bits >> 10 & 31, fraction = h.bits & 1023;
  double value = exponent == 0    ? std::ldexp(fraction, -24)
                 : exponent == 31 ? (fraction ? NAN : INFINITY)
                                  : std::ldexp(1024 + fraction, exponent - 25);
  return h.bits >> 15 ? -value : value;
}
inline double rounded(double x) {
  if (x == 0 || !std::isfinite(x)) return x;
  int exponent = std::ilogb(x) < -14 ? -14 : std::ilogb(x);
  double value = std::ldexp(std::nearbyint(std::ldexp(x, 10 - exponent)), exponent - 10);
  return std::abs(value) > 65504 ? std::copysign(INFINITY, x) : value;
}
inline Half half_of(double rounded_value) {
  double x = std::abs(rounded_value);
  uint16_t sign = std::signbit(rounded_value) ? 0x8000 : 0;
  if (std::isnan(x)) return {0x7e00};
  if (std::isinf(x)) return {uint16_t(sign | 0x7c00)};
  if (x < std::ldexp(1, -14)) return {uint16_t(sign | int(std::ldexp(x, 24)))};
  int exponent = std::ilogb(x);
  return {uint16_t(sign | (exponent + 15) << 10 | (int(std::ldexp(x, 10 - exponent)) & 1023))};
}

inline Halves no_halves() { return Halves{}; }
inline Halves all_halves(Half h) {
  Halves v;
  for (double& lane : v.lane) lane = value_of(h);
  return v;
}
inline Halves load_halves(const void* p) {
  Half bits[32];
  std::memcpy(bits, p, 64);
  Halves v;
  for (int i = 0; i < 32; ++i) v.lane[i] = value_of(bits[i]);
  return v;
}
inline void store_halves(void* p, const Halves& v) {
  Half bits[32];
  for (int i = 0; i < 32; ++i) bits[i] = half_of(v.lane[i]);
  std::memcpy(p, bits, 64);
}
inline Halves fmadd_halves(const Halves& a, const Halves& b, const Halves& c) {
  Halves v;
  for (int i = 0; i < 32; ++i) v.lane[i] = rounded(a.lane[i] * b.lane[i] + c.lane[i]);
  ++half_products;
  return v;
}

}  // namespace emulated

#undef __AVX512FP16__
#define __AVX512FP16__ 1
#define _Float16 emulated::Half
#define __m512h emulated::Halves
#define _mm512_setzero_ph emulated::no_halves
#define _mm512_set1_ph emulated::all_halves
#define _mm512_loadu_ph emulated::load_halves
#define _mm512_storeu_ph emulated::store_halves
#define _mm512_fmadd_ph emulated::fmadd_halves
