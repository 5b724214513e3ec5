// Attention of many queries. Scores, weights and results are kept transposed, queries along the
// lanes: then keys and values are read where they lie (broadcast one element at a time), the
// softmax needs no reduction across lanes, and both products are the same micro-kernel. The query
// heads that share a key head lie side by side in one block of rows: row r is query r / group of
// head r % group.
#include "ops/scaled_dot_product_attention.h"

#include "cpu/kernels/attention_pairs.h"
#include "cpu/kernels/attention_scores.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int64_t kDepth = 128;  // steps of one sum: longer ones lose digits

HONED_INLINE void transpose4(const float* from, int64_t from_ld, float* to, int64_t to_ld) {
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + from_ld);
  __m128 c = _mm_loadu_ps(from + 2 * from_ld), d = _mm_loadu_ps(from + 3 * from_ld);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + to_ld, b);
  _mm_storeu_ps(to + 2 * to_ld, c);
  _mm_storeu_ps(to + 3 * to_ld, d);
}

// A block of rows of one key head, and its buffers.
template <class Kind>
class Block {
 public:
  Block(const AttentionArgs& args, const Span& span, int64_t g, int64_t row0)
      : a_(args), span_(span), g_(g), ld_(block_rows(args)), rows_(args, span, g, row0, ld_) {
    // Queries in f32 take the scale. Those in bf16 stay exact: the scores are scaled, in the
    // exponential where nothing comes between.
    bool late = kPairs && !rows_.changes() && a_.scale > 0.0f;
    unit_ = late ? a_.scale : 1.0f;
    factor_ = !kPairs || late ? 1.0f : a_.scale;
  }

  void run() {
    load_queries();
    int vecs = rows_.vecs;
    for (int v = 0; v < vecs; ++v) {
      store(max_ + v * kLanes, set1(kLowest));
      store(sum_ + v * kLanes, zero());
      store(ones_ + v * kLanes, set1(1.0f));
      for (int64_t d = 0; d < a_.value_dim; ++d) store(result_ + d * ld_ + v * kLanes, zero());
    }
    int64_t first = rows_.first_seen(0), end = rows_.end_seen(vecs);
    for (int64_t k0 = first - first % ld_; k0 < end; k0 += ld_) {
      int64_t n = smaller(ld_, end - k0);
      if (rows_.hidden(k0, int(n))) continue;
      fetch(k0, n);
      // Where some rows do not see all of these keys, each vector of rows has its own (two have: a
      // tile of one would load more than it multiplies with short vectors).
      bool all = rows_.first_seen(vecs - 1) <= k0 && rows_.end_seen(1) >= k0 + n;
      int step = all ? vecs : kLanes == 16 ? 1 : 2;
      for (int v = 0; v < vecs; v += step) {
        int v1 = v + step < vecs ? v + step : vecs;
        int64_t from = larger(0, rows_.first_seen(v) - k0) / Kind::count * Kind::count;
        int64_t to = smaller(n, rows_.end_seen(v1) - k0);
        if (from < to) add_keys(k0, from, to, v, v1);
      }
    }
    store_results();
  }

 private:
  using T = typename Kind::T;
  static constexpr bool kPairs = Kind::count == 2;

  void load_queries() {
    alignas(64) float row[4][kMaxHeadDim];  // 32 bits a step
    int64_t steps = (a_.head_dim + Kind::count - 1) / Kind::count, whole = (steps + 3) / 4 * 4;
    for (int r = 0; r < rows_.vecs * kLanes; r += 4) {
      for (int i = 0; i < 4; ++i) {
        int64_t h = rows_.head_of(r + i), t = rows_.query_of(r + i);
        if constexpr (kPairs) {
          if (whole) row[i][steps - 1] = 0.0f;
          __builtin_memcpy(row[i], query_at(h, t), size_t(a_.head_dim) * 2);
        } else {
          load_query(a_, span_, h, t, set1(a_.scale), row[i]);
        }
        for (int64_t d = steps; d < whole; ++d) row[i][d] = 0.0f;
      }
      for (int64_t d = 0; d < whole; d += 4)
        transpose4(row[0] + d, kMaxHeadDim, query_ + d * ld_ + r, ld_);
    }
  }

  const T* query_at(int64_t h, int64_t t) const {
    return static_cast<const T*>(a_.q) + span_.q_batch * a_.q_stride[0] + h * a_.q_stride[1] +
           (span_.q_first + t) * a_.q_stride[2];
  }

  void fetch(int64_t k0, int64_t n) {
    if constexpr (kPairs) {
      keys_ = key_pairs(a_, span_, g_, k0, n, reinterpret_cast<T*>(key_));
      values_ = value_pairs(a_, span_, g_, k0, n, reinterpret_cast<T*>(value_));
    } else {
      FloatRows keys = float_rows(a_, span_, g_, k0, n, Part::keys, key_);
      FloatRows values = float_rows(a_, span_, g_, k0, n, Part::values, value_);
      keys_ = {keys.data, keys.stride, 1};
      values_ = {values.data, 1, values.stride};
    }
  }

