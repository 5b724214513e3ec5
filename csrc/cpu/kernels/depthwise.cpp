// Depthwise convolution, vectors over channels: a row of the output at a time, tiles of kLong of
// its pixels that share the inputs they read. Rows of the kernel outside the image are left out.
#include "cpu/kernels/depthwise_finish.h"

HONED_BEGIN_LEVEL
namespace {

// Zen 4: seven chains hide the latency of the sums, and images of most networks are multiples of 7.
constexpr int kLong = 7, kShort = 4;

// A row of the input, at its channel, and the row of the kernel that it meets.
template <class T>
struct Met {
  const T* x;
  const Sum<T>* w;
};

// Pixels of a row of the output.
template <class T>
struct Row {
  const DepthwiseArgs& a;
  const Met<T>* met;
  int64_t count;  // of met
  T* y;           // pixel 0, channel 0
  const T* residual;
  int64_t channel, channels, first, past;  // those to make
  // What the next row of the output will be the first to touch, asked for while this one is made:
  // the rows of the input, nullptr: none, and of the output.
  const T* ahead[2];
  const T* y_ahead;
};

// `columns` pixels from `column` on; of a kernel's row of `taps`, dilation 1. Inputs outside the
// image are zeros.
template <class T, int taps, int stride, int columns>
void tile(const Row<T>& row, int64_t column) {
  using S = Sum<T>;
  const DepthwiseArgs& a = row.a;
  constexpr int kInputs = (columns - 1) * stride + taps;
  const int64_t step = a.x.s[2], tap = a.w_tap[2], past = a.x.size[2];
  const int64_t from = column * stride - a.before[2];
  const int low = from < 0 ? (from < -kInputs ? kInputs : int(-from)) : 0;
  const int high = past - from < kInputs ? int(past - from) : kInputs;
  const Finish<T> finish(a, {a.y_s[2], a.y_c, a.residual_s[2], a.residual_c});
  for_lanes_of<T>(row.channels, [&](int64_t i, int n) {
    const int64_t c = row.channel + i;
    for (const T* ahead : row.ahead)
      if (ahead)
#pragma GCC unroll 16
        for (int p = 0; p < columns * stride; ++p)
          __builtin_prefetch(ahead + i + (column * stride + p) * step, 0, 2);
    if (row.y_ahead)
#pragma GCC unroll 8
      for (int p = 0; p < columns; ++p)
        __builtin_prefetch(row.y_ahead + c + (column + p) * a.y_s[2], 1, 2);
    Vec<T> sum[columns];
    const Vec<T> bias = bias_of<T>(a, c, n);
#pragma GCC unroll 8
    for (int p = 0; p < columns; ++p) sum[p] = bias;
    // Inputs [begin, end) lie in the image; with constants nothing is asked in the loops.
    auto rows = [&](auto begin, auto end) __attribute__((always_inline)) {
      for (int64_t r = 0; r < row.count; ++r) {
        const T* x = row.met[r].x + i + from * step;
        const S* w = row.met[r].w + c;
        Vec<T> weight[taps];
#pragma GCC unroll 8
        for (int k = 0; k < taps; ++k) weight[k] = load(w + k * tap, n);
#pragma GCC unroll 32
        for (int j = 0; j < kInputs; ++j) {
          if (j < begin || j >= end) continue;
          const Vec<T> v = in_register(load(x + j * step, n));
#pragma GCC unroll 8
          for (int k = 0; k < taps; ++k)
            if ((j - k) % stride == 0 && j >= k && (j - k) / stride < columns)
              sum[(j - k) / stride] = fmadd(v, weight[k], sum[(j - k) / stride]);
        }
      }
    };
    constexpr int kEdge = taps / 2;  // what a border that keeps the size cuts off
    if (low == 0 && high == kInputs)
      rows(Number<0>{}, Number<kInputs>{});
    else if (low == kEdge && high == kInputs)
      rows(Number<kEdge>{}, Number<kInputs>{});
    else if (low == 0 && high == kInputs - kEdge)
      rows(Number<0>{}, Number<kInputs - kEdge>{});
    else if (low == kEdge && high == kInputs - kEdge)
      rows(Number<kEdge>{}, Number<kInputs - kEdge>{});
    else
      rows(low, high);
    finish(sum, row.y + column * a.y_s[2] + c * a.y_c,
           row.residual ? row.residual + column * a.residual_s[2] + c * a.residual_c : nullptr, n);
  });
}

// One pixel, of any kernel and border.
template <class T>
void pixel(const Row<T>& row, int64_t column) {
  using S = Sum<T>;
  constexpr int kVectors = 4, kStep = kLanesOf<T>;
  const DepthwiseArgs& a = row.a;
  const Finish<T> finish(a, {a.y_s[2], a.y_c, a.residual_s[2], a.residual_c});
  for (int64_t i = 0; i < row.channels; i += kVectors * kStep) {
    int64_t c = row.channel + i;
    int n[kVectors];
    Vec<T> sum[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const int64_t left = row.channels - i - v * kStep;
      n[v] = left <= 0 ? 0 : left < kStep ? int(left) : kStep;
      sum[v] = n[v] ? bias_of<T>(a, c + v * kStep, n[v]) : set1(S(0));
    }
    for (int64_t k = 0; k < a.kernel[2]; ++k) {
      const int64_t from =
          source(column * a.stride[2] + k * a.dilation[2] - a.before[2], a.x.size[2], a.border);
      if (from < 0) continue;
      for (int64_t r = 0; r < row.count; ++r) {
        const T* x = row.met[r].x + i + from * a.x.s[2];
        const S* w = row.met[r].w + c + k * a.w_tap[2];
        if (n[kVectors - 1] == kStep) {
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v)
            sum[v] = fmadd(load(x + v * kStep), load(w + v * kStep), sum[v]);
        } else {
          for (int v = 0; v < kVectors && n[v]; ++v)
            sum[v] = fmadd(load(x + v * kStep, n[v]), load(w + v * kStep, n[v]), sum[v]);
        }
      }
    }
    for (int v = 0; v < kVectors && n[v]; ++v, c += kStep) {
      const Vec<T> one[1] = {sum[v]};
      finish(one, row.y + column * a.y_s[2] + c * a.y_c,
             row.residual ? row.residual + column * a.residual_s[2] + c * a.residual_c : nullptr,
             n[v]);
    }
  }
}

