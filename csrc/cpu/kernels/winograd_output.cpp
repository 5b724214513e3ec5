// A^T m A of tiles, bias, residual, activation. Vectors are of channels where these lie side by side
// in y; else they are turned to vectors of pixels.
#include "cpu/kernels/product_finish.h"
#include "cpu/kernels/winograd_tile.h"
#include "cpu/simd/transpose.h"

HONED_BEGIN_LEVEL

namespace {

template <class Size>
HONED_INLINE void output_tile(const float* from, int64_t step,
                              vf (&y)[Size::outputs][Size::outputs]) {
  constexpr int n = Size::inputs, m = Size::outputs;
  vf half[m][n];
  for (int j = 0; j < n; ++j) {
    vf column[n], sum[m];
    for (int i = 0; i < n; ++i) column[i] = load(from + (i * n + j) * step);
    output_line(column, sum);
    for (int i = 0; i < m; ++i) half[i][j] = sum[i];
  }
  for (int i = 0; i < m; ++i) output_line(half[i], y[i]);
}

// n elements, `step` apart; residual: where they lie, or nullptr.
template <class T>
HONED_INLINE void put(const Destination& to, vf value, T* y, int64_t step, const T* residual,
                      int64_t residual_step, int n) {
  if (residual)
    value = value +
            (residual_step == 1 ? load(residual, n) : gather<T, float>(residual, residual_step, n));
  value = activate(value, to.activation);
  if (step == 1)
    store(y, value, n);
  else
    scatter(y, step, value, n);
}

// Where an image's outputs and residual begin.
template <class T>
struct Image {
  T* y;
  const T* residual;
};

// One tile and one vector of channels.
template <class Size, class T>
void channels_of_tile(const WinogradArgs& a, const float* from, vf bias, const Image<T>& image,
                      int64_t row, int64_t column, int64_t channel, int n) {
  constexpr int m = Size::outputs;
  vf y[m][m];
  output_tile<Size>(from, a.m_step, y);
  const int rows = int(a.size[0] - row < m ? a.size[0] - row : m);
  const int columns = int(a.size[1] - column < m ? a.size[1] - column : m);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < columns; ++j)
      put(a.to, y[i][j] + bias,
          image.y + (row + i) * a.y_s[0] + (column + j) * a.y_s[1] + channel * a.to.y_col,
          a.to.y_col,
          image.residual ? image.residual + (row + i) * a.residual_s[0] +
                               (column + j) * a.residual_s[1] + channel * a.to.residual_col
                         : nullptr,
          a.to.residual_col, n);
}

// As many tiles as fill vectors of pixels, and one vector of channels.
template <class Size, class T>
void pixels_of_tiles(const WinogradArgs& a, const float* from, int tiles, vf bias,
                     const Image<T>& image, int64_t row, int64_t column, int64_t channel, int n) {
  constexpr int m = Size::outputs;
  vf turned[m][kLanes];
  for (int t = 0; t < kLanes / m; ++t) {
    vf y[m][m];
    if (t < tiles) output_tile<Size>(from + t * kPanel, a.m_step, y);
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < m; ++j) turned[i][t * m + j] = t < tiles ? y[i][j] + bias : zero();
  }
  const int rows = int(a.size[0] - row < m ? a.size[0] - row : m);
  const int columns = int(a.size[1] - column < tiles * m ? a.size[1] - column : tiles * m);
  for (int i = 0; i < rows; ++i) {
    transpose(turned[i]);
    for (int c = 0; c < n; ++c)
      put(a.to, turned[i][c],
          image.y + (row + i) * a.y_s[0] + column * a.y_s[1] + (channel + c) * a.to.y_col, a.y_s[1],
          image.residual ? image.residual + (row + i) * a.residual_s[0] + column * a.residual_s[1] +
                               (channel + c) * a.to.residual_col
                         : nullptr,
          a.residual_s[1], columns);
  }
}

template <class Size, class T>
void output_item(const WinogradArgs& a, const TileRow& tiles, int64_t place) {
  constexpr int m = Size::outputs;
  const Destination& to = a.to;
  Image<T> image{static_cast<T*>(to.y) + tiles.n * a.y_n, nullptr};
  if (to.residual) image.residual = static_cast<const T*>(to.residual) + tiles.n * a.residual_n;
  const int64_t first = (a.panel + place) * kPanel, left = a.outputs - first;
  const int channels = int(left < kPanel ? left : kPanel);
  const float* from = a.m + (place * a.count + tiles.at) * kPanel;
  const float* bias = static_cast<const float*>(to.bias);
  const int at_once = to.y_col == 1 ? 1 : kLanes / m;
  for (int64_t t = tiles.begin; t < tiles.end; t += at_once, from += at_once * kPanel)
    for (int c = 0; c < channels; c += kLanes) {
      const int n = channels - c < kLanes ? channels - c : kLanes;
      const vf add = bias ? load(bias + first + c) : zero();
      if (to.y_col == 1)
        channels_of_tile<Size>(a, from + c, add, image, tiles.row * m, t * m, first + c, n);
      else
        pixels_of_tiles<Size>(a, from + c, int(tiles.end - t < at_once ? tiles.end - t : at_once),
                              add, image, tiles.row * m, t * m, first + c, n);
    }
}

}  // namespace

void winograd_output(const WinogradArgs& a, int64_t begin, int64_t end) {
  with_tile(a.tile, [&](auto size) {
    visit_float(a.to.dtype, [&](auto type) {
      for (int64_t item = begin; item < end; ++item)
        output_item<decltype(size), typename decltype(type)::type>(a, tile_row(a, item / a.group),
                                                                   item % a.group);
    });
  });
}

HONED_END_LEVEL
