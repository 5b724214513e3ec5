// Attention of many queries. Scores, weights and results are kept transposed, queries along the
// lanes: then keys and values are read where they lie (broadcast one element at a time), the
// softmax needs no reduction across lanes, and both products are the same micro-kernel. The query
// heads that share a key head lie side by side in one block of rows: row r is query r / group of
// head r % group.
#include "ops/scaled_dot_product_attention.h"

#include "cpu/kernels/attention_product.h"
#include "cpu/kernels/attention_scores.h"

HONED_BEGIN_LEVEL

namespace {

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
class Block {
 public:
  Block(const AttentionArgs& args, const Span& span, int64_t g, int64_t row0)
      : a_(args), span_(span), g_(g), ld_(block_rows(args)), rows_(args, span, g, row0, ld_) {}

  void run() {
    load_queries();
    int vecs = rows_.vecs;
    for (int v = 0; v < vecs; ++v) {
      store(max_ + v * kLanes, set1(kLowest));
      store(sum_ + v * kLanes, zero());
      for (int64_t d = 0; d < a_.value_dim; ++d) store(result_ + d * ld_ + v * kLanes, zero());
    }
    int64_t first = rows_.first_seen(0), end = rows_.end_seen(vecs);
    for (int64_t k0 = first - first % ld_; k0 < end; k0 += ld_) {
      int n = int(smaller(ld_, end - k0));
      if (rows_.hidden(k0, n)) continue;
      FloatRows keys = float_rows(a_, span_, g_, k0, n, Part::keys, key_);
      FloatRows values = float_rows(a_, span_, g_, k0, n, Part::values, value_);
      // Where some rows do not see all of these keys, each vector of rows has its own.
      if (rows_.first_seen(vecs - 1) <= k0 && rows_.end_seen(1) >= k0 + n) {
        add_keys(keys, values, k0, 0, n, 0, vecs);
      } else {
        for (int v = 0; v < vecs; ++v) {
          int64_t from = larger(0, rows_.first_seen(v) - k0),
                  to = smaller(n, rows_.end_seen(v + 1) - k0);
          if (from < to) add_keys(keys, values, k0, from, to, v, v + 1);
        }
      }
    }
    store_results();
  }

 private:
  void load_queries() {
    alignas(64) float row[4][kMaxHeadDim];
    int64_t dim = (a_.head_dim + 3) / 4 * 4;
    for (int r = 0; r < rows_.vecs * kLanes; r += 4) {
      for (int i = 0; i < 4; ++i) {
        load_query(a_, span_, rows_.head_of(r + i), rows_.query_of(r + i), set1(a_.scale), row[i]);
        for (int64_t d = a_.head_dim; d < dim; ++d) row[i][d] = 0.0f;
      }
      for (int64_t d = 0; d < dim; d += 4)
        transpose4(row[0] + d, kMaxHeadDim, query_ + d * ld_ + r, ld_);
    }
  }

  // Keys k0 + from to k0 + to for vectors v0 to v1 of the rows.
  void add_keys(const FloatRows& keys, const FloatRows& values, int64_t k0, int64_t from,
                int64_t to, int v0, int v1) {
    int64_t n = to - from, at = v0 * kLanes;
    product({keys.data + from * keys.stride, keys.stride, 1}, n, a_.head_dim, query_ + at,
            score_ + at, ld_, v1 - v0, nullptr);
    Scores scores{score_, ld_, k0 + from, int(n), v0, v1};
    rows_.finish(scores, 1.0f);
    weigh(scores);
    if (a_.dropout != 0.0f) rows_.drop(scores);
    product({values.data + from * values.stride, 1, values.stride}, a_.value_dim, n, score_ + at,
            result_ + at, ld_, v1 - v0, rescale_ + at);
  }

  // Scores to weights relative to the largest so far, and what that does to the earlier ones.
  void weigh(const Scores& s) {
    for (int v = s.v0; v < s.v1; ++v) {
      vf before = load(max_ + v * kLanes), top = before;
      for (int k = 0; k < s.keys; ++k) top = vmax(load(s.at(k, v)), top);
      vf fade = exp2_of_negative((before - top) * set1(kLog2e));
      vf total = load(sum_ + v * kLanes) * fade;
      for (int k = 0; k < s.keys; ++k) {
        vf weight = exp2_of_negative((load(s.at(k, v)) - top) * set1(kLog2e));
        store(s.at(k, v), weight);
        total = total + weight;
      }
      store(max_ + v * kLanes, top);
      store(sum_ + v * kLanes, total);
      store(rescale_ + v * kLanes, fade);
    }
  }

  void store_results() {
    alignas(64) float row[4][kMaxHeadDim];
    int64_t dim = (a_.value_dim + 3) / 4 * 4;
    float kept = a_.dropout != 0.0f ? kept_scale(a_.dropout) : 1.0f;
    for (int r = 0; r < rows_.count; r += 4) {
      for (int64_t d = 0; d < dim; d += 4)
        transpose4(result_ + d * ld_ + r, ld_, row[0] + d, kMaxHeadDim);
      for (int i = 0; i < 4 && r + i < rows_.count; ++i) {
        vf scale = set1(sum_[r + i] == 0.0f ? 0.0f : kept / sum_[r + i]);
        for_lanes(a_.value_dim,
                  [&](int64_t d, int n) { store(row[i] + d, load(row[i] + d, n) * scale); });
        store_result(a_, span_, rows_.head_of(r + i), rows_.query_of(r + i), row[i]);
      }
    }
  }

  const AttentionArgs& a_;
  const Span& span_;
  int64_t g_, ld_;
  QueryRows rows_;
  alignas(64) float query_[kAttentionBlock];      // (D, rows), scaled
  alignas(64) float score_[kMaxRows * kMaxRows];  // (keys, rows)
  alignas(64) float result_[kAttentionBlock];     // (Dv, rows), not yet divided by the sum
  alignas(64) float key_[kAttentionBlock], value_[kAttentionBlock];  // converted
  alignas(64) float max_[kMaxRows], sum_[kMaxRows], rescale_[kMaxRows];
};

}  // namespace

void scaled_dot_product_attention(const AttentionArgs& a, int64_t begin, int64_t end) {
  int64_t group = a.heads / a.kv_heads, size = block_rows(a),
          blocks = (group * a.q_len + size - 1) / size;
  for (int64_t i = begin; i < end; ++i) {
    // First and last block in turn: under a causal mask every stretch of items is then about as
    // much work.
    int64_t at = i % blocks, row0 = (at % 2 ? blocks - 1 - at / 2 : at / 2) * size;
    Span span = span_of(a, i / blocks / a.kv_heads);
    if (row0 < group * span.q_len) Block(a, span, i / blocks % a.kv_heads, row0).run();
  }
}

HONED_END_LEVEL