// Tiles that the kernel's shape has; without one every pixel goes alone.
template <class T>
struct Tiles {
  void (*wide)(const Row<T>&, int64_t) = nullptr;
  void (*narrow)(const Row<T>&, int64_t) = nullptr;
};
template <class T>
Tiles<T> tiles_for(const DepthwiseArgs& a) {
  Tiles<T> tiles;
  if (sizeof(T) == 8 || a.dilation[2] != 1) return tiles;
  auto take = [&](auto taps, auto stride) {
    constexpr int kTaps = decltype(taps)::value, kStride = decltype(stride)::value;
    if (a.kernel[2] == kTaps && a.stride[2] == kStride)
      tiles = {tile<T, kTaps, kStride, kLong>, tile<T, kTaps, kStride, kShort>};
  };
  if constexpr (sizeof(T) != 8) {
    take(Number<1>{}, Number<1>{});
    take(Number<2>{}, Number<1>{});
    take(Number<3>{}, Number<1>{});
    take(Number<4>{}, Number<1>{});
    take(Number<5>{}, Number<1>{});
    take(Number<7>{}, Number<1>{});
    take(Number<3>{}, Number<2>{});
    take(Number<5>{}, Number<2>{});
    take(Number<7>{}, Number<2>{});
  }
  return tiles;
}

