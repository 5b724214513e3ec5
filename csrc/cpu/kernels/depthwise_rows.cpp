// Depthwise convolution, vectors over columns: a block of rows of a channel is copied with its
// border as f32 (f64), columns of the same residue modulo the stride side by side, so that what an
// output vector reads is a vector for any stride, dilation, border, type and strides of x.
#include "cpu/kernels/depthwise_copy.h"
#include "cpu/kernels/depthwise_finish.h"

HONED_BEGIN_LEVEL
namespace {

// Rows of a tile: 7 divides the images of most networks; 16 registers hold 4 beside a weight.
constexpr int kTileRows = kLanes == 16 ? 7 : 4;

template <class T>
struct Block {
  const DepthwiseArgs& a;
  const Copies<Sum<T>>& copies;
  int64_t channel, rows, columns;
  T* y;  // the first pixel
  const T* residual;

  const T* residual_at(int64_t h, int64_t w) const {
    return residual ? residual + h * a.residual_s[1] + w * a.residual_s[2] : nullptr;
  }
  Steps steps() const { return {a.y_s[1], a.y_s[2], a.residual_s[1], a.residual_s[2]}; }
};

template <class T>
HONED_INLINE Sum<T> bias_at(const DepthwiseArgs& a, int64_t channel) {
  return a.bias ? static_cast<const Sum<T>*>(a.bias)[channel * a.bias_c] : Sum<T>(0);
}

// Any kernel: one product after the other, for a few vectors of a row at a time.
template <class T, int vectors>
void row_piece(const Block<T>& block, int64_t h, int64_t w, int64_t left) {
  using S = Sum<T>;
  constexpr int kStep = kLanesOf<T>;
  const Copies<S>& copies = block.copies;
  Vec<T> sum[vectors];
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) sum[v] = set1(bias_at<T>(block.a, block.channel));
  const S* from = copies.data + h * copies.next_row + w;
  for (int64_t t = 0; t < copies.taps; ++t) {
    const Vec<T> weight = set1(copies.weight[t]);
    const S* at = from + copies.offset[t];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sum[v] = fmadd(load(at + v * kStep), weight, sum[v]);
  }
  const Finish<T> finish(block.a, block.steps());
  for (int v = 0; v < vectors; ++v, w += kStep, left -= kStep) {
    if (left <= 0) return;
    const Vec<T> one[1] = {sum[v]};
    finish(one, block.y + h * block.a.y_s[1] + w * block.a.y_s[2], block.residual_at(h, w),
           left < kStep ? int(left) : kStep);
  }
}
template <class T>
void any_row(const Block<T>& block, int64_t h) {
  constexpr int kStep = kLanesOf<T>;
  for (int64_t w = 0; w < block.columns;) {
    const int64_t left = block.columns - w;
    if (left > 2 * kStep) {
      row_piece<T, 4>(block, h, w, left);
      w += 4 * kStep;
    } else if (left > kStep) {
      row_piece<T, 2>(block, h, w, left);
      w += 2 * kStep;
    } else {
      row_piece<T, 1>(block, h, w, left);
      w += kStep;
    }
  }
}

// `rows` rows of a kernel of `taps` x `taps`, dilation 1, one plane: an input vector serves all
// rows of the output that meet it.
template <class T, int taps, int stride, int rows>
void tile_rows(const Block<T>& block, int64_t h) {
  using S = Sum<T>;
  const Copies<S>& copies = block.copies;
  const S* from = copies.data + h * copies.next_row;
  const Vec<T> bias = set1(bias_at<T>(block.a, block.channel));
  const S* weights = copies.weight;
  const Finish<T> finish(block.a, block.steps());
  for_lanes_of<T>(block.columns, [&](int64_t w, int n) {
    Vec<T> sum[rows];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) sum[r] = bias;
#pragma GCC unroll 32
    for (int i = 0; i < (rows - 1) * stride + taps; ++i)
#pragma GCC unroll 8
      for (int k = 0; k < taps; ++k) {
        const Vec<T> v = load(from + i * copies.row + copies.offset[k] + w);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
          const int tap = i - r * stride;
          if (tap >= 0 && tap < taps) sum[r] = fmadd(v, set1(weights[tap * taps + k]), sum[r]);
        }
      }
    finish(sum, block.y + h * block.a.y_s[1] + w * block.a.y_s[2], block.residual_at(h, w), n);
  });
}

