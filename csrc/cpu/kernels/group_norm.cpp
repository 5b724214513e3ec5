// group_norm: a group is one row for the moments, and a row a channel for the rest.
#include "ops/group_norm.h"

#include "cpu/kernels/norm_rows.h"

HONED_BEGIN_LEVEL

namespace {

template <class T>
void groups(const GroupNormArgs& a, int64_t item) {
  int64_t channels = a.channels / a.groups, first = item % a.groups * channels;
  const T* x = static_cast<const T*>(a.x) + item * channels * a.size;
  T* y = static_cast<T*>(a.y) + item * channels * a.size;
  const auto* w = static_cast<const Sum<T>*>(a.w);
  const auto* b = static_cast<const Sum<T>*>(a.b);
  auto by =
      scaling<T, true>(channels * a.size, a.eps, [&](int64_t i, int n) { return load(x + i, n); });
  Vec<T> mean = set1(by.mean);
  for (int64_t c = 0; c < channels; ++c, x += a.size, y += a.size) {
    Vec<T> scale = set1(w ? by.scale * w[first + c] : by.scale);
    Vec<T> shift = set1(b ? b[first + c] : Sum<T>(0));
    for_lanes_of<T>(a.size, [&](int64_t i, int n) {
      store(y + i, fmadd(load(x + i, n) - mean, scale, shift), n);
    });
  }
}

template <class T>
void groups_backward(const GroupNormBackwardArgs& a, int64_t item) {
  using S = Sum<T>;
  using V = Vec<T>;
  int64_t channels = a.channels / a.groups, first = item % a.groups * channels;
  int64_t batch_first = item * channels;  // of the sums
  const T* x = static_cast<const T*>(a.x) + item * channels * a.size;
  const T* g = static_cast<const T*>(a.g) + item * channels * a.size;
  const S* w = static_cast<const S*>(a.w);
  auto by =
      scaling<T, true>(channels * a.size, a.eps, [&](int64_t i, int n) { return load(x + i, n); });
  V mean = set1(by.mean), scale = set1(by.scale);
  S of_g = 0, of_gx = 0;  // of g w and g w (x - mean)
  for (int64_t c = 0; c < channels; ++c) {
    S sums[2];
    sum_rows<T, 2>(a.size, sums, [&](int64_t i, int n) {
      V v = load(g + c * a.size + i, n);
      return Parts<T, 2>{{v, v * (load(x + c * a.size + i, n) - mean)}};
    });
    if (a.b_sums) static_cast<S*>(a.b_sums)[batch_first + c] = sums[0];
    if (a.w_sums) static_cast<S*>(a.w_sums)[batch_first + c] = sums[1] * by.scale;
    S weight = w ? w[first + c] : S(1);
    of_g += weight * sums[0];
    of_gx += weight * sums[1];
  }
  if (!a.dx) return;
  T* dx = static_cast<T*>(a.dx) + item * channels * a.size;
  S count = S(channels * a.size);
  V shift = set1(of_g / count), back = set1(of_gx * by.scale * by.scale / count);
  for (int64_t c = 0; c < channels; ++c) {
    V weight = set1(w ? w[first + c] : S(1));
    int64_t at = c * a.size;
    for_lanes_of<T>(a.size, [&](int64_t i, int n) {
      V d = load(x + at + i, n) - mean;
      store(dx + at + i, (load(g + at + i, n) * weight - shift - d * back) * scale, n);
    });
  }
}

}  // namespace

void group_norm(const GroupNormArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t i = begin; i < end; ++i) groups<typename decltype(t)::type>(a, i);
  });
}

void group_norm_backward(const GroupNormBackwardArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t i = begin; i < end; ++i) groups_backward<typename decltype(t)::type>(a, i);
  });
}

HONED_END_LEVEL
