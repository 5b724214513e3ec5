// dq, dk and dv in one pass: five products, each of which broadcasts an element of one operand
// where it lies.
#include "cpu/kernels/attention_backward_block.h"
#include "ops/_attention_backward.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int kStep = 16;  // keys that are skipped together where not all rows see all keys

// One part of one key head.
class Item {
 public:
  Item(const AttentionBackwardArgs& args, int64_t item)
      : args_(args),
        a_(args.forward),
        span_(span_of(a_, item / args.parts / a_.kv_heads)),
        g_(item / args.parts % a_.kv_heads),
        part_(item % args.parts),
        item_(item),
        all_rows_(a_.heads / a_.kv_heads * span_.q_len),
        dim_(padded(a_.head_dim)),
        value_dim_(padded(a_.value_dim)),
        block_(args, args.scratch) {
    float* at = args.scratch + args.block_floats;
    key_ = at, dkey_ = key_ + args.chunk * dim_, at = dkey_ + args.chunk * dim_;
    value_ = at, dvalue_ = value_ + args.chunk * value_dim_;
    dquery_ = dvalue_ + args.chunk * value_dim_;
  }

  void run() {
    int64_t first = 0;
    do {
      int64_t keys = smaller(span_.k_len - first, args_.chunk);
      chunk(first, keys);
      first += keys;
    } while (first < span_.k_len);
    if (!one_chunk() && args_.dq)
      for_blocks([&](const QueryRows& rows, float* dquery) { store_queries(rows, dquery); });
  }

 private:
  bool one_chunk() const { return span_.k_len <= args_.chunk; }

  // body(rows, their sums of dq): these last from chunk to chunk.
  template <class F>
  HONED_INLINE void for_blocks(F&& body) {
    float* dquery = dquery_;
    for (int64_t row = part_ * kMaxRows; row < all_rows_; row += args_.parts * kMaxRows) {
      body(QueryRows(a_, span_, g_, row, kMaxRows), dquery);
      if (!one_chunk()) dquery += kMaxRows * dim_;
    }
  }

  void chunk(int64_t first, int64_t keys) {
    bool loaded = false;
    fill_zero(dkey_, keys * dim_);
    fill_zero(dvalue_, keys * value_dim_);
    for_blocks([&](const QueryRows& rows, float* dquery) {
      if (first == 0) fill_zero(dquery, kMaxRows * dim_);
      int64_t begin = larger(rows.first_seen(0), first) / kMaxRows * kMaxRows,
              end = smaller(rows.end_seen(rows.vecs), first + keys);
      if (begin < end) {
        if (!loaded) load_keys(first, keys);
        loaded = true;
        block_.take(rows);
      }
      for (int64_t k0 = begin; k0 < end; k0 += kMaxRows) {
        int n = int(smaller(kMaxRows, end - k0));
        if (rows.hidden(k0, n)) continue;
        if (rows.first_seen(rows.vecs - 1) <= k0 && rows.end_seen(1) >= k0 + n)
          add(rows, k0, n, 0, rows.vecs, k0 - first, dquery);
        else
          add_seen(rows, k0, n, k0 - first, dquery);
      }
      if (one_chunk() && args_.dq) store_queries(rows, dquery);
    });
    store_keys(first, keys);
  }

  // Of a block of keys that not all rows see: a few keys at a time with the rows that see them.
  void add_seen(const QueryRows& rows, int64_t k0, int n, int64_t at, float* dquery) {
    for (int k = 0; k < n; k += kStep) {
      int m = int(smaller(kStep, n - k)), v0 = 0, v1 = rows.vecs;
      while (v0 < v1 && rows.end_seen(v0 + 1) <= k0 + k) ++v0;
      while (v0 < v1 && rows.first_seen(v1 - 1) >= k0 + k + m) --v1;
      if (v0 < v1) add(rows, k0 + k, m, v0, v1, at + k, dquery);
    }
  }

  void load_keys(int64_t first, int64_t keys) {
    for (int64_t k = 0; k < keys; ++k) {
      KeyRun run = key_run(a_, span_, g_, first + k);
      visit_float(a_.kv_dtype, [&](auto tag) {
        using T = typename decltype(tag)::type;
        widen(reinterpret_cast<const T*>(run.k), a_.head_dim, key_ + k * dim_);
        widen(reinterpret_cast<const T*>(run.v), a_.value_dim, value_ + k * value_dim_);
      });
    }
  }

  // Keys k0 to k0 + n, `at` of the chunk, and vectors v0 to v1 of the rows.
  void add(const QueryRows& rows, int64_t k0, int n, int v0, int v1, int64_t at, float* dquery) {
    const float *key = key_ + at * dim_, *value = value_ + at * value_dim_;
    block_.differentiate(rows, {key, dim_}, {value, value_dim_}, k0, n, v0, v1, true);
    const int64_t r = v0 * kLanes, count = smaller(v1 * kLanes, rows.count) - r;
    const Left weight{block_.weight + r, kMaxRows, 1}, dscore{block_.dscore + r, kMaxRows, 1};
    if (args_.dv)
      backward_product(n, weight, count, block_.dout + r * value_dim_, value_dim_,
                       value_dim_ / kLanes, dvalue_ + at * value_dim_, value_dim_, true);
    if (args_.dk)
      backward_product(n, dscore, count, block_.query + r * dim_, dim_, dim_ / kLanes,
                       dkey_ + at * dim_, dim_, true);
    if (args_.dq)
      backward_product(count, {dscore.data, 1, kMaxRows}, n, key, dim_, dim_ / kLanes,
                       dquery + r * dim_, dim_, true);
  }

