// Attention in f64, a query row at a time: for exactness, not for speed.
#include "cpu/kernels/attention_f64.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int kBlock = 64;  // keys whose scores are held
struct Row : WideRow {
  void run() const {
    double score_of[kBlock], sum[kMaxHeadDim] = {};
    double top = kNone, total = 0;
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
    double fade = 1;
    if (a.wide.sinks) {
      if (top == kNone) top = kLowestDouble;
      fade = add_sink(a.wide.sinks[h], &top, &total, [](double x) { return __builtin_exp(x); });
    }
    double* out = static_cast<double*>(a.out) + span.q_batch * a.out_stride[0] +
                  h * a.out_stride[1] + (span.q_first + t) * a.out_stride[2];
    for (int64_t d = 0; d < a.value_dim; ++d) out[d] = total == 0 ? 0 : sum[d] * fade / total;
    if (a.wide.lse)
      a.wide.lse[row_number(a, span, h, t)] = total == 0 ? kNone : top + __builtin_log(total);
  }
};

}  // namespace

void attention_f64(const AttentionArgs& a, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    Span span = span_of(a, i / a.q_len / a.heads);
    if (i % a.q_len < span.q_len) Row{{a, span, i / a.q_len % a.heads, i % a.q_len}}.run();
  }
}

HONED_END_LEVEL
