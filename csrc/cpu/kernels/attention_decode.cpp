// Attention of few queries: a pass over a chunk of keys and one over its values, for up to four
// query rows at once; then the merge of the chunks.
#include "cpu/kernels/attention_decode.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int kRows = 4;  // query rows that share a pass

// Keys first to first + keys, of those that chunk number `index` has the ones that a query may see.
struct Chunk {
  int64_t g, index, first;
  int keys;
};

HONED_INLINE int64_t chunks_of(const AttentionArgs& a) {
  return larger(1, (a.kv_len + kDecodeKeys - 1) / kDecodeKeys);
}

// Scores of the keys of a chunk, of query t of head h.
class Row {
 public:
  Row(const AttentionArgs& args, const Span& span, const Chunk& chunk, int64_t h, int64_t t,
      float* score)
      : a(args), s(span), c(chunk), h_(h), t_(t), score_(score) {}

  // Products to the scores that the softmax takes.
  [[gnu::noinline]] void finish() const {
    if (a.softcap != 0.0f)
      each([&](vf x, int64_t) { return set1(a.softcap) * vtanh(x * set1(1.0f / a.softcap)); });
    if (a.alibi) {
      vf slope = set1(-a.alibi[s.b * a.alibi_stride[0] + h_ * a.alibi_stride[1]]);
      alignas(64) float lane[kLanes];
      for (int i = 0; i < kLanes; ++i) lane[i] = float(c.first + i - t_ - s.offset);
      vf ahead = load(lane);
      each([&](vf x, int64_t i) { return fmadd(slope, vabs(ahead + set1(float(i))), x); });
    }
    if (a.mask.data) add(a.mask);
    if (a.bias.data) add(a.bias);
    if (a.key_mask) hide(a.key_mask + s.b * a.key_mask_stride + c.first, 1);
    int64_t from = first_key(a, s, t_) - c.first, to = end_key(a, s, t_) - c.first;
    for (int64_t k = 0; k < smaller(from, c.keys); ++k) score_[k] = kMinusInf;
    for (int64_t k = larger(0, to); k < c.keys; ++k) score_[k] = kMinusInf;
  }

  // Scores to weights relative to their largest; returns it and their sum.
  [[gnu::noinline]] void weigh(float* top, float* total) const {
    vf most = set1(kLowest);
    for_lanes(c.keys, [&](int64_t i, int n) {
      most = vmax(keep_first(load(score_ + i, n), n, set1(kLowest)), most);
    });
    *top = reduce_max(most);
    vf sum = zero();
    for_lanes(c.keys, [&](int64_t i, int n) {
      vf weight = keep_first(weight_of(load(score_ + i, n) - set1(*top)), n, zero());
      store(score_ + i, weight, n);
      sum = sum + weight;
    });
    *total = reduce_add(sum);
  }

 private:
  template <class F>
  HONED_INLINE void each(F&& body) const {
    for_lanes(c.keys,
              [&](int64_t i, int n) { store(score_ + i, body(load(score_ + i, n), i), n); });
  }

  HONED_INLINE void hide(const uint8_t* seen, int64_t step) const {
    if (step == 1 && all_of(seen, c.keys)) return;
    for (int k = 0; k < c.keys; ++k)
      if (!seen[k * step]) score_[k] = kMinusInf;
  }

  void add(const AttentionMask& mask) const {
    int64_t step = mask.stride[3];
    int64_t at = s.b * mask.stride[0] + h_ * mask.stride[1] + t_ * mask.stride[2] + c.first * step;
    if (mask.dtype == DType::boolean) {
      hide(static_cast<const uint8_t*>(mask.data) + at, step);
      return;
    }
    visit_float(mask.dtype, [&](auto tag) {
      const auto* values = static_cast<const typename decltype(tag)::type*>(mask.data) + at;
      if (step == 1)
        for_lanes(c.keys, [&](int64_t i, int n) {
          store(score_ + i, load(score_ + i, n) + load(values + i, n), n);
        });
      else
        for (int k = 0; k < c.keys; ++k) score_[k] += scalar(values[k * step]);
    });
  }

  const AttentionArgs& a;
  const Span& s;
  const Chunk& c;
  int64_t h_, t_;
  float* score_;
};

// Calls body(run, from, count) for the keys of a chunk that lie one after the other.
template <class F>
HONED_INLINE void each_run(const AttentionArgs& a, const Span& s, const Chunk& c, F&& body) {
  for (int done = 0; done < c.keys;) {
    KeyRun run = key_run(a, s, c.g, c.first + done);
    int count = int(smaller(run.count, c.keys - done));
    body(run, done, count);
    done += count;
  }
}

HONED_INLINE float* partial_of(const AttentionArgs& a, int64_t row, int64_t chunk) {
  return a.partial + (row * chunks_of(a) + chunk) * (a.value_dim + 2);
}

// What a row has when all of its keys were passed over: the sum of their weights times values, their
// largest score and the sum of their weights.
[[gnu::noinline]] void finish_row(const AttentionArgs& a, const Span& s, int64_t h, int64_t t,
                                  float* result, float top, float total) {
  float fade = 1.0f;
  if (a.sinks) fade = add_sink(a.sinks[h], &top, &total, [](float x) { return weight_of(x); });
  vf scale = set1(total == 0.0f ? 0.0f : fade / total);
  for_lanes(a.value_dim, [&](int64_t i, int) { store(result + i, load(result + i) * scale); });
  store_result(a, s, h, t, result);
  if (a.lse)
    a.lse[row_number(a, s, h, t)] = total == 0.0f ? kMinusInf : top + __builtin_logf(total);
}

