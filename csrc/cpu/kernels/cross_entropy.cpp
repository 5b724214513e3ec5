// Losses of rows of logits and their gradients. A row is read from memory once: a piece at a time
// its maximum, then its exponentials under the largest maximum so far; the gradient while the row is
// in the second cache.
#include "ops/cross_entropy.h"

#include "cpu/simd/math_f64.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int kPieces = 64;               // of a row, at most
constexpr int64_t kShortestPiece = 2048;  // what is read twice stays in the first cache
constexpr double kInfinity = __builtin_inf();

HONED_INLINE double exponential(double x) { return __builtin_exp(x); }

// Of one row: the largest logit, the log of the sum of exponentials below it, and what they count.
struct Row {
  double max, log_sum, scale;  // scale: of the probabilities in the gradient
  double back, spread;         // off the target's gradient; off every class's, times its weight
};

template <class T>
struct Logits {
  using S = Sum<T>;
  using V = Vec<T>;
  const T* x;
  S cap, inverse;  // cap 0: none

  HONED_INLINE V tangent(V v) const { return vtanh(v * set1(inverse)); }
  HONED_INLINE V capped(V v) const { return cap ? set1(cap) * tangent(v) : v; }
  HONED_INLINE V at(int64_t c, int n) const { return capped(load(x + c, n)); }
  HONED_INLINE double one(int64_t c) const {
    S lanes[Simd<S>::lanes];
    store(static_cast<S*>(lanes), at(c, 1));
    return double(lanes[0]);
  }
  // Of the logits from c on; the largest input has the largest logit. A NaN is passed over.
  HONED_INLINE S max_of(int64_t c, int64_t count) const {
    constexpr int kStep = kLanesOf<T>;
    const V none = set1(S(-kInfinity));
    V top[4] = {none, none, none, none};
    int64_t i = 0;
    for (; i + 4 * kStep <= count; i += 4 * kStep)
      for (int u = 0; u < 4; ++u) top[u] = vmax(load(x + c + i + u * kStep, kStep), top[u]);
    for (; i < count; i += kStep) {
      int n = count - i < kStep ? int(count - i) : kStep;
      top[0] = vmax(keep_first(load(x + c + i, n), n, none), top[0]);
    }
    S largest = reduce_max(vmax(vmax(top[0], top[1]), vmax(top[2], top[3])));
    S lanes[Simd<S>::lanes];
    store(static_cast<S*>(lanes), capped(set1(largest)));
    return lanes[0];
  }
};

template <class T>
class RowLoss {
  using S = Sum<T>;
  using V = Vec<T>;
  static constexpr int kStep = kLanesOf<T>;

 public:
  RowLoss(const CrossEntropyArgs& a, int64_t r)
      : a_(a),
        r_(r),
        target_(a.target[r]),
        logits_{static_cast<const T*>(a.x) + r * a.x_stride, S(a.softcap),
                a.softcap ? S(1 / a.softcap) : S(0)},
        dx_(a.dx ? static_cast<T*>(a.dx) + r * a.dx_stride : nullptr),
        w_(static_cast<const S*>(a.w)),
        piece_(a.cols > kPieces * kShortestPiece ? (a.cols + kPieces - 1) / kPieces
                                                 : kShortestPiece) {}

  void forward() {
    S* lse = static_cast<S*>(a_.lse) + 2 * r_;
    if (target_ == kIgnored) {
      a_.loss[r_] = 0;
      lse[0] = lse[1] = 0;
      return clear();
    }
    const double own = logits_.one(target_), own_w = weight(target_);
    // 16-bit rows would round the exponentials that the gradient is made of.
    const bool kept = dx_ && sizeof(T) >= 4 && !logits_.cap;
    sum_up(kept ? dx_ : nullptr);
    lse[0] = S(max_);
    lse[1] = S(__builtin_log(sum_));
    const double log_sum = __builtin_log(sum_), whole = max_ + log_sum;
    double loss = (1 - a_.smoothing) * own_w * ((max_ - own) + log_sum);
    if (a_.smoothing) loss += a_.smoothing / double(a_.cols) * (w_total() * whole - weighted_);
    a_.loss[r_] = loss + a_.z_loss * whole * whole;
    if (!dx_) return;
    const Row row = settle(max_, log_sum);
    if (kept)
      scale_kept(row);
    else
      gradient(row);
    at_target(row, own);
  }

  void backward() {
    if (target_ == kIgnored) return clear();
    const double own = logits_.one(target_);
    const S* lse = static_cast<const S*>(a_.lse) + 2 * r_;
    const Row row = settle(double(lse[0]), double(lse[1]));
    gradient(row);
    at_target(row, own);
  }

 private:
  double weight(int64_t c) const { return w_ ? double(w_[c]) : 1; }
  double w_total() const { return a_.w_sum; }

  void clear() {
    if (dx_) for_lanes_of<T>(a_.cols, [&](int64_t c, int n) { store(dx_ + c, set1(S(0)), n); });
  }