template <class T>
using Tile = void (*)(const Block<T>&, int64_t);
template <class T>
Tile<T> tile_for(const DepthwiseArgs& a) {
  Tile<T> tile = nullptr;
  if constexpr (sizeof(T) != 8) {
    auto take = [&](auto taps, auto stride) {
      constexpr int kTaps = decltype(taps)::value, kStride = decltype(stride)::value;
      if (a.kernel[1] == kTaps && a.kernel[2] == kTaps && a.stride[1] == kStride)
        tile = tile_rows<T, kTaps, kStride, kTileRows>;
    };
    if (a.kernel[0] * a.planes != 1 || a.dilation[1] != 1) return tile;
    take(Number<3>{}, Number<1>{});
    take(Number<5>{}, Number<1>{});
    take(Number<3>{}, Number<2>{});
    take(Number<5>{}, Number<2>{});
  }
  return tile;
}

template <class T>
void blocks(const DepthwiseArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  const int64_t across = (a.size[2] + a.block[2] - 1) / a.block[2];
  const int64_t down = (a.size[1] + a.block[1] - 1) / a.block[1];
  const Tile<T> tile = tile_for<T>(a);
  Copies<S> copies(a);
  int64_t at = begin;
  int64_t w = at % across * a.block[2];
  at /= across;
  int64_t h = at % down * a.block[1];
  at /= down;
  int64_t d = at % a.size[0];
  at /= a.size[0];
  int64_t c = at % a.x.channels, n = at / a.x.channels;
  for (int64_t item = begin; item < end; ++item) {
    const int64_t rows = a.size[1] - h < a.block[1] ? a.size[1] - h : a.block[1];
    const int64_t columns = a.size[2] - w < a.block[2] ? a.size[2] - w : a.block[2];
    const T* image = static_cast<const T*>(a.x.data) + n * a.x.n + c * a.x.c;
    const int64_t planes = copies.template load_planes<T>(image, a.x_plane, d, h, w, rows, columns);
    copies.weigh(static_cast<const S*>(a.w) + c);
    const T* residual = static_cast<const T*>(a.residual);
    if (residual)
      residual += n * a.residual_n + c * a.residual_c + d * a.residual_s[0] + h * a.residual_s[1] +
                  w * a.residual_s[2];
    const Block<T> block{
        a,
        copies,
        c,
        rows,
        columns,
        static_cast<T*>(a.y) + n * a.y_n + c * a.y_c + d * a.y_s[0] + h * a.y_s[1] + w * a.y_s[2],
        residual};
    if (tile && planes && rows >= kTileRows) {
      for (int64_t r = 0; r < rows; r += kTileRows)
        tile(block, r + kTileRows <= rows ? r : rows - kTileRows);
    } else {
      for (int64_t r = 0; r < rows; ++r) any_row(block, r);
    }
    if ((w += a.block[2]) < a.size[2]) continue;
    w = 0;
    if ((h += a.block[1]) < a.size[1]) continue;
    h = 0;
    if (++d < a.size[0]) continue;
    d = 0;
    if (++c < a.x.channels) continue;
    c = 0;
    ++n;
  }
}

}  // namespace

void depthwise_rows(const DepthwiseArgs& a, int64_t begin, int64_t end) {
  visit_real(a.x.dtype, [&](auto t) { blocks<typename decltype(t)::type>(a, begin, end); });
}

HONED_END_LEVEL
