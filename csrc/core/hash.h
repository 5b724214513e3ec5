// A 64-bit hash of many bytes, at the speed of memory: to see whether weights are those of before.
// Not against an adversary.
#pragma once
#include <cstdint>

namespace honed {

uint64_t hash_bytes(const void* data, int64_t bytes);

}  // namespace honed
