// Counter-based random numbers: the same (seed, counter) gives the same bits on every device.
#pragma once
#include <cstdint>

namespace honed {

// Two rounds of the splitmix64 finaliser over seed and counter.
uint64_t random_bits(uint64_t seed, uint64_t counter);
double random_uniform(uint64_t seed, uint64_t counter);  // in [0, 1), 53 bits

// 32 random bits of a column, for dropout: few instructions, the same in vectors (simd/random.h).
// row_key is random_bits(seed, row). An element is kept where its bits are >= drop_threshold(p).
inline uint32_t random_column(uint64_t row_key, uint32_t column) {
  uint32_t x = column + uint32_t(row_key);
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15) ^ uint32_t(row_key >> 32)) * 0x846ca68bu;
  return x ^ (x >> 16);
}
inline uint32_t drop_threshold(double p) { return uint32_t(p * 4294967296.0); }

}  // namespace honed
