// Attention's backward in f64, a query row at a time: for exactness, not for speed.
#include "cpu/kernels/attention_f64.h"
#include "ops/_attention_backward.h"

HONED_BEGIN_LEVEL

namespace {

// Query row `row` and its part of every gradient.
void add_gradients(const AttentionBackwardArgs& args, const WideRow& row) {
  const AttentionArgs& a = args.forward;
  const Span& span = row.span;
  const int64_t g = row.h / (a.heads / a.kv_heads), end = end_key(a, span, row.t);
  auto query = [&](const void* data, const int64_t* stride) {
    return static_cast<double*>(const_cast<void*>(data)) + span.q_batch * stride[0] +
           row.h * stride[1] + (span.q_first + row.t) * stride[2];
  };
  auto key = [&](const void* data, const int64_t* stride, int64_t s) {
    return static_cast<double*>(const_cast<void*>(data)) + span.k_batch * stride[0] +
           g * stride[1] + (span.k_first + s) * stride[2];
  };
  auto add = [](double by, const double* from, double* to, int64_t n) {
    for (int64_t d = 0; d < n; ++d) to[d] += by * from[d];
  };
  const double *q = query(a.q, a.q_stride), *dout = query(args.dout, args.dout_stride);
  const int64_t number = row_number(a, span, row.h, row.t);
  const double lse = a.wide.lse[number];
  const double delta = dot(dout, query(a.out, a.out_stride), a.value_dim) -
                       (args.dlse ? static_cast<const double*>(args.dlse)[number] : 0);
  double* dq = args.dq ? query(args.dq, args.dq_stride) : nullptr;
  for (int64_t d = 0; dq && d < a.head_dim; ++d) dq[d] = 0;
  if (lse == kNone) return;
  if (args.dsinks)
    static_cast<double*>(args.dsinks)[row.h] -= __builtin_exp(a.wide.sinks[row.h] - lse) * delta;
  for (int64_t s = first_key(a, span, row.t); s < end; ++s) {
    const double *k = key(a.k, a.k_stride, s), *v = key(a.v, a.v_stride, s);
    double slope = 1, score = row.score(s, q, k, &slope);
    if (score == kNone) continue;
    double kept = 1;
    if (a.dropout != 0) row.drop(s, 1, &kept);
    double weight = __builtin_exp(score - lse);
    double dscore = weight * (kept * dot(dout, v, a.value_dim) - delta);
    if (args.dbias) {
      const int64_t* stride = args.dbias_stride;
      static_cast<double*>(
          args.dbias)[span.b * stride[0] + row.h * stride[1] + row.t * stride[2] + s * stride[3]] +=
          dscore;
    }
    dscore *= slope * a.wide.scale;
    if (dq) add(dscore, k, dq, a.head_dim);
    if (args.dk) add(dscore, q, key(args.dk, args.dk_stride, s), a.head_dim);
    if (args.dv) add(weight * kept, dout, key(args.dv, args.dv_stride, s), a.value_dim);
  }
}

}  // namespace

// Items: (b, key head); all in one call where dbias or dsinks is wanted. dk, dv, dbias and dsinks
// are 0 before.
void attention_backward_f64(const AttentionBackwardArgs& args, int64_t begin, int64_t end) {
  const AttentionArgs& a = args.forward;
  const int64_t group = a.heads / a.kv_heads;
  for (int64_t i = begin; i < end; ++i) {
    Span span = span_of(a, i / a.kv_heads);
    for (int64_t h = i % a.kv_heads * group; h < (i % a.kv_heads + 1) * group; ++h)
      for (int64_t t = 0; t < span.q_len; ++t) add_gradients(args, {a, span, h, t});
  }
}

HONED_END_LEVEL
