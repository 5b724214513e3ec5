// A block of tiles times the weights of a frequency, a panel at a time.
#include "cpu/kernels/linear_float.h"
#include "ops/_winograd.h"

HONED_BEGIN_LEVEL

namespace {

// Sums longer than this are of sums: the error of 384 is half as large again, the time of 64 3 % more.
constexpr int kSum = 64;

template <int MR>
[[gnu::noinline]] void product_tile(const float* w, int64_t k, const float* x, int64_t x_row,
                                    float* out) {
  for_chunks(k, kSum, [&](int64_t at, int64_t count) {
    TileSums<MR, float, 2> sums;
    sums.add(w + at * kPanel, kPanel, count, x + at, x_row, 1);
    sums.give(at > 0, out);
  });
}

}  // namespace

void winograd_product(const WinogradArgs& a, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; ++item) {
    const int64_t frequency = item / a.group, place = item % a.group, panel = a.panel + place;
    const int64_t left = a.outputs - panel * kPanel;
    const int channels = int(left < kPanel ? left : kPanel);
    const float* w = a.u + (frequency * a.panels + panel) * a.channels * kPanel;
    const float* v = a.v + frequency * a.v_step;
    float* m = a.m + frequency * a.m_step + place * a.count * kPanel;
    for_tiles<kRows>(int(a.count), [&](int row, auto size) {
      for (int c = 0; c < channels; c += 2 * kLanes)
        product_tile<decltype(size)::count>(w + c, a.channels, v + row * a.v_row, a.v_row,
                                            m + row * kPanel + c);
    });
  }
}

HONED_END_LEVEL
