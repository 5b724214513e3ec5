// A block of query rows in attention's backward: its operands, and for a block of keys the weights
// and the gradients of their scores, transposed: (key, row), query rows along the lanes.
#pragma once
#include "cpu/kernels/attention_backward_product.h"
#include "cpu/kernels/attention_scores.h"
#include "ops/_attention_backward.h"

HONED_BEGIN_LEVEL
namespace {

static_assert(kBackwardRows == kMaxRows);

HONED_INLINE int64_t padded(int64_t dim) { return (dim + 15) / 16 * 16; }

HONED_INLINE void fill_zero(float* to, int64_t count) {
  for (int64_t i = 0; i < count; i += kLanes) store(to + i, zero());
}

// Calls body(pointer) with the elements of query row (h, t) of a tensor.
template <class F>
HONED_INLINE void with_query(const void* data, DType dtype, const int64_t* stride, const Span& s,
                             int64_t h, int64_t t, F&& body) {
  int64_t at = s.q_batch * stride[0] + h * stride[1] + (s.q_first + t) * stride[2];
  visit_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    body(static_cast<T*>(const_cast<void*>(data)) + at);
  });
}

// Elements as f32, zeros up to the padded size.
template <class T>
HONED_INLINE void widen(const T* from, int64_t cols, float* to) {
  for_lanes(cols, [&](int64_t i, int n) { store(to + i, load(from + i, n)); });
  for (int64_t i = (cols + kLanes - 1) / kLanes * kLanes; i < padded(cols); i += kLanes)
    store(to + i, zero());
}

class BackwardBlock {
 public:
  // Of `scratch` it takes block_floats().
  BackwardBlock(const AttentionBackwardArgs& args, float* scratch)
      : args_(args),
        a_(args.forward),
        dim_(padded(a_.head_dim)),
        value_dim_(padded(a_.value_dim)),
        kept_(a_.dropout != 0.0f ? kept_scale(a_.dropout) : 1.0f) {
    auto next = [&](int64_t count) {
      float* taken = scratch;
      scratch += count;
      return taken;
    };
    query = next(kMaxRows * dim_), query_t_ = next(kMaxRows * dim_);
    dout = next(kMaxRows * value_dim_), dout_t_ = next(kMaxRows * value_dim_);
    weight = next(kMaxRows * kMaxRows), dscore = next(kMaxRows * kMaxRows);
    slope_ = next(kMaxRows * kMaxRows);
  }

  void take(const QueryRows& rows) {
    for (int r = 0; r < rows.count; ++r) {
      int64_t h = rows.head_of(r), t = rows.query_of(r);
      with_query(a_.q, a_.dtype, a_.q_stride, rows.span, h, t,
                 [&](const auto* from) { widen(from, a_.head_dim, query + r * dim_); });
      with_query(args_.dout, a_.dtype, args_.dout_stride, rows.span, h, t,
                 [&](const auto* from) { widen(from, a_.value_dim, dout + r * value_dim_); });
      int64_t number = row_number(a_, rows.span, h, t);
      bool sees = a_.lse[number] != kMinusInf;
      lse_[r] = sees ? a_.lse[number] : -kMinusInf;  // the weights are then 0
      delta_[r] = sees ? args_.delta[number] : 0.0f;
    }
    for (int r = rows.count; r < rows.vecs * kLanes; ++r) lse_[r] = -kMinusInf, delta_[r] = 0.0f;
    turn(query, dim_, rows.count, set1(a_.scale), query_t_);
    turn(dout, value_dim_, rows.count, set1(kept_), dout_t_);
  }

  // weight and dscore of keys k0 to k0 + n for vectors v0 to v1 of the rows. A weight is what a
  // value is multiplied with, but for 1 / (1 - dropout); dscore is that of scale * q . k.
  void differentiate(const QueryRows& rows, FloatRows key, FloatRows value, int64_t k0, int n,
                     int v0, int v1, bool before_cap) {
    const int64_t at = v0 * kLanes;
    backward_product(n, {key.data, key.stride, 1}, a_.head_dim, query_t_ + at, kMaxRows, v1 - v0,
                     weight + at, kMaxRows, false);
    backward_product(n, {value.data, value.stride, 1}, a_.value_dim, dout_t_ + at, kMaxRows,
                     v1 - v0, dscore + at, kMaxRows, false);
    Scores scores{weight, kMaxRows, k0, n, v0, v1}, dscores{dscore, kMaxRows, k0, n, v0, v1};
    if (a_.softcap != 0.0f) rows.cap(scores, 1.0f);
    bool capped = a_.softcap != 0.0f && before_cap;
    if (capped) {
      vf from = set1(1.0f / a_.softcap);
      scores.each([&](int v, int k, float* p) {
        vf tanh = load(p) * from;
        store(slope_ + k * kMaxRows + v * kLanes, set1(1.0f) - tanh * tanh);
      });
    }
    rows.add_and_hide(scores);
    if (a_.dropout != 0.0f) rows.drop(dscores);
    for (int v = v0; v < v1; ++v) {
      vf lse = load(lse_ + v * kLanes), delta = load(delta_ + v * kLanes);
      for (int k = 0; k < n; ++k) {
        vf w = exp2_of_negative((load(scores.at(k, v)) - lse) * set1(kLog2e));
        vf d = w * (load(dscores.at(k, v)) - delta);
        if (capped) d = d * load(slope_ + k * kMaxRows + v * kLanes);
        store(scores.at(k, v), w);
        store(dscores.at(k, v), d);
      }
    }
    if (a_.dropout != 0.0f) rows.drop(scores);
  }

  float kept() const { return kept_; }

  float *query, *dout;     // (rows, D or Dv), padded
  float *weight, *dscore;  // (keys, rows)

 private:
  // to[d][r] = from[r][d] * scale; rows after the last are zero.
  static void turn(const float* from, int64_t ld, int rows, vf scale, float* to) {
    for (int64_t r = 0; r < rows; r += kLanes)
      for (int64_t d = 0; d < ld; d += kLanes) {
        vf square[kLanes];
        for (int i = 0; i < kLanes; ++i)
          square[i] = r + i < rows ? load(from + (r + i) * ld + d) * scale : zero();
        transpose(square);
        for (int i = 0; i < kLanes; ++i) store(to + (d + i) * kMaxRows + r, square[i]);
      }
  }

  const AttentionBackwardArgs& args_;
  const AttentionArgs& a_;
  const int64_t dim_, value_dim_;
  const float kept_;          // 1 / (1 - dropout)
  float *query_t_, *dout_t_;  // (D or Dv, rows), times scale or kept
  float* slope_;              // of softcap: (keys, rows)
  alignas(64) float lse_[kMaxRows], delta_[kMaxRows];
};

}  // namespace
HONED_END_LEVEL
