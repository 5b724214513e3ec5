// The weights of all tokens of a row in f32: sums of known error, that tell most often what the f64
// weights of ops/sample.h decide. Where they do not, the caller asks those.
#pragma once
#include "cpu/kernels/sample_logits.h"
#include "cpu/simd/math.h"

HONED_BEGIN_LEVEL
namespace {

// e^x 2^-n in f32, n fixed: the same number for the same x, within kRough of it (the reduced argument's
// 2e-8, and 1.1 ulp), where x is at most 80 below `top`.
constexpr double kRough = 2e-7;
HONED_INLINE void add_to(vd (&sum)[2], vf v) {  // in f64
#if defined(__AVX512F__)
  sum[0] += (vd)_mm512_cvtps_pd(_mm512_castps512_ps256(v));
  sum[1] += (vd)_mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
#else
  vh half[2];
  __builtin_memcpy(half, &v, sizeof v);
  for (int h = 0; h < 2; ++h) sum[h] += __builtin_convertvector(half[h], vd);
#endif
}
class Rough {
 public:
  explicit Rough(float top)
      : low_(set1(top - 80.0f)), shift_(round_even(set1(top * 1.44269504f))) {}
  // -infinity weighs e^-80 of the top, too little to tell in any sum.
  HONED_INLINE vf clamped(vf x) const { return vmax(x, low_); }
  HONED_INLINE vf operator()(vf x) const {
    x = clamped(x);
    vf n = round_even(x * set1(1.44269504f));
    return exp_of_parts(minus_ln2(x, n), n - shift_);
  }
  // Of x in f64.
  double exact(double x) const { return __builtin_exp(x - product(shift_[0], 0.6931471805599453)); }

 private:
  vf low_, shift_;
};

constexpr double kSummed = 1e-11;  // of f64 sums, in whatever order

template <class T>
class Masses {
 public:
  // sums holds a value for kBlock blocks.
  Masses(const Logits<T>& logits, float temperature, double* sums)
      : logits_(logits),
        temperature_(temperature),
        top_(logits.largest() / temperature),
        sums_(sums),
        rough_(top_) {}

  // Beyond, digits are lost. Not of a NaN or an infinity.
  bool usable() const { return !logits_.has_nan() && top_ < 1e4f && top_ > -1e4f; }
  double total() const { return total_; }
  float top() const { return top_; }
  const Rough& rough() const { return rough_; }

  void sum() {
    sum_and([](vf, vf) {});
  }

  // Within error() of the entropy in nats.
  double sum_entropy(double* error) {
    vd sum[2] = {};
    vf top = set1(top_);
    sum_and([&](vf x, vf w) { add_to(sum, w * (top - rough_.clamped(x))); });
    double depth = added(sum) / total_;  // mean of log(weight of the top / weight)
    *error = product(3.0 * kRough, depth) + 2.0 * kRough;
    return log_total() + depth;
  }

  // A guess of the x, at least low, below which the tokens weigh `mass`: of a few steps, judged by
  // every eighth block.
  double guess_below(double mass, double low) const {
    constexpr int kSteps = 8, kEvery = 8;
    vf bound[kSteps], sum[kSteps];
    for (int k = 0; k < kSteps; ++k) {
      bound[k] = set1(float(low + (double(top_) - low) * (k + 1) / (kSteps + 1)));
      sum[k] = zero();
    }
    alignas(64) float x[kBlock];
    for (int64_t b = 0; b < logits_.blocks(); b += kEvery) {
      scaled(b, x);
      for (int i = 0; i < kBlock; i += kLanes) {
        vf v = load(x + i), w = rough_(v);
        for (int k = 0; k < kSteps; ++k) sum[k] = sum[k] + select_less(v, bound[k], w, zero());
      }
    }
    for (int k = 0; k < kSteps; ++k)
      if (kEvery * double(reduce_add(sum[k])) < mass) low = double(bound[k][0]);
    return low;
  }

  // log(total / weight of the top): the top itself is exact, so the error is within kRough of what
  // the others weigh.
  double log_total() const {
    double others = total_ - double(rough_(set1(top_))[0]);
    return others > 0.0 ? __builtin_log1p(others / rough_.exact(double(top_))) : 0.0;
  }

  // The token of the definition, or -1: u * total is too near to where its weight begins or ends.
  // With the weights S before such a place and R behind it, that is the sign of S (1 - u) - R u.
  int64_t drawn(double u) const {
    double target = product(u, total_), sum = 0.0;
    double margin = (product(2.1 * kRough, product(u, 1.0 - u)) + kSummed) * total_;
    int64_t chunk = 0, chunks = padded(logits_.blocks()) / kBlock;
    while (chunk + 1 < chunks && sums_[chunk] <= target) sum = sums_[chunk++];
    int64_t b = chunk * kBlock;
    alignas(64) float w[kBlock];
    double next = sum;
    for (;; ++b) {
      vd part[2] = {};
      scaled(b, w);
      for (int i = 0; i < kBlock; i += kLanes) {
        vf weight = rough_(load(w + i));
        store(w + i, weight);
        add_to(part, weight);
      }
      next = sum + added(part);
      if (next > target || b + 1 == logits_.blocks()) break;
      sum = next;
    }
    for (int i = 0; i < kBlock; ++i, sum = next) {
      next = sum + double(w[i]);
      if (next <= target) continue;
      bool clear = target - sum > margin && next - target > margin;
      return clear ? b * kBlock + i : -1;
    }
    return -1;
  }

 private:
  static double added(const vd (&sum)[2]) {
    vd both = sum[0] + sum[1];
    double total = 0.0;
    for (int i = 0; i < kDoubles; ++i) total += both[i];
    return total;
  }

  // x of a block.
  HONED_INLINE void scaled(int64_t b, float* x) const {
    logits_.block(b, x);
    vf by = set1(temperature_);
    for (int i = 0; i < kBlock; i += kLanes) store(x + i, load(x + i) / by);
  }

  // f(x) for the vectors of a chunk: of kBlock blocks.
  template <class F>
  HONED_INLINE void vectors(int64_t chunk, F&& f) const {
    int64_t b = chunk * kBlock, end = b + kBlock;
    vf by = set1(temperature_);
    logits_.stretches(b, end < logits_.blocks() ? end : logits_.blocks(),
                      [&](const auto* from, int64_t count) {
                        if (temperature_ == 1.0f)
                          for (int64_t i = 0; i < count; i += kLanes) f(load(from + i));
                        else
                          for (int64_t i = 0; i < count; i += kLanes) f(load(from + i) / by);
                      });
  }

  template <class F>
  HONED_INLINE void sum_and(F&& more) {
    total_ = 0.0;
    for (int64_t c = 0; c * kBlock < logits_.blocks(); ++c) {
      vd sum[2] = {};
      vectors(c, [&](vf x) {
        vf w = rough_(x);
        add_to(sum, w);
        more(x, w);
      });
      sums_[c] = total_ += added(sum);
    }
  }

  const Logits<T>& logits_;
  float temperature_, top_;
  double* sums_;  // of all up to the end of a chunk
  double total_ = 0.0;
  Rough rough_;
};

}  // namespace
HONED_END_LEVEL