  // Maximum and sum; keep: where the exponentials go, each under the maximum of its piece.
  void sum_up(T* keep) {
    max_ = -kInfinity;
    for (int64_t first = 0, p = 0; first < a_.cols; first += piece_, ++p) {
      const int64_t count = a_.cols - first < piece_ ? a_.cols - first : piece_;
      const double before = max_, found = double(logits_.max_of(first, count));
      if (found > max_) max_ = found;
      // Where all is -inf yet, the exponentials are 0 (a NaN stays NaN) under any finite maximum.
      const V under = set1(S(max_ == -kInfinity ? 0 : max_)), none = set1(S(0));
      V sum[2] = {none, none}, all[2] = {none, none};
      auto add = [&](int64_t c, int n, int u) {
        const V l = logits_.at(c, n), e = vexp(l - under);
        if (keep) store(keep + c, e, n);
        sum[u] = sum[u] + keep_first(e, n, none);
        if (a_.smoothing) all[u] = all[u] + keep_first(w_ ? l * load(w_ + c, n) : l, n, none);
      };
      int64_t i = first;
      const int64_t end = first + count;
      for (; i + 2 * kStep <= end; i += 2 * kStep) {
        add(i, kStep, 0);
        add(i + kStep, kStep, 1);
      }
      for (; i < end; i += kStep) add(i, end - i < kStep ? int(end - i) : kStep, 0);
      const double rescaled =
          before == max_ ? sum_ : sum_ * (before == -kInfinity ? 0 : exponential(before - max_));
      sum_ = rescaled + double(reduce_add(sum[0] + sum[1]));
      weighted_ += double(reduce_add(all[0] + all[1]));
      of_piece_[p] = max_;
    }
  }

  Row settle(double max, double log_sum) const {
    const double g = a_.grad[r_ * a_.grad_stride];
    const double back = (1 - a_.smoothing) * weight(target_);
    const double spread = a_.smoothing / double(a_.cols);
    const double whole = max + log_sum;
    return {max, log_sum, g * (back + spread * w_total() + 2 * a_.z_loss * whole), g * back,
            g * spread};
  }

  HONED_INLINE V less_spread(V p, int64_t c, int n, V spread) const {
    if (!a_.smoothing) return p;
    return p - (w_ ? load(w_ + c, n) * spread : spread);
  }

  void scale_kept(const Row& row) {
    const V spread = set1(S(row.spread));
    for (int64_t first = 0, p = 0; first < a_.cols; first += piece_, ++p) {
      const int64_t count = a_.cols - first < piece_ ? a_.cols - first : piece_;
      const V scale = set1(S(exponential(of_piece_[p] - row.max - row.log_sum) * row.scale));
      for_lanes_of<T>(count, [&](int64_t i, int n) {
        T* at = dx_ + first + i;
        store(at, less_spread(load(at, n) * scale, first + i, n, spread), n);
      });
    }
  }

  HONED_INLINE V slope(V x, V d) const {
    if (!logits_.cap) return d;
    const V t = logits_.tangent(x);
    return d * (set1(S(1)) - t * t);
  }

  void gradient(const Row& row) {
    const V max = set1(S(row.max)), log_sum = set1(S(row.log_sum)), scale = set1(S(row.scale)),
            spread = set1(S(row.spread));
    own_ = load(logits_.x + target_, 1);
    for_lanes_of<T>(a_.cols, [&](int64_t c, int n) {
      const V x = load(logits_.x + c, n), p = vexp((logits_.capped(x) - max) - log_sum) * scale;
      store(dx_ + c, slope(x, less_spread(p, c, n, spread)), n);
    });
  }

  // The target's own element, whose terms cancel: at once from its logit.
  void at_target(const Row& row, double own) {
    const double p = exponential((own - row.max) - row.log_sum) * row.scale;
    const V d = set1(S(p - row.spread * weight(target_) - row.back));
    store(dx_ + target_, slope(own_, d), 1);
  }

  const CrossEntropyArgs& a_;
  int64_t r_, target_;
  Logits<T> logits_;
  T* dx_;
  const S* w_;
  int64_t piece_;
  double max_ = -kInfinity, sum_ = 0, weighted_ = 0;
  V own_ = set1(S(0));        // the target's input, which the gradient may lie over
  double of_piece_[kPieces];  // the largest logit up to the piece's end
};

}  // namespace

void cross_entropy(const CrossEntropyArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t r = begin; r < end; ++r) RowLoss<typename decltype(t)::type>(a, r).forward();
  });
}

void cross_entropy_backward(const CrossEntropyArgs& a, int64_t begin, int64_t end) {
  visit_real(a.dtype, [&](auto t) {
    for (int64_t r = begin; r < end; ++r) RowLoss<typename decltype(t)::type>(a, r).backward();
  });
}

HONED_END_LEVEL
