// The AMX intrinsics that csrc/cpu/kernels/linear_amx.h uses, in plain C++, as Intel's manual
// defines the instructions (TDPBF16PS and TDPBSUD: Software Developer's Manual, volume 2). Aborts
// where a CPU would raise an exception.
#pragma once
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace emulated {

struct Tile {
  int rows = 0, bytes = 0;
  uint8_t data[16][64] = {};
};
inline Tile tiles[8];
inline bool configured = false;
inline int configurations = 0, products = 0;  // since the program began

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("a CPU would refuse: %s\n", what);
  std::exit(1);
}

inline void loadconfig(const void* memory) {
  uint8_t config[64];
  std::memcpy(config, memory, 64);
  require(config[0] == 1 && config[1] == 0, "palette and start row");
  for (int i = 2; i < 16; ++i) require(config[i] == 0, "reserved bytes of the configuration");
  for (int i = 8; i < 16; ++i)
    require(config[16 + 2 * i] == 0 && config[17 + 2 * i] == 0 && config[48 + i] == 0,
            "a tile past the eighth");
  for (int i = 0; i < 8; ++i) {
    tiles[i] = Tile{config[48 + i], config[16 + 2 * i] | config[17 + 2 * i] << 8};
    require(tiles[i].rows > 0 && tiles[i].rows <= 16, "rows of a tile");
    require(tiles[i].bytes > 0 && tiles[i].bytes <= 64, "bytes of a tile's rows");
  }
  configured = true;
  ++configurations;
}
inline void release() { configured = false; }

inline void zero(int dst) {
  require(configured, "a tile without a configuration");
  std::memset(tiles[dst].data, 0, sizeof tiles[dst].data);
}
inline void loadd(int dst, const void* base, int64_t stride) {
  zero(dst);
  for (int r = 0; r < tiles[dst].rows; ++r)
    std::memcpy(tiles[dst].data[r], static_cast<const char*>(base) + r * stride,
                size_t(tiles[dst].bytes));
}
inline void stored(int src, void* base, int64_t stride) {
  require(configured, "a tile without a configuration");
  for (int r = 0; r < tiles[src].rows; ++r)
    std::memcpy(static_cast<char*>(base) + r * stride, tiles[src].data[r],
                size_t(tiles[src].bytes));
}

// Subnormal numbers are zero on the way in and out; rounding is to nearest even.
inline float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? 0.0f * x : x; }
inline float widened(const uint8_t* p) {
  uint32_t bits = uint32_t(p[0]) << 16 | uint32_t(p[1]) << 24;
  float value;
  std::memcpy(&value, &bits, 4);
  return flushed(value);
}

inline void check_product(int dst, int a, int b) {
  require(configured, "a tile without a configuration");
  require(dst != a && dst != b && a != b, "one tile twice in a product");
  require(tiles[dst].bytes == tiles[b].bytes, "columns of the sums and of the second operand");
  require(tiles[dst].rows == tiles[a].rows, "rows of the sums and of the first operand");
  require(tiles[a].bytes / 4 == tiles[b].rows, "columns of the first operand, rows of the second");
  ++products;
}

inline void dpbf16ps(int dst, int a, int b) {
  check_product(dst, a, b);
  for (int m = 0; m < tiles[dst].rows; ++m)
    for (int n = 0; n < tiles[dst].bytes / 4; ++n) {
      float even = 0, odd = 0;
      for (int k = 0; k < tiles[a].bytes / 4; ++k) {
        const uint8_t *x = tiles[a].data[m] + 4 * k, *w = tiles[b].data[k] + 4 * n;
        even = flushed(std::fma(widened(x), widened(w), even));
        odd = flushed(std::fma(widened(x + 2), widened(w + 2), odd));
      }
      float sum;
      std::memcpy(&sum, tiles[dst].data[m] + 4 * n, 4);
      sum = flushed(flushed(sum) + flushed(even + odd));
      std::memcpy(tiles[dst].data[m] + 4 * n, &sum, 4);
    }
}

// The first operand's bytes are signed, the second's unsigned; sums wrap.
inline void dpbsud(int dst, int a, int b) {
  check_product(dst, a, b);
  for (int m = 0; m < tiles[dst].rows; ++m)
    for (int n = 0; n < tiles[dst].bytes / 4; ++n) {
      uint32_t sum;
      std::memcpy(&sum, tiles[dst].data[m] + 4 * n, 4);
      for (int k = 0; k < tiles[a].bytes; ++k)
        sum += uint32_t(int8_t(tiles[a].data[m][k]) * tiles[b].data[k / 4][4 * n + k % 4]);
      std::memcpy(tiles[dst].data[m] + 4 * n, &sum, 4);
    }
}

}  // namespace emulated

#undef __AMX_TILE__
#define __AMX_TILE__ 1
#undef _tile_loadconfig
#define _tile_loadconfig emulated::loadconfig
#undef _tile_release
#define _tile_release emulated::release
#undef _tile_zero
#define _tile_zero emulated::zero
#undef _tile_loadd
#define _tile_loadd emulated::loadd
#undef _tile_stored
#define _tile_stored emulated::stored
#undef _tile_dpbf16ps
#define _tile_dpbf16ps emulated::dpbf16ps
#undef _tile_dpbsud
#define _tile_dpbsud emulated::dpbsud
