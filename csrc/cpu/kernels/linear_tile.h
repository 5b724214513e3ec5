// Sizes of tiles and chunks, and how rows and inputs are divided into them.
#pragma once
#include "cpu/simd/vec.h"
#include "ops/linear.h"

HONED_BEGIN_LEVEL
namespace {

// A tile takes two vectors of channels at a time and up to kRows rows; the accumulators, the
// weight vectors and one broadcast fill the registers (32 with AVX-512, else 16).
#if defined(__AVX512F__)
constexpr int kRows = 14;
#else
constexpr int kRows = 6;
#endif
constexpr int kWide = 2;  // of integer tiles
static_assert(kBlockRows % kRows == 0);

// Inputs of a chunk: partial sums over it keep the rounding error of long rows near that of torch
// (1.0 to 1.3 of it at 384 and 1.0 to 1.9 at 512; 768 is past the allowed error). Zen 4, share of
// the FMA peak at 512 x 768 x 768: 0.87 at 256, 0.92 at 384, 0.945 at 768. Asking for weights ahead
// of use gained nothing beside the hardware.
constexpr int kMaxDepth = 384;
constexpr int kDepth = 256;  // of integer kinds and grids

// Calls body(first input, inputs) for even chunks of at most `most`; once where there are none.
template <class F>
HONED_INLINE void for_chunks(int64_t k, int64_t most, F&& body) {
  int64_t chunks = k > most ? (k + most - 1) / most : 1;
  int64_t depth = ((k + chunks - 1) / chunks + 63) / 64 * 64;
  body(int64_t{0}, k < depth ? k : depth);
  for (int64_t at = depth; at < k; at += depth) body(at, k - at < depth ? k - at : depth);
}

template <int MR>
struct Rows {
  static constexpr int count = MR;
};

template <int kMost, class F>
HONED_INLINE void with_rows(int rows, F&& body) {
  if constexpr (kMost > 0) {
    if (rows == kMost)
      body(Rows<kMost>{});
    else
      with_rows<kMost - 1>(rows, body);
  }
}

// Calls body(first, Rows<MR>) over `rows` rows in as few tiles as kMost allows, of even heights.
template <int kMost, class F>
HONED_INLINE void for_tiles(int rows, F&& body) {
  const int tiles = (rows + kMost - 1) / kMost, height = tiles ? (rows + tiles - 1) / tiles : 0;
  for (int r = 0; r < rows; r += height)
    with_rows<kMost>(rows - r < height ? rows - r : height, [&](auto tile) { body(r, tile); });
}

}  // namespace
HONED_END_LEVEL
