// Attention in f64, a query row at a time: for exactness, not for speed.
#include "cpu/kernels/attention.h"
#include "cpu/simd/vec_f64.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int kBlock = 64;  // keys whose scores are held
constexpr double kNone = -__builtin_inf();

HONED_INLINE double dot(const double* a, const double* b, int64_t n) {
  vd sum{};
  int64_t i = 0;
  for (; i + kDoubles <= n; i += kDoubles) sum = fmadd(load(a + i), load(b + i), sum);
  double total = 0;
  for (int lane = 0; lane < kDoubles; ++lane) total += sum[lane];
  for (; i < n; ++i) total += a[i] * b[i];
  return total;
}

double value_at(const AttentionMask& mask, int64_t at) {
  if (mask.dtype == DType::f64) return static_cast<const double*>(mask.data)[at];
  if (mask.dtype == DType::f32) return double(static_cast<const float*>(mask.data)[at]);
  if (mask.dtype == DType::f16) return double(scalar(static_cast<const f16*>(mask.data)[at]));
  if (mask.dtype == DType::bf16) return double(scalar(static_cast<const bf16*>(mask.data)[at]));
  return static_cast<const uint8_t*>(mask.data)[at] ? 0.0 : kNone;
}

struct Row {
  const AttentionArgs& a;
  Span span;
  int64_t h, t;

  HONED_INLINE double added(const AttentionMask& m, int64_t s) const {
    return value_at(m, span.b * m.stride[0] + h * m.stride[1] + t * m.stride[2] + s * m.stride[3]);
  }

  // The score of key s, whose elements are at k.
  double score(int64_t s, const double* q, const double* k) const {
    if (a.key_mask && !a.key_mask[span.b * a.key_mask_stride + s]) return kNone;
    double x = a.wide.scale * dot(q, k, a.head_dim);
    if (a.wide.softcap != 0) x = a.wide.softcap * __builtin_tanh(x / a.wide.softcap);
    if (a.mask.data) x += added(a.mask, s);
    if (a.bias.data) x += added(a.bias, s);
    if (a.wide.alibi) {
      int64_t distance = t + span.offset - s;
      x -= a.wide.alibi[span.b * a.alibi_stride[0] + h * a.alibi_stride[1]] *
           double(distance < 0 ? -distance : distance);
    }
    return x;
  }

  // weight[i] = 0 or weight[i] / (1 - dropout) of key s + i
  void drop(int64_t s, int count, double* weight) const {
    uint64_t key = dropout_key(a, span, h, t);
    vu low = all_bits(uint32_t(key)), high = all_bits(uint32_t(key >> 32));
    uint32_t threshold = drop_threshold_of(a.dropout);
    double scale = a.wide.dropout < 1 ? 1 / (1 - a.wide.dropout) : 0;
    for (int i = 0; i < count; ++i) {
      uint32_t bits = random_columns(low, high, all_bits(uint32_t(s + i)))[0];
      weight[i] = bits >= threshold ? weight[i] * scale : 0;
    }
  }

  void run() const {
    double score_of[kBlock], sum[kMaxHeadDim] = {};
    double top = kNone, total = 0;
    if (a.wide.sinks) top = a.wide.sinks[h], total = 1;
    const double* q = static_cast<const double*>(a.q) + span.q_batch * a.q_stride[0] +
                      h * a.q_stride[1] + (span.q_first + t) * a.q_stride[2];
    int64_t g = h / (a.heads / a.kv_heads), end = end_key(a, span, t);
    for (int64_t s = first_key(a, span, t); s < end;) {
      KeyRun run = key_run(a, span, g, s);
      const double* k = reinterpret_cast<const double*>(run.k);
      const double* v = reinterpret_cast<const double*>(run.v);
      int count = int(smaller(smaller(run.count, end - s), kBlock));
      double before = top;
      for (int i = 0; i < count; ++i) {
        score_of[i] = score(s + i, q, k + i * a.k_stride[2]);
        if (!(score_of[i] <= top)) top = score_of[i];  // a NaN too
      }
      if (top != kNone) {
        double fade = before == kNone ? 0 : __builtin_exp(before - top);
        total *= fade;
        for (int64_t d = 0; d < a.value_dim; ++d) sum[d] *= fade;
        for (int i = 0; i < count; ++i) {
          score_of[i] = score_of[i] == kNone ? 0 : __builtin_exp(score_of[i] - top);
          total += score_of[i];
        }
        if (a.dropout != 0) drop(s, count, score_of);
        for (int i = 0; i < count; ++i)
          for (int64_t d = 0; d < a.value_dim; ++d)
            sum[d] += score_of[i] * v[i * a.v_stride[2] + d];
      }
      s += count;
    }
    double* out = static_cast<double*>(a.out) + span.q_batch * a.out_stride[0] +
                  h * a.out_stride[1] + (span.q_first + t) * a.out_stride[2];
    for (int64_t d = 0; d < a.value_dim; ++d) out[d] = total == 0 ? 0 : sum[d] / total;
    if (a.wide.lse)
      a.wide.lse[row_number(a, span, h, t)] = total == 0 ? kNone : top + __builtin_log(total);
  }
};

}  // namespace

void attention_f64(const AttentionArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    Span span = span_of(a, i / a.q_len / a.heads);
    if (i % a.q_len < span.q_len) Row{a, span, i / a.q_len % a.heads, i % a.q_len}.run();
  }
}

HONED_END_LEVEL
