// Blocks of 64 KiB are hashed apart, on all threads, and their hashes hashed in order. A block runs
// four chains of 128-bit products (Wang Yi's wyhash, https://github.com/wangyi-fudan/wyhash), so
// that four multiplications are under way at once.
#include "core/hash.h"

#include <cstring>
#include <vector>

#include "core/parallel.h"

namespace honed {

namespace {

__extension__ typedef unsigned __int128 Product;

constexpr int64_t kBlock = int64_t{64} << 10;
constexpr int kChains = 4;
constexpr int64_t kStep = kChains * 16;
constexpr uint64_t kSecret[kChains + 1] = {0xa0761d6478bd642f, 0xe7037ed1a0b428db,
                                           0x8ebc6af09c88c6e3, 0x589965cc75374cc3,
                                           0x1d8e4e27c47d124f};

uint64_t fold(uint64_t a, uint64_t b) {
  Product product = Product(a) * b;
  return uint64_t(product) ^ uint64_t(product >> 64);
}

void mix(const uint8_t* data, uint64_t* chain) {
  for (int i = 0; i < kChains; ++i) {
    uint64_t words[2];
    std::memcpy(words, data + 16 * i, 16);
    chain[i] = fold(words[0] ^ kSecret[i], words[1] ^ chain[i]);
  }
}

uint64_t hash_block(const uint8_t* data, int64_t bytes) {
  uint64_t chain[kChains] = {kSecret[1], kSecret[2], kSecret[3], kSecret[4]};
  int64_t at = 0;
  for (; at + kStep <= bytes; at += kStep) mix(data + at, chain);
  if (at < bytes) {
    uint8_t tail[kStep] = {};
    std::memcpy(tail, data + at, size_t(bytes - at));
    mix(tail, chain);
  }
  uint64_t hash = fold(uint64_t(bytes) ^ kSecret[0], kSecret[4]);
  for (uint64_t each : chain) hash = fold(hash ^ kSecret[4], each ^ kSecret[0]);
  return hash;
}

}  // namespace

uint64_t hash_bytes(const void* data, int64_t bytes) {
  const uint8_t* from = static_cast<const uint8_t*>(data);
  int64_t count = (bytes + kBlock - 1) / kBlock;
  std::vector<uint64_t> blocks(size_t(count) + 1);
  parallel_for(count, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      int64_t left = bytes - i * kBlock;
      blocks[size_t(i)] = hash_block(from + i * kBlock, left < kBlock ? left : kBlock);
    }
  });
  blocks[size_t(count)] = uint64_t(bytes);
  return hash_block(reinterpret_cast<const uint8_t*>(blocks.data()), int64_t(blocks.size()) * 8);
}

}  // namespace honed
