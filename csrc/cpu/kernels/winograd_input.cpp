// B^T d B of tiles of the input. A tile that lies in the image is read where it is if channels lie
// side by side; others come from a strip with their border.
#include "cpu/kernels/conv_strip.h"
#include "cpu/kernels/winograd_tile.h"

HONED_BEGIN_LEVEL

namespace {

// A tile of whole vectors of channels.
template <class Size, class T>
void input_tile(const T* from, int64_t row, int64_t pixel, int64_t channels, float* to,
                int64_t step) {
  constexpr int n = Size::inputs;
  for (int64_t c = 0; c < channels; c += kLanes) {
    vf half[n][n];
    for (int j = 0; j < n; ++j) {
      vf d[n], v[n];
      for (int i = 0; i < n; ++i) d[i] = load(from + i * row + j * pixel + c);
      input_line(d, v);
      for (int i = 0; i < n; ++i) half[i][j] = v[i];
    }
    for (int i = 0; i < n; ++i) {
      vf v[n];
      input_line(half[i], v);
      for (int j = 0; j < n; ++j) store(to + (i * n + j) * step + c, v[j]);
    }
  }
}

void fill_zeros(float* to, int64_t pixels, int64_t pixel, int64_t channels) {
  for (int64_t i = 0; i < pixels; ++i) copy_inputs<float, float>(nullptr, channels, to + i * pixel);
}

// Inputs that outputs [first, first + span) along an axis meet: those past y's end stay zero.
HONED_INLINE int64_t needed(int64_t first, int64_t span, int64_t size) {
  return (size - first < span ? size - first : span) + 2;
}

template <class Size, class T>
void input_item(const WinogradArgs& a, const TileRow& tiles, int64_t channel, int64_t channels) {
  constexpr int n = Size::inputs, m = Size::outputs;
  const int64_t top = tiles.row * m - a.before[0],
                padded = (channels + kLanes - 1) / kLanes * kLanes;
  const bool whole = channels == padded && a.x.c == 1 && top >= 0 && top + n <= a.x.size[1];
  const T* image = static_cast<const T*>(a.x.data) + tiles.n * a.x.n + channel * a.x.c;
  float* to = a.v + channel + tiles.at * a.v_row;
  for (int64_t t = tiles.begin; t < tiles.end;) {
    const int64_t left = t * m - a.before[1];
    if (whole && left >= 0 && left + n <= a.x.size[2]) {
      input_tile<Size>(image + top * a.x.s[1] + left * a.x.s[2], a.x.s[1], a.x.s[2], channels, to,
                       a.v_step);
      to += a.v_row;
      ++t;
      continue;
    }
    // With the image in one piece only the tiles at its edges come this way, one at a time.
    const int64_t most = whole ? 1 : kWinogradRun;
    const int64_t run = tiles.end - t < most ? tiles.end - t : most;
    const int64_t columns = run * m + 2, row = columns * padded;
    const int64_t rows_in = needed(tiles.row * m, m, a.size[0]);
    const int64_t columns_in = needed(t * m, run * m, a.size[1]);
    Strip strip{tiles.n, channel, channels, {0, top, left}, {1, rows_in, columns_in}, {1, 1, 1}};
    copy_strip<float, T>(a.x, a.border, strip, a.strip, padded, row, 0);
    for (int64_t i = 0; i < rows_in; ++i)
      fill_zeros(a.strip + i * row + columns_in * padded, columns - columns_in, padded, padded);
    fill_zeros(a.strip + rows_in * row, (n - rows_in) * columns, padded, padded);
    for (int64_t i = 0; i < run; ++i, to += a.v_row)
      input_tile<Size>(a.strip + i * m * padded, row, padded, padded, to, a.v_step);
    t += run;
  }
}

}  // namespace

void winograd_input(const WinogradArgs& a, int64_t begin, int64_t end) {
  const int64_t chunks = (a.channels + kWinogradChannels - 1) / kWinogradChannels;
  with_tile(a.tile, [&](auto size) {
    visit_float(a.x.dtype, [&](auto type) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t channel = item % chunks * kWinogradChannels, left = a.channels - channel;
        input_item<decltype(size), typename decltype(type)::type>(
            a, tile_row(a, item / chunks), channel,
            left < kWinogradChannels ? left : kWinogradChannels);
      }
    });
  });
}

HONED_END_LEVEL
