// The gradient of depthwise weights, vectors over channels: a row of g at a time, tiles of kLong of
// its pixels times the inputs they read, added to sums that stay in the first caches.
#include "cpu/kernels/depthwise_finish.h"

HONED_BEGIN_LEVEL
namespace {

constexpr int kLong = 7;

// A row of the input, the row of g that read it, at their channel, and the sums of that row of the
// kernel.
template <class T>
struct Met {
  const T *x, *g;
  Sum<T>* sums;
};
template <class T>
struct Row {
  const DepthwiseArgs& a;
  int64_t g_step;  // from pixel to pixel
  const Met<T>* met;
  int64_t count, channels;
};

template <class T, int taps, int stride, int columns>
void tile(const Row<T>& row, int64_t column) {
  using S = Sum<T>;
  const DepthwiseArgs& a = row.a;
  constexpr int kInputs = (columns - 1) * stride + taps;
  const int64_t step = a.x.s[2], tap = a.w_tap[2], past = a.x.size[2];
  const int64_t from = column * stride - a.before[2];
  const int low = from < 0 ? (from < -kInputs ? kInputs : int(-from)) : 0;
  const int high = past - from < kInputs ? int(past - from) : kInputs;
  for_lanes_of<T>(row.channels, [&](int64_t i, int n) {
    auto rows = [&](auto clipped) __attribute__((always_inline)) {
      for (int64_t r = 0; r < row.count; ++r) {
        const T* x = row.met[r].x + i + from * step;
        const T* of_g = row.met[r].g + i + column * row.g_step;
        S* sums = row.met[r].sums + i;
        Vec<T> g[columns], sum[taps];
#pragma GCC unroll 8
        for (int p = 0; p < columns; ++p) g[p] = load(of_g + p * row.g_step, n);
#pragma GCC unroll 8
        for (int k = 0; k < taps; ++k) sum[k] = load(sums + k * tap, n);
#pragma GCC unroll 32
        for (int j = 0; j < kInputs; ++j) {
          if constexpr (decltype(clipped)::value)
            if (j < low || j >= high) continue;
          const Vec<T> v = load(x + j * step, n);
#pragma GCC unroll 8
          for (int k = 0; k < taps; ++k)
            if ((j - k) % stride == 0 && j >= k && (j - k) / stride < columns)
              sum[k] = fmadd(v, g[(j - k) / stride], sum[k]);
        }
#pragma GCC unroll 8
        for (int k = 0; k < taps; ++k) store(sums + k * tap, sum[k], n);
      }
    };
    if (low == 0 && high == kInputs)
      rows(Flag<false>{});
    else
      rows(Flag<true>{});
  });
}

// One pixel, of any kernel and border.
template <class T>
void pixel(const Row<T>& row, int64_t column) {
  const DepthwiseArgs& a = row.a;
  for (int64_t k = 0; k < a.kernel[2]; ++k) {
    const int64_t from =
        source(column * a.stride[2] + k * a.dilation[2] - a.before[2], a.x.size[2], a.border);
    if (from < 0) continue;
    for (int64_t r = 0; r < row.count; ++r) {
      const T* x = row.met[r].x + from * a.x.s[2];
      const T* g = row.met[r].g + column * row.g_step;
      Sum<T>* sums = row.met[r].sums + k * a.w_tap[2];
      for_lanes_of<T>(row.channels, [&](int64_t i, int n) {
        store(sums + i, fmadd(load(x + i, n), load(g + i, n), load(sums + i, n)), n);
      });
    }
  }
}

template <class T>
struct Tiles {
  void (*wide)(const Row<T>&, int64_t) = nullptr;
  void (*single)(const Row<T>&, int64_t) = pixel<T>;
};
template <class T>
Tiles<T> tiles_for(const DepthwiseArgs& a) {
  Tiles<T> tiles;
  if (sizeof(T) == 8 || a.dilation[2] != 1) return tiles;
  auto take = [&](auto taps, auto stride) {
    constexpr int kTaps = decltype(taps)::value, kStride = decltype(stride)::value;
    if (a.kernel[2] == kTaps && a.stride[2] == kStride)
      tiles = {tile<T, kTaps, kStride, kLong>, tile<T, kTaps, kStride, 1>};
  };
  if constexpr (sizeof(T) != 8) {
    take(Number<3>{}, Number<1>{});
    take(Number<5>{}, Number<1>{});
    take(Number<7>{}, Number<1>{});
    take(Number<3>{}, Number<2>{});
    take(Number<5>{}, Number<2>{});
    take(Number<7>{}, Number<2>{});
  }
  return tiles;
}

template <class T>
void add_row(const Row<T>& row, const Tiles<T>& tiles) {
  const DepthwiseArgs& a = row.a;
  int64_t low = 0, high = a.size[2];
  if (a.border != Border::zeros) inner(a, low, high);
  if (!tiles.wide) low = high = 0;
  for (int64_t p = 0; p < low; ++p) pixel(row, p);
  for (; low + kLong <= high; low += kLong) tiles.wide(row, low);
  for (; low < high; ++low) tiles.single(row, low);
  for (int64_t p = high; p < a.size[2]; ++p) pixel(row, p);
}

template <class T>
void sums(const DepthwiseSumsArgs& args, int64_t begin, int64_t end) {
  using S = Sum<T>;
  const DepthwiseArgs& a = args.conv;
  const Tiles<T> tiles = tiles_for<T>(a);
  Met<T>* met = static_cast<Met<T>*>(a.scratch);
  const int64_t taps = a.kernel[0] * a.kernel[1] * a.kernel[2], all = taps * a.w_tap[2];
  const int64_t rows = a.x.batch * a.size[0] * a.size[1];
  for (int64_t item = begin; item < end; ++item) {
    const int64_t part = item % args.parts, channel = item / args.parts * a.block[0];
    const int64_t left = a.x.channels - channel;
    const int64_t channels = left < a.block[0] ? left : a.block[0];
    S* to = static_cast<S*>(args.sums) + part * all + channel;
    for (int64_t t = 0; t < taps * args.planes; ++t)
      for_lanes_of<S>(channels,
                      [&](int64_t i, int n) { store(to + t * a.x.channels + i, set1(S(0)), n); });
    const int64_t last = (part + 1) * args.part < rows ? (part + 1) * args.part : rows;
    for (int64_t at = part * args.part; at < last; ++at) {
      const int64_t h = at % a.size[1], d = at / a.size[1] % a.size[0];
      const int64_t n = at / a.size[1] / a.size[0];
      const T* g = static_cast<const T*>(args.g.data) + n * args.g.n + d * args.g.s[0] +
                   h * args.g.s[1] + channel;
      int64_t count = 0;
      for (int64_t kd = 0; kd < a.kernel[0]; ++kd) {
        const int64_t from_d =
            source(d * a.stride[0] + kd * a.dilation[0] - a.before[0], a.x.size[0], a.border);
        for (int64_t kh = 0; kh < a.kernel[1] && from_d >= 0; ++kh) {
          const int64_t from_h =
              source(h * a.stride[1] + kh * a.dilation[1] - a.before[1], a.x.size[1], a.border);
          if (from_h < 0) continue;
          const T* x = static_cast<const T*>(a.x.data) + n * a.x.n + from_d * a.x.s[0] +
                       from_h * a.x.s[1] + channel;
          for (int64_t j = 0; j < args.planes; ++j)
            met[count++] = {x, g + j * args.g_plane,
                            to + kd * a.w_tap[0] + kh * a.w_tap[1] + j * a.x.channels};
        }
      }
      add_row<T>({a, args.g.s[2], met, count, channels}, tiles);
    }
  }
}

}  // namespace

void depthwise_sums(const DepthwiseSumsArgs& a, int64_t begin, int64_t end) {
  visit_real(a.conv.x.dtype, [&](auto t) { sums<typename decltype(t)::type>(a, begin, end); });
}

HONED_END_LEVEL
