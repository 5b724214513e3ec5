// The gradients of batch_norm: sums over a channel, then the elements.
#include "cpu/kernels/batch_norm_rows.h"

HONED_BEGIN_LEVEL

namespace {

// What the gradients of n elements are made of.
template <class T>
struct Elements {
  const T *g, *x, *y;
  Vec<T> low, high;
  HONED_INLINE Elements(const BatchNormBackwardArgs& a, int64_t offset)
      : g(at<T>(a.g, offset)),
        x(at<T>(a.x, offset)),
        y(at<T>(a.y, offset)),
        low(set1(Sum<T>(a.low))),
        high(set1(Sum<T>(a.high))) {}
  HONED_INLINE Vec<T> grad(int64_t i, int n) const {
    Vec<T> v = load(g + i, n);
    return y ? passed(v, load(y + i, n), low, high) : v;
  }
};

template <class T>
void channel_backward(const BatchNormBackwardArgs& a, int64_t c) {
  using S = Sum<T>;
  const BatchNormShape& s = a.shape;
  S *sums = static_cast<S*>(a.sums), inverse = *at<S>(a.inverse, c), count = S(s.batch * s.size);
  Vec<T> mean = set1(*at<S>(a.mean, c)), scale = set1(*at<S>(a.scale, c));
  Chains<T, 2> both;
  for (int64_t b = 0; b < s.batch; ++b) {
    Elements<T> e(a, (b * s.channels + c) * s.size);
    both.add(s.size, [&](int64_t i, int n) {
      Vec<T> v = e.grad(i, n);
      return typename Chains<T, 2>::Parts{{v, v * (load(e.x + i, n) - mean)}};
    });
  }
  sums[c] = both.total(0);
  sums[s.channels + c] = both.total(1);
  if (!a.dx && !a.d_residual) return;
  Vec<T> shift = set1(a.training ? sums[c] / count : S(0));
  Vec<T> back = set1(a.training ? sums[s.channels + c] * inverse * inverse / count : S(0));
  for (int64_t b = s.batch; b-- > 0;) {  // from the end, which the cache still has
    int64_t offset = (b * s.channels + c) * s.size;
    Elements<T> e(a, offset);
    T *dx = at<T>(a.dx, offset), *d_residual = at<T>(a.d_residual, offset);
    for_lanes_of<T>(s.size, [&](int64_t i, int n) {
      Vec<T> v = e.grad(i, n);
      if (d_residual) store(d_residual + i, v, n);
      if (dx) store(dx + i, (v - shift - (load(e.x + i, n) - mean) * back) * scale, n);
    });
  }
}

template <class T>
void sums_of_block(const BatchNormBackwardArgs& a, int64_t item) {
  constexpr int kStep = kLanesOf<T>;
  Block block = block_of(a.shape, a.block, item);
  int64_t channels = a.shape.channels;
  for_channels<T>(block.first, block.last, [&](auto side, int64_t c, int n) {
    constexpr int kSide = decltype(side)::count;
    Vec<T> of_g[kSide] = {}, of_gx[kSide] = {}, mean[kSide];
    for (int u = 0; u < kSide; ++u) mean[u] = load(at<Sum<T>>(a.mean, c + u * kStep), n);
    for (int64_t r = block.first_row; r < block.last_row; ++r) {
      Elements<T> e(a, r * channels + c);
      for (int u = 0; u < kSide; ++u) {
        Vec<T> v = e.grad(u * kStep, n);
        of_g[u] = of_g[u] + v;
        of_gx[u] = fmadd(v, load(e.x + u * kStep, n) - mean[u], of_gx[u]);
      }
    }
    auto* sums = at<Sum<T>>(a.sums, 2 * block.index * channels + c);
    for (int u = 0; u < kSide; ++u) {
      store(sums + u * kStep, of_g[u], n);
      store(sums + channels + u * kStep, of_gx[u], n);
    }
  });
}

template <class T>
void row_backward(const BatchNormBackwardArgs& a, int64_t row) {
  int64_t offset = row * a.shape.channels;
  Elements<T> e(a, offset);
  T *dx = at<T>(a.dx, offset), *d_residual = at<T>(a.d_residual, offset);
  const auto *mean = at<Sum<T>>(a.mean, 0), *scale = at<Sum<T>>(a.scale, 0),
             *shift = at<Sum<T>>(a.shift, 0), *back = at<Sum<T>>(a.back, 0);
  for_lanes_of<T>(a.shape.channels, [&](int64_t c, int n) {
    Vec<T> v = e.grad(c, n);
    if (d_residual) store(d_residual + c, v, n);
    if (!dx) return;
    Vec<T> d = load(e.x + c, n) - load(mean + c, n);
    store(dx + c, (v - load(shift + c, n) - d * load(back + c, n)) * load(scale + c, n), n);
  });
}

}  // namespace

void batch_norm_backward(const BatchNormBackwardArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t c = begin; c < end; ++c) channel_backward<typename decltype(t)::type>(a, c);
  });
}

void batch_norm_backward_sums(const BatchNormBackwardArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t i = begin; i < end; ++i) sums_of_block<typename decltype(t)::type>(a, i);
  });
}

void batch_norm_backward_rows(const BatchNormBackwardArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t i = begin; i < end; ++i) row_backward<typename decltype(t)::type>(a, i);
  });
}

HONED_END_LEVEL
