// Rows times a panel by AMX tiles: bf16 rows and pairs, or int8 rows and bytes w + 128 in quads. To
// a tile both are the same: 64 bytes of up to 16 rows meet 16 groups of 4 bytes of 16 channels, as
// the panel holds them. Subnormal bf16 are taken for zero. Written without a CPU that has AMX: its
// sums are tested by emulation (tests/emulation), its sizes follow from those of the caches.
#pragma once
#include "cpu/kernels/linear_tile.h"

#if defined(__AMX_TILE__) || defined(__AMXTILE__)  // Clang before 15 writes it so
#define HONED_TILES
#endif

HONED_BEGIN_LEVEL
namespace {

#ifdef HONED_TILES
constexpr int kTileRows = 16, kTileBytes = 64;  // of a tile, at most
constexpr int kWeightRow = kPanel * 4;  // bytes of a panel from one row of a tile to the next
// Bytes of a row in a chunk, whose weights (32 KB) all rows of a block read from the first cache.
constexpr int64_t kTileDepth = 1024;

// What a tile intrinsic of GCC 12 reads it does not tell the compiler.
HONED_INLINE void is_read(const void* p) { asm volatile("" : : "r"(p) : "memory"); }

// Tiles 0 to 3 are sums, 4 and 5 rows, 6 and 7 weights. Until release_tiles() the thread has more
// state to save at every switch.
void configure_tiles(int rows) {
  struct {
    uint8_t palette = 1, start = 0, zeros[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } config;
  static_assert(sizeof config == 64);
  for (int i = 0; i < 8; ++i) {
    config.bytes[i] = kTileBytes;
    config.rows[i] = uint8_t(i < 6 ? rows : kTileRows);
  }
  is_read(&config);
  _tile_loadconfig(&config);
}
// Rows of a tile where a call has `m` rows: all its blocks have at least as many.
HONED_INLINE int tile_rows(int64_t m) { return m < kTileRows ? int(m) : kTileRows; }
HONED_INLINE void release_tiles() { _tile_release(); }

// The sums of kTall tiles of rows with both tiles of a panel's channels, over `steps` times 64 bytes
// of a row. x: where the tiles of rows begin.
template <bool kInt, int kTall>
HONED_INLINE void add_tiles(const uint8_t* const (&x)[2], int64_t x_stride, const uint8_t* w,
                            int64_t steps) {
  for (int64_t i = 0; i < steps * kTileBytes; i += kTileBytes, w += kTileRows * kWeightRow) {
    _tile_loadd(4, x[0] + i, x_stride);
    _tile_loadd(6, w, kWeightRow);
    _tile_loadd(7, w + kWeightRow / 2, kWeightRow);
    if constexpr (kInt) {
      _tile_dpbsud(0, 4, 6);
      _tile_dpbsud(1, 4, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (kTall == 2) {
      _tile_loadd(5, x[1] + i, x_stride);
      if constexpr (kInt) {
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
      } else {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
}

// What is left of rows and weights after whole steps, with zeros behind it.
struct TileTail {
  alignas(64) uint8_t rows[2][kTileRows * kTileBytes], weights[kTileRows * kWeightRow];

  HONED_INLINE void take_weights(const uint8_t* w, int64_t bytes) {
    __builtin_memset(weights, 0, sizeof weights);
    __builtin_memcpy(weights, w, size_t((bytes + 3) / 4 * kWeightRow));
  }
  HONED_INLINE void take_rows(int tile, const uint8_t* x, int64_t x_stride, int count,
                              int64_t bytes) {
    __builtin_memset(rows[tile], 0, sizeof rows[tile]);
    for (int r = 0; r < count; ++r)
      __builtin_memcpy(rows[tile] + r * kTileBytes, x + r * x_stride, size_t(bytes));
  }
};

// take(row, its kPanel sums of type Sum) for each of `rows` rows, over `bytes` bytes of them. The
// last tile of rows begins before its turn where fewer than 16 are left: rows that were summed
// before are summed again, and not taken again.
template <class Sum, class F>
HONED_INLINE void tile_sums(const uint8_t* w, const uint8_t* x, int64_t x_stride, int64_t bytes,
                            int rows, F&& take) {
  constexpr bool kInt = Sum(0.5f) == 0;
  TileTail tail;
  alignas(64) Sum sums[2 * kTileRows * kPanel];
  const int height = tile_rows(rows);
  const int64_t steps = bytes / kTileBytes, done = steps * kTileBytes, left = bytes - done;
  if (left > 0) tail.take_weights(w + steps * kTileRows * kWeightRow, left);
  for (int row = 0; row < rows; row += 2 * kTileRows) {
    const int tall = rows - row > kTileRows ? 2 : 1;
    int first[2];
    const uint8_t *from[2], *rest[2] = {tail.rows[0], tail.rows[1]};
    for (int t = 0; t < 2; ++t) {
      int begin = row + t * kTileRows, latest = rows - height;
      first[t] = begin < latest ? begin : latest;
      from[t] = x + first[t] * x_stride;
      if (left > 0 && t < tall) tail.take_rows(t, from[t] + done, x_stride, height, left);
    }
    is_read(&tail);
    auto add = [&](auto height_of_tiles) __attribute__((always_inline)) {
      constexpr int kTall = decltype(height_of_tiles)::count;
      _tile_zero(0);
      _tile_zero(1);
      if constexpr (kTall == 2) {
        _tile_zero(2);
        _tile_zero(3);
      }
      add_tiles<kInt, kTall>(from, x_stride, w, steps);
      if (left > 0) add_tiles<kInt, kTall>(rest, kTileBytes, tail.weights, 1);
      _tile_stored(0, sums, kPanel * 4);
      _tile_stored(1, sums + kPanel / 2, kPanel * 4);
      if constexpr (kTall == 2) {
        _tile_stored(2, sums + kTileRows * kPanel, kPanel * 4);
        _tile_stored(3, sums + kTileRows * kPanel + kPanel / 2, kPanel * 4);
      }
    };
    if (tall == 2)
      add(Rows<2>{});
    else
      add(Rows<1>{});
    for (int r = row; r < rows && r < row + 2 * kTileRows; ++r) {
      int t = (r - row) / kTileRows;
      take(r, sums + (t * kTileRows + r - first[t]) * kPanel);
    }
  }
}

// out[m][c] = sum_k x[m][k] w[k][c]. A tile adds 16 products to a sum of zero before it adds that to
// the rest, so that chunks of 512 inputs have no larger error than those of the other kernels.
[[maybe_unused]] void pairs_tiles(const Pair* w, int64_t k, const bf16* x, int64_t x_row, int rows,
                                  float* out) {
  const auto* weights = reinterpret_cast<const uint8_t*>(w);
  const auto* from = reinterpret_cast<const uint8_t*>(x);
  for (int64_t at = 0; at == 0 || at < 2 * k; at += kTileDepth) {
    int64_t bytes = 2 * k - at < kTileDepth ? 2 * k - at : kTileDepth;
    auto take = [&](int row, const float* sums) __attribute__((always_inline)) {
      for (int c = 0; c < kPanel; c += kLanes) {
        float* to = out + row * kPanel + c;
        store(to, at > 0 ? load(sums + c) + load(to) : load(sums + c));
      }
    };
    tile_sums<float>(weights + at / 4 * kWeightRow, from + at, 2 * x_row, bytes, rows, take);
  }
}

// As int8_panel, of long groups.
[[maybe_unused]] void int8_tiles(const LinearArgs& a, const uint8_t* w, int64_t row, int rows,
                                 float* out) {
  alignas(64) int32_t part[kBlockRows * kPanel];
  const PackedView& p = a.w;
  const int64_t groups = (p.k_padded + p.group - 1) / p.group;
  const auto* x = reinterpret_cast<const uint8_t*>(a.rows.q + row * a.rows.q_stride);
  for (int64_t k = 0, end; k < p.k_padded; k = end) {
    const int64_t g = k / p.group, start = g * p.group;
    int64_t group_end = p.k_padded - start < p.group ? p.k_padded : start + p.group;
    end = group_end - k < kTileDepth ? group_end : k + kTileDepth;
    auto take = [&](int r, const int32_t* sums) __attribute__((always_inline)) {
      int32_t* to = part + r * kPanel;
      const int64_t scales = (row + r) * groups + g;
      for (int c = 0; c < kPanel; ++c) to[c] = sums[c] + (k > start ? to[c] : a.rows.sum[scales]);
      if (end < group_end) return;
      vf scale = set1(a.rows.scale[scales]);
      for (int c = 0; c < kPanel; c += kLanes) {
        float* y = out + r * kPanel + c;
        store(y, fmadd(to_float(load_int(to + c)), scale, g > 0 ? load(y) : zero()));
      }
    };
    tile_sums<int32_t>(w + k * kPanel, x + k, a.rows.q_stride, end - k, rows, take);
  }
}
#endif

}  // namespace
HONED_END_LEVEL
