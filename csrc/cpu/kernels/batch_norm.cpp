// batch_norm: moments of channels and what is made with them. A channel of planes fits the second-level cache more
// often than not, so it is normalised right after its moments are known.
#include "ops/batch_norm.h"

#include "cpu/kernels/batch_norm_rows.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int64_t kPiece = 4096;  // elements that the first-level cache holds twice
constexpr int64_t kRows = 64;     // rows of kBatchNormPiece channels, likewise

HONED_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
HONED_INLINE double square_root(double x) { return __builtin_sqrt(x); }

// Mean and summed squares around it of `count` elements, and those of n more (Chan, Golub and LeVeque).
template <class V, class S>
HONED_INLINE void join(V* mean, V* squares, S count, V more, V more_squares, S n) {
  V apart = more - *mean;
  S part = n / (count + n);
  *squares = *squares + more_squares + apart * apart * (part * count);
  *mean = *mean + apart * part;
}

template <class T>
struct Moments {
  Sum<T> mean, squares;
};
template <class T>
Moments<T> moments_of(const T* x, const BatchNormShape& s) {
  using S = Sum<T>;
  Moments<T> all{0, 0};
  S before = 0;
  int64_t planes = s.size < kPiece ? kPiece / s.size : 1, step = s.channels * s.size;
  for (int64_t b = 0; b < s.batch; b += planes)
    for (int64_t from = 0; from < s.size; from += kPiece) {
      int64_t last = least(b + planes, s.batch), n = least(kPiece, s.size - from);
      Chains<T, 1> sum, squares;
      for (int64_t p = b; p < last; ++p) {
        const T* row = x + p * step + from;
        sum.add(n,
                [&](int64_t i, int m) { return typename Chains<T, 1>::Parts{{load(row + i, m)}}; });
      }
      S count = S((last - b) * n), mean = sum.total(0) / count;
      Vec<T> middle = set1(mean);
      for (int64_t p = b; p < last; ++p) {
        const T* row = x + p * step + from;
        squares.add(n, [&](int64_t i, int m) {
          Vec<T> d = load(row + i, m) - middle;
          return typename Chains<T, 1>::Parts{{d * d}};
        });
      }
      join(&all.mean, &all.squares, before, mean, squares.total(0), count);
      before += count;
    }
  return all;
}

// A row of n elements of one channel.
template <class T>
HONED_INLINE void norm_plane(const BatchNormArgs& a, int64_t offset, Sum<T> mean, Sum<T> scale,
                             Sum<T> shift) {
  const T *x = at<T>(a.x, offset), *residual = at<T>(a.residual, offset);
  T* y = at<T>(a.y, offset);
  Vec<T> low = set1(Sum<T>(a.low)), high = set1(Sum<T>(a.high));
  for_lanes_of<T>(a.shape.size, [&](int64_t i, int n) {
    Vec<T> v = fmadd(load(x + i, n) - set1(mean), set1(scale), set1(shift));
    if (residual) v = v + load(residual + i, n);
    store(y + i, bounded(v, low, high), n);
  });
}

template <class T>
void norm_row(const BatchNormArgs& a, int64_t row) {
  const T *x = at<T>(a.x, row * a.shape.channels),
          *residual = at<T>(a.residual, row * a.shape.channels);
  T* y = at<T>(a.y, row * a.shape.channels);
  const auto *mean = at<Sum<T>>(a.mean, 0), *scale = at<Sum<T>>(a.scale, 0),
             *shift = at<Sum<T>>(a.shift, 0);
  Vec<T> low = set1(Sum<T>(a.low)), high = set1(Sum<T>(a.high));
  for_lanes_of<T>(a.shape.channels, [&](int64_t c, int n) {
    Vec<T> v = fmadd(load(x + c, n) - load(mean + c, n), load(scale + c, n), load(shift + c, n));
    if (residual) v = v + load(residual + c, n);
    store(y + c, bounded(v, low, high), n);
  });
}

template <class T>
void norm_channel(const BatchNormArgs& a, int64_t c) {
  using S = Sum<T>;
  const BatchNormShape& s = a.shape;
  auto of = moments_of(at<T>(a.x, c * s.size), s);
  S count = S(s.batch * s.size);
  S weight = a.w ? static_cast<const S*>(a.w)[c] : S(1);
  S scale = weight / square_root(of.squares / count + S(a.eps));
  S shift = a.b ? static_cast<const S*>(a.b)[c] : S(0);
  static_cast<S*>(a.mean)[c] = of.mean;
  static_cast<S*>(a.var)[c] = of.squares / (count - S(1));
  // From the end, which the cache still has.
  for (int64_t b = s.batch; b-- > 0;)
    norm_plane<T>(a, (b * s.channels + c) * s.size, of.mean, scale, shift);
}

template <class T>
void moments_of_block(const BatchNormArgs& a, int64_t item) {
  using S = Sum<T>;
  constexpr int kStep = kLanesOf<T>;
  Block block = block_of(a.shape, a.block, item);
  int64_t channels = a.shape.channels;
  for_channels<T>(block.first, block.last, [&](auto side, int64_t c, int n) {
    constexpr int kSide = decltype(side)::count;
    Vec<T> means[kSide] = {}, all_squares[kSide] = {};
    S before = 0;
    for (int64_t from = block.first_row; from < block.last_row; from += kRows) {
      int64_t until = least(from + kRows, block.last_row);
      S count = S(until - from);
      Vec<T> mean[kSide] = {}, squares[kSide] = {};
      for (int64_t r = from; r < until; ++r)
        for (int u = 0; u < kSide; ++u)
          mean[u] = mean[u] + load(at<T>(a.x, r * channels + c + u * kStep), n);
      for (int u = 0; u < kSide; ++u) mean[u] = mean[u] / count;
      for (int64_t r = from; r < until; ++r)
        for (int u = 0; u < kSide; ++u) {
          Vec<T> d = load(at<T>(a.x, r * channels + c + u * kStep), n) - mean[u];
          squares[u] = fmadd(d, d, squares[u]);
        }
      for (int u = 0; u < kSide; ++u)
        join(&means[u], &all_squares[u], before, mean[u], squares[u], count);
      before += count;
    }
    S* parts = at<S>(a.parts, 2 * block.index * channels + c);
    for (int u = 0; u < kSide; ++u) {
      store(parts + u * kStep, means[u], n);
      store(parts + channels + u * kStep, all_squares[u], n);
    }
  });
}

}  // namespace

void batch_norm(const BatchNormArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    using T = typename decltype(t)::type;
    using S = Sum<T>;
    for (int64_t i = begin; i < end; ++i) {
      if (a.shape.channels_last) {
        norm_row<T>(a, i);
        continue;
      }
      int64_t c = i % a.shape.channels;
      norm_plane<T>(a, i * a.shape.size, *at<S>(a.mean, c), *at<S>(a.scale, c), *at<S>(a.shift, c));
    }
  });
}

void batch_norm_planes(const BatchNormArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t c = begin; c < end; ++c) norm_channel<typename decltype(t)::type>(a, c);
  });
}

void batch_norm_moments(const BatchNormArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t i = begin; i < end; ++i) moments_of_block<typename decltype(t)::type>(a, i);
  });
}

HONED_END_LEVEL