  void store_queries(const QueryRows& rows, const float* dquery) {
    vf scale = set1(a_.scale);
    for (int r = 0; r < rows.count; ++r)
      with_query(args_.dq, a_.dtype, args_.dq_stride, span_, rows.head_of(r), rows.query_of(r),
                 [&](auto* to) {
                   for_lanes(a_.head_dim, [&](int64_t i, int n) {
                     store(to + i, load(dquery + r * dim_ + i) * scale, n);
                   });
                 });
  }

  void store_keys(int64_t first, int64_t keys) {
    if (args_.parts > 1) {
      float* to = args_.partial + (item_ * a_.kv_len + first) * (dim_ + value_dim_);
      for (int64_t k = 0; k < keys; ++k, to += dim_ + value_dim_) {
        widen(dkey_ + k * dim_, dim_, to);
        widen(dvalue_ + k * value_dim_, value_dim_, to + dim_);
      }
      return;
    }
    for (int64_t k = 0; k < keys; ++k)
      store_key(args_, span_, g_, first + k, dkey_ + k * dim_, dvalue_ + k * value_dim_);
  }

 public:
  // Row s of key head g of dk and dv.
  static void store_key(const AttentionBackwardArgs& args, const Span& span, int64_t g, int64_t s,
                        const float* dkey, const float* dvalue) {
    const AttentionArgs& a = args.forward;
    vf scale = set1(a.scale), kept = set1(a.dropout != 0.0f ? kept_scale(a.dropout) : 1.0f);
    auto at = [&](const int64_t* stride) {
      return span.k_batch * stride[0] + g * stride[1] + (span.k_first + s) * stride[2];
    };
    visit_float(a.kv_dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      T* dk = static_cast<T*>(args.dk) + (args.dk ? at(args.dk_stride) : 0);
      T* dv = static_cast<T*>(args.dv) + (args.dv ? at(args.dv_stride) : 0);
      if (dk)
        for_lanes(a.head_dim, [&](int64_t i, int n) { store(dk + i, load(dkey + i) * scale, n); });
      if (dv)
        for_lanes(a.value_dim,
                  [&](int64_t i, int n) { store(dv + i, load(dvalue + i) * kept, n); });
    });
  }

 private:
  const AttentionBackwardArgs& args_;
  const AttentionArgs& a_;
  const Span span_;
  const int64_t g_, part_, item_, all_rows_, dim_, value_dim_;
  BackwardBlock block_;
  float *key_, *value_, *dkey_, *dvalue_;  // (keys of a chunk, D or Dv), padded
  float* dquery_;                          // (rows, D): of a block, or of all blocks
};

}  // namespace

void attention_backward(const AttentionBackwardArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) Item(args, i).run();
}

// Items: the rows of lse.
void attention_backward_delta(const AttentionBackwardArgs& args, int64_t begin, int64_t end) {
  const AttentionArgs& a = args.forward;
  const int64_t rows = a.q_starts ? a.q_starts[a.batch] : a.q_len;
  for (int64_t i = begin; i < end; ++i) {
    int64_t t = i % rows, h = i / rows % a.heads, b = i / rows / a.heads;
    auto at = [&](const int64_t* stride) { return b * stride[0] + h * stride[1] + t * stride[2]; };
    visit_float(a.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* out = static_cast<const T*>(a.out) + at(a.out_stride);
      const T* dout = static_cast<const T*>(args.dout) + at(args.dout_stride);
      vf sum = zero();
      for_lanes(a.value_dim,
                [&](int64_t d, int n) { sum = fmadd(load(out + d, n), load(dout + d, n), sum); });
      args.delta[i] =
          reduce_add(sum) - (args.dlse ? static_cast<const float*>(args.dlse)[i] : 0.0f);
    });
  }
}

// Items: (b, key head, s).
void attention_backward_combine(const AttentionBackwardArgs& args, int64_t begin, int64_t end) {
  const AttentionArgs& a = args.forward;
  const int64_t dim = padded(a.head_dim), dims = dim + padded(a.value_dim);
  alignas(64) float sum[2 * kMaxHeadDim];
  for (int64_t i = begin; i < end; ++i) {
    int64_t s = i % a.kv_len, group = i / a.kv_len;
    Span span = span_of(a, group / a.kv_heads);
    if (s >= span.k_len) continue;
    const float* from = args.partial + (group * args.parts * a.kv_len + s) * dims;
    for (int64_t d = 0; d < dims; d += kLanes) {
      vf total = load(from + d);
      for (int64_t p = 1; p < args.parts; ++p) total = total + load(from + p * a.kv_len * dims + d);
      store(sum + d, total);
    }
    Item::store_key(args, span, group % a.kv_heads, s, sum, sum + dim);
  }
}

HONED_END_LEVEL
