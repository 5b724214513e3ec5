// AdamW over blocks of a list of tensors: every tensor is read once and written once.
#include "ops/adamw_step.h"

#include "cpu/simd/root.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

// A product that is rounded before it is subtracted from, as torch's is: the compiler cannot fuse it.
template <class V>
HONED_INLINE V alone(V product) {
  asm("" : "+x"(product));
  return product;
}

// P: the parameter, G: its gradient, M: its states.
template <class P, class G, class M>
void step(const AdamwStepArgs& a, const AdamwTensor& t, int64_t first, int64_t last) {
  using S = Sum<P>;
  using V = Vec<P>;
  P* param = static_cast<P*>(t.param);
  const G* grad = static_cast<const G*>(t.grad);
  M* exp_avg = static_cast<M*>(t.exp_avg);
  M* exp_avg_sq = static_cast<M*>(t.exp_avg_sq);
  M* largest = static_cast<M*>(t.max_exp_avg_sq);
  const V keep1 = set1(S(1 - a.beta1)), beta2 = set1(S(a.beta2)), keep2 = set1(S(1 - a.beta2)),
          decay = set1(S(a.decay)), eps = set1(S(a.eps)), root = set1(S(t.root)),
          step_size = set1(S(t.step_size)), scale = set1(S(a.grad_scale)), none = set1(S(0));
  const bool near = a.beta1 > 0.5;  // torch's lerp starts at the nearer end
  const V beta1 = set1(S(a.beta1));
  for_lanes_of<P>(last - first, [&](int64_t i, int n) {
    const int64_t at = first + i;
    V p;
    if constexpr (sizeof(P) == 2)
      p = t.master ? load(t.master + at, n) : load(param + at, n);
    else
      p = load(param + at, n);
    V g = load(grad + at, n);
    if (a.grad_scale != 1) g = g / scale;
    if (a.maximize) g = none - g;
    V m = load(exp_avg + at, n), v = load(exp_avg_sq + at, n);
    m = near ? fmadd(keep1, g - m, m) : g - (g - m) * beta1;
    v = fmadd(keep2 * g, g, v * beta2);
    store(exp_avg + at, m, n);
    store(exp_avg_sq + at, v, n);
    V u = v;
    if (largest) {
      u = vmax(load(largest + at, n), v);
      store(largest + at, u, n);
    }
    p = alone(p * decay) - step_size * m / (vsqrt(u) / root + eps);
    if constexpr (sizeof(P) == 2)
      if (t.master) store(t.master + at, p, n);
    store(param + at, p, n);
  });
}

void block(const AdamwStepArgs& a, const AdamwTensor& t, int64_t first, int64_t last) {
  if (t.dtype == DType::f64) return step<double, double, double>(a, t, first, last);
  visit_float(t.dtype, [&](auto p) {
    using P = typename decltype(p)::type;
    const bool wide_grad = t.grad_dtype == DType::f32, wide_state = t.state_dtype == DType::f32;
    if (wide_grad)
      wide_state ? step<P, float, float>(a, t, first, last) : step<P, float, P>(a, t, first, last);
    else
      wide_state ? step<P, P, float>(a, t, first, last) : step<P, P, P>(a, t, first, last);
  });
}

}  // namespace

void adamw_step(const AdamwStepArgs& a, int64_t begin, int64_t end) {
  int64_t low = 0, high = a.count;  // the tensor that `begin` lies in
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (a.tensors[middle].first_item <= begin ? low : high) = middle;
  }
  for (int64_t item = begin; item < end;) {
    const AdamwTensor& t = a.tensors[low];
    const int64_t stop = low + 1 < a.count ? a.tensors[low + 1].first_item : end;
    const int64_t upto = end < stop ? end : stop;
    const int64_t first = (item - t.first_item) * kAdamwBlock,
                  last = (upto - t.first_item) * kAdamwBlock;
    block(a, t, first, last < t.count ? last : t.count);
    item = upto;
    ++low;
  }
}

HONED_END_LEVEL