// R query rows from `row` on, counted within the key head: row r is query r / group of head r %
// group.
template <int R, class T>
void rows(const AttentionArgs& a, const Span& s, const Chunk& c, int64_t row) {
  alignas(64) float q[R][kMaxHeadDim], scores[R][kScores], results[R][kMaxHeadDim];
  float top[R], total[R];
  float *score[R], *to[R];
  int64_t h[R], t[R], group = a.heads / a.kv_heads;
  bool merged = chunks_of(a) > 1;
  for (int r = 0; r < R; ++r) {
    h[r] = c.g * group + (row + r) % group, t[r] = (row + r) / group;
    load_query(a, s, h[r], t[r], set1(a.scale), q[r]);
    to[r] = merged ? partial_of(a, (s.b * a.heads + h[r]) * a.q_len + t[r], c.index) : results[r];
  }
  each_run(a, s, c, [&](const KeyRun& run, int from, int count) {
    for (int r = 0; r < R; ++r) score[r] = scores[r] + from;
    dot_keys<R, T>({reinterpret_cast<const T*>(run.k), a.k_stride[2], a.head_dim, count},
                   {reinterpret_cast<const T*>(run.v), a.v_stride[2], a.value_dim, count}, q,
                   score);
    if (run.k_scale)
      for (int r = 0; r < R; ++r)
        for (int k = 0; k < count; ++k) score[r][k] *= run.k_scale[k * a.k_scale_stride[2]];
  });
  for (int r = 0; r < R; ++r) {
    Row one(a, s, c, h[r], t[r], scores[r]);
    one.finish();
    one.weigh(&top[r], &total[r]);
  }
  if (c.keys == 0)
    for (int r = 0; r < R; ++r) __builtin_memset(to[r], 0, size_t(a.value_dim) * 4);
  each_run(a, s, c, [&](const KeyRun& run, int from, int count) {
    for (int r = 0; r < R; ++r) score[r] = scores[r] + from;
    if (run.v_scale)
      for (int r = 0; r < R; ++r)
        for (int k = 0; k < count; ++k) score[r][k] *= run.v_scale[k * a.v_scale_stride[2]];
    mix_values<R, T>({reinterpret_cast<const T*>(run.v), a.v_stride[2], a.value_dim, count}, score,
                     to, from > 0);
  });
  for (int r = 0; r < R; ++r) {
    if (merged)
      to[r][a.value_dim] = top[r], to[r][a.value_dim + 1] = total[r];
    else
      finish_row(a, s, h[r], t[r], results[r], top[r], total[r]);
  }
}

template <class T>
void chunk_of(const AttentionArgs& a, const Span& s, const Chunk& c) {
  int64_t count = a.heads / a.kv_heads * s.q_len, row = 0;
  for (; row + kRows <= count; row += kRows) rows<kRows, T>(a, s, c, row);
  if (count - row == 3) rows<3, T>(a, s, c, row);
  if (count - row == 2) rows<2, T>(a, s, c, row);
  if (count - row == 1) rows<1, T>(a, s, c, row);
}

// As visit_float, i8 too.
template <class F>
HONED_INLINE void visit_cache(DType dtype, F&& body) {
  if (dtype == DType::i8)
    body(Tag<int8_t>{});
  else
    visit_float(dtype, body);
}

}  // namespace

void attention_decode(const AttentionArgs& a, int64_t begin, int64_t end) {
  int64_t chunks = chunks_of(a);
  visit_cache(a.kv_dtype, [&](auto tag) {
    for (int64_t i = begin; i < end; ++i) {
      Span s = span_of(a, i / chunks / a.kv_heads);
      if (s.q_len == 0) continue;
      Chunk c{i / chunks % a.kv_heads, i % chunks, i % chunks * kDecodeKeys, 0};
      int64_t last = smaller(c.first + kDecodeKeys, end_key(a, s, s.q_len - 1));
      c.first = larger(c.first, first_key(a, s, 0));
      c.keys = int(larger(0, last - c.first));
      chunk_of<typename decltype(tag)::type>(a, s, c);
    }
  });
}

void attention_combine(const AttentionArgs& a, int64_t begin, int64_t end) {
  constexpr int kParts = 64;  // chunks at a time
  int64_t chunks = chunks_of(a);
  alignas(64) float result[kMaxHeadDim], fade[kParts];
  for (int64_t i = begin; i < end; ++i) {
    Span s = span_of(a, i / a.q_len / a.heads);
    if (i % a.q_len >= s.q_len) continue;
    float top = kLowest;
    for (int64_t c = 0; c < chunks; ++c) {
      float each = partial_of(a, i, c)[a.value_dim];
      top = each > top ? each : top;
    }
    float total = 0.0f;
    for (int64_t c0 = 0; c0 < chunks; c0 += kParts) {
      int count = int(smaller(kParts, chunks - c0));
      for (int c = 0; c < count; ++c) {
        const float* end_of = partial_of(a, i, c0 + c) + a.value_dim;
        fade[c] = weight_of(end_of[0] - top);
        total += fade[c] * end_of[1];
      }
      for_lanes(a.value_dim, [&](int64_t d, int n) {
        vf sum = c0 > 0 ? load(result + d) : zero();
        for (int c = 0; c < count; ++c)
          sum = fmadd(set1(fade[c]), load(partial_of(a, i, c0 + c) + d, n), sum);
        store(result + d, sum);
      });
    }
    finish_row(a, s, i / a.q_len % a.heads, i % a.q_len, result, top, total);
  }
}

HONED_END_LEVEL