template <class T>
void row_of(const Row<T>& row, const Tiles<T>& tiles) {
  const DepthwiseArgs& a = row.a;
  // Pixels [low, high) go in tiles: with a border of zeros all, else those that see none.
  int64_t low = row.first, high = row.past;
  if (a.border != Border::zeros) inner(a, low, high);
  if (!tiles.wide || high - low < kShort) low = high = row.first;
  for (int64_t p = row.first; p < low; ++p) pixel(row, p);
  for (int64_t p = low; p < high;) {  // the last tile may begin before the end of that before it
    const int64_t left = high - p;
    if (left >= kLong || (left > kShort && high - low >= kLong)) {
      tiles.wide(row, left >= kLong ? p : high - kLong);
      p += kLong;
    } else {
      tiles.narrow(row, left >= kShort ? p : high - kShort);
      p += kShort;
    }
  }
  for (int64_t p = high; p < row.past; ++p) pixel(row, p);
}

template <class T>
void rows(const DepthwiseArgs& a, int64_t begin, int64_t end) {
  using S = Sum<T>;
  const int64_t pieces = (a.size[2] + a.block[2] - 1) / a.block[2];
  const int64_t planes = a.size[0] * a.size[1], of_block = a.x.batch * planes * pieces;
  const Tiles<T> tiles = tiles_for<T>(a);
  // Zen 4 does not see by itself what comes next where the images leave the second cache.
  constexpr int64_t kNear = 4 << 20;
  const int64_t pixels = a.size[0] * a.size[1] * a.size[2] * a.stride[1] * a.stride[2];
  const bool far = a.x.batch * pixels * a.x.channels * int64_t(sizeof(T)) > kNear &&
                   a.kernel[0] * a.x.size[0] == 1;
  Met<T>* met = static_cast<Met<T>*>(a.scratch);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t at = item % of_block / pieces, channel = item / of_block * a.block[0];
    const int64_t first = item % pieces * a.block[2], past = first + a.block[2];
    const int64_t n = at / planes, d = at % planes / a.size[1], h = at % a.size[1];
    int64_t count = 0;
    const T* image = static_cast<const T*>(a.x.data) + n * a.x.n;
    for (int64_t kd = 0; kd < a.kernel[0]; ++kd) {
      const int64_t from_d =
          source(d * a.stride[0] + kd * a.dilation[0] - a.before[0], a.x.size[0], a.border);
      for (int64_t kh = 0; kh < a.kernel[1] && from_d >= 0; ++kh) {
        const int64_t from_h =
            source(h * a.stride[1] + kh * a.dilation[1] - a.before[1], a.x.size[1], a.border);
        for (int64_t j = 0; j < a.planes && from_h >= 0; ++j)
          met[count++] = {
              static_cast<const T*>(a.x.data) + n * a.x.n + from_d * a.x.s[0] + from_h * a.x.s[1] +
                  channel + j * a.x_plane,
              static_cast<const S*>(a.w) + kd * a.w_tap[0] + kh * a.w_tap[1] + j * a.w_plane};
      }
    }
    const T* residual = static_cast<const T*>(a.residual);
    if (residual) residual += n * a.residual_n + d * a.residual_s[0] + h * a.residual_s[1];
    const int64_t left = a.x.channels - channel;
    T* y = static_cast<T*>(a.y) + n * a.y_n + d * a.y_s[0] + h * a.y_s[1];
    Row<T> row{a,
               met,
               count,
               y,
               residual,
               channel,
               left < a.block[0] ? left : a.block[0],
               first,
               past < a.size[2] ? past : a.size[2],
               {},
               nullptr};
    if (far && count && h + 1 < a.size[1]) {
      if (a.y_c == 1) row.y_ahead = y + a.y_s[1];
      const int64_t low = (h + 1) * a.stride[1] + (a.kernel[1] - 1) * a.dilation[1] - a.before[1];
      for (int i = 0; i < 2 && i < a.stride[1]; ++i)
        if (uint64_t(low - i) < uint64_t(a.x.size[1]))
          row.ahead[i] = image + (low - i) * a.x.s[1] + channel;
    }
    row_of<T>(row, tiles);
  }
}

}  // namespace

void depthwise(const DepthwiseArgs& a, int64_t begin, int64_t end) {
  visit_real(a.x.dtype, [&](auto t) { rows<typename decltype(t)::type>(a, begin, end); });
}

HONED_END_LEVEL