  // Keys k0 + from to k0 + to for vectors v0 to v1 of the rows.
  void add_keys(int64_t k0, int64_t from, int64_t to, int v0, int v1) {
    constexpr int64_t per = Kind::count;
    int64_t n = to - from, at = v0 * kLanes;
    Left<T> keys{keys_.data + from * keys_.row, keys_.row, keys_.step};
    int64_t steps = (a_.head_dim + per - 1) / per, piece = a_.mask.data || a_.bias.data ? 12 : n;
    for (int64_t k = 0; k < n; k += piece) {
      if (v1 - v0 > 1) rows_.prefetch(k0 + from, n, int(k / piece), int((n + piece - 1) / piece));
      int64_t d = 0;
      do {
        product<Kind>({keys.data + k * keys.row + d * keys.step, keys.row, keys.step},
                      smaller(piece, n - k), smaller(kDepth, steps - d), query_ + d * ld_ + at,
                      score_ + k * ld_ + at, ld_, v1 - v0, d ? ones_ : nullptr);
      } while ((d += kDepth) < steps);
    }
    Scores scores{score_, ld_, k0 + from, int(n), v0, v1};
    rows_.finish(scores, factor_);
    if (a_.dropout != 0.0f)
      for (int v = v0; v < v1; ++v)
        weigh(scores, v,
              [&, drop = rows_.dropping(v)](vf w, int k) { return drop(w, k0 + from + k); });
    else
      for (int v = v0; v < v1; ++v) weigh(scores, v, [](vf w, int) { return w; });
    Left<T> values{values_.data + from / per * values_.step, values_.row, values_.step};
    product<Kind>(values, a_.value_dim, (n + per - 1) / per, score_ + at, result_ + at, ld_,
                  v1 - v0, rescale_ + at);
  }

  // Scores to weights relative to the largest so far, and what that does to the earlier ones. Pairs
  // of keys lie in place, from the first row on. kept(weight, k) is what dropout leaves of key k's.
  template <class F>
  void weigh(const Scores& s, int v, F&& kept) {
    vf before = load(max_ + v * kLanes), top = before, unit = set1(unit_ * kLog2e);
    for (int k = 0; k < s.keys; ++k) top = vmax(load(s.at(k, v)), top);
    vf fade = exp2_of_negative((before - top) * unit);
    vf total = load(sum_ + v * kLanes) * fade;
    auto weight = [&](int k) {
      vf w = exp2_of_negative((load(s.at(k, v)) - top) * unit);
      total = total + w;
      return kept(w, k);
    };
    if constexpr (kPairs) {
      int k = 0;
      for (; k + 1 < s.keys; k += 2) {
        vf even = weight(k), odd = weight(k + 1);
        store_int(s.at(k / 2, v), Kind::merge(even, odd));
      }
      if (k < s.keys) store_int(s.at(k / 2, v), Kind::merge(weight(k), zero()));
    } else {
      for (int k = 0; k < s.keys; ++k) store(s.at(k, v), weight(k));
    }
    store(max_ + v * kLanes, top);
    store(sum_ + v * kLanes, total);
    store(rescale_ + v * kLanes, fade);
  }

  void store_results() {
    alignas(64) float row[4][kMaxHeadDim];
    int64_t dim = (a_.value_dim + 3) / 4 * 4;
    for (int r = 0; r < rows_.count; r += 4) {
      for (int64_t d = 0; d < dim; d += 4)
        transpose4(result_ + d * ld_ + r, ld_, row[0] + d, kMaxHeadDim);
      for (int i = 0; i < 4 && r + i < rows_.count; ++i) {
        int64_t h = rows_.head_of(r + i), t = rows_.query_of(r + i);
        vf scale = set1(finish_sum(r + i, h, t));
        for_lanes(a_.value_dim,
                  [&](int64_t d, int n) { store(row[i] + d, load(row[i] + d, n) * scale); });
        store_result(a_, span_, h, t, row[i]);
      }
    }
  }

  // What the result of row r is to be multiplied by; writes its lse.
  float finish_sum(int r, int64_t h, int64_t t) const {
    float sum = sum_[r], top = sum == 0.0f ? kLowest : max_[r] * unit_, kept = 1.0f;
    if (a_.sinks) kept = add_sink(a_.sinks[h], &top, &sum, [](float x) { return weight_of(x); });
    if (a_.lse) {
      float log = sum == 0.0f ? kMinusInf : top + __builtin_logf(sum);
      a_.lse[row_number(a_, span_, h, t)] = log;
    }
    if (a_.dropout != 0.0f) kept *= kept_scale(a_.dropout);
    return sum == 0.0f ? 0.0f : kept / sum;
  }

  const AttentionArgs& a_;
  const Span& span_;
  int64_t g_, ld_;
  QueryRows rows_;
  float factor_, unit_;  // of products before, of scores in the exponential
  Left<T> keys_, values_;
  alignas(64) float query_[kAttentionBlock];      // (D, rows), scaled
  alignas(64) float score_[kMaxRows * kMaxRows];  // (keys, rows)
  alignas(64) float result_[kAttentionBlock];     // (Dv, rows), not yet divided by the sum
  alignas(64) float key_[kAttentionBlock], value_[kAttentionBlock];  // converted
  alignas(64) float max_[kMaxRows], sum_[kMaxRows], rescale_[kMaxRows], ones_[kMaxRows];
};

template <class Kind>
void blocks(const AttentionArgs& a, int64_t begin, int64_t end) {
  int64_t group = a.heads / a.kv_heads, size = block_rows(a),
          count = (group * a.q_len + size - 1) / size;
  for (int64_t i = begin; i < end; ++i) {
    // First and last block in turn: under a causal mask every stretch of items is then about as
    // much work.
    int64_t at = i % count, row0 = (at % 2 ? count - 1 - at / 2 : at / 2) * size;
    Span span = span_of(a, i / count / a.kv_heads);
    if (row0 < group * span.q_len) Block<Kind>(a, span, i / count % a.kv_heads, row0).run();
  }
}

}  // namespace

void scaled_dot_product_attention(const AttentionArgs& a, int64_t begin, int64_t end) {
#ifdef __AVX512BF16__
  if (a.dots) return blocks<Pairs>(a, begin, end);
#endif
  blocks<Floats>(a, begin, end);
}

HONED_END_LEVEL
