// Sizes of tiles, and how rows are divided into them.
#pragma once
#include "cpu/simd/vec.h"
#include "ops/linear.h"

HONED_BEGIN_LEVEL
namespace {

// A tile takes kWide vectors of channels at a time and up to kRows rows; the accumulators, the
// weight vectors and one broadcast fill the registers (32 with AVX-512, else 16).
#if defined(__AVX512F__)
constexpr int kRows = 14;
#else
constexpr int kRows = 6;
#endif
constexpr int kWide =
    2;  // asking for weights ahead of use gained nothing beside the hardware (Zen 4)
constexpr int kChannels = kWide * kLanes;
// Inputs of a chunk: partial sums over it keep the rounding error of long rows down, and a chunk of
// a panel, widened once for all rows of a block, fits the first two caches. A multiple of every
// group.
constexpr int kDepth = 256;
constexpr int kBlockRows = 84;  // rows of a block, whole tiles of either kind

template <int MR>
struct Rows {
  static constexpr int count = MR;
};

// Calls body(first, Rows<MR>) over `rows` rows in tiles of at most kMost.
template <int kMost, class F>
HONED_INLINE void for_tiles(int rows, F&& body) {
  int r = 0;
  for (; rows - r >= kMost; r += kMost) body(r, Rows<kMost>{});
  if constexpr (kMost > 8)
    if (rows - r >= 8) body(r, Rows<8>{}), r += 8;
  if constexpr (kMost > 4)
    if (rows - r >= 4) body(r, Rows<4>{}), r += 4;
  if (rows - r >= 2) body(r, Rows<2>{}), r += 2;
  if (rows - r >= 1) body(r, Rows<1>{});
}

}  // namespace
HONED_END_LEVEL
