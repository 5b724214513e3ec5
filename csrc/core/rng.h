// Counter-based random numbers: the same (seed, counter) gives the same bits on every device.
#pragma once
#include <cstdint>

namespace honed {

// Two rounds of the splitmix64 finaliser over seed and counter.
uint64_t random_bits(uint64_t seed, uint64_t counter);
double random_uniform(uint64_t seed, uint64_t counter);  // in [0, 1), 53 bits

}  // namespace honed
