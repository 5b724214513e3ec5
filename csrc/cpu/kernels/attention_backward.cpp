// dq, dk and dv in one pass. Weights and their gradients are kept transposed, (key, row), query
// rows along the lanes: softmax and masks then work on whole vectors, and all five products
// broadcast an element of one operand where it lies.
#include "cpu/kernels/attention.h"
#include "cpu/kernels/attention_backward_product.h"
#include "cpu/simd/transpose.h"
#include "ops/_attention_backward.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int64_t kRows = kBackwardRows;

HONED_INLINE int64_t padded(int64_t dim) { return (dim + 15) / 16 * 16; }

// Calls body(pointer to the row's elements) with row (b, h, t) of a tensor.
template <class F>
HONED_INLINE void with_row(const void* data, DType dtype, const int64_t* stride, int64_t b,
                           int64_t h, int64_t t, F&& body) {
  int64_t at = b * stride[0] + h * stride[1] + t * stride[2];
  visit_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    body(static_cast<T*>(const_cast<void*>(data)) + at);
  });
}

// One part of one key head.
class Item {
 public:
  Item(const AttentionBackwardArgs& args, int64_t item)
      : args_(args),
        a_(args.forward),
        b_(item / args.parts / a_.kv_heads),
        g_(item / args.parts % a_.kv_heads),
        part_(item % args.parts),
        item_(item),
        group_(a_.heads / a_.kv_heads),
        head_blocks_((a_.q_len + kRows - 1) / kRows),
        dim_(padded(a_.head_dim)),
        value_dim_(padded(a_.value_dim)) {
    float* at = args.scratch;
    auto take = [&](int64_t count) {
      float* taken = at;
      at += count;
      return taken;
    };
    key_ = take(args.chunk * dim_), dkey_ = take(args.chunk * dim_);
    value_ = take(args.chunk * value_dim_), dvalue_ = take(args.chunk * value_dim_);
    query_ = take(kRows * dim_), query_t_ = take(kRows * dim_);
    dout_ = take(kRows * value_dim_), dout_t_ = take(kRows * value_dim_);
    weight_ = take(kRows * kRows), dscore_ = take(kRows * kRows), capped_ = take(kRows * kRows);
    dquery_ = at;
  }

  void run() {
    int64_t first = 0;
    do {
      int64_t keys = a_.kv_len - first < args_.chunk ? a_.kv_len - first : args_.chunk;
      chunk(first, keys);
      first += keys;
    } while (first < a_.kv_len);
    if (!one_chunk() && args_.dq)
      for_blocks([&](int64_t local, int64_t h, int64_t t0, int rows) {
        store_queries(local, h, t0, rows);
      });
  }

 private:
  bool one_chunk() const { return a_.kv_len <= args_.chunk; }

  template <class F>
  HONED_INLINE void for_blocks(F&& body) {
    int64_t local = 0;
    for (int64_t i = part_; i < group_ * head_blocks_; i += args_.parts, ++local) {
      int64_t t0 = i % head_blocks_ * kRows, left = a_.q_len - t0;
      body(local, g_ * group_ + i / head_blocks_, t0, int(left < kRows ? left : kRows));
    }
  }

  void chunk(int64_t first, int64_t keys) {
    bool loaded = false;
    fill_zero(dkey_, keys * dim_);
    fill_zero(dvalue_, keys * value_dim_);
    for_blocks([&](int64_t local, int64_t h, int64_t t0, int rows) {
      float* dquery = dquery_ + (one_chunk() ? 0 : local * kRows * dim_);
      if (first == 0) fill_zero(dquery, kRows * dim_);
      int64_t end = keys_end(a_, t0 + rows - 1);
      int64_t begin = 0;
      if (begin < first) begin = first;
      if (end > first + keys) end = first + keys;
      if (begin < end) {
        if (!loaded) load_keys(first, keys);
        loaded = true;
        load_queries(h, t0, rows);
        for (int64_t k0 = begin / kRows * kRows; k0 < end; k0 += kRows) {
          int64_t n = end - k0 < kRows ? end - k0 : kRows;
          block(h, t0, rows, k0, int(n), k0 - first, dquery);
        }
      }
      if (one_chunk() && args_.dq) store_queries(local, h, t0, rows);
    });
    store_keys(first, keys);
  }

  static void fill_zero(float* to, int64_t count) {
    for (int64_t i = 0; i < count; i += kLanes) store(to + i, zero());
  }

  // Rows of a tensor as f32, zeros up to the padded size.
  void load_rows(const void* data, DType dtype, const int64_t* stride, int64_t h, int64_t t0,
                 int64_t rows, int64_t cols, float* to) {
    int64_t ld = padded(cols);
    for (int64_t r = 0; r < rows; ++r)
      with_row(data, dtype, stride, b_, h, t0 + r, [&](const auto* from) {
        float* row = to + r * ld;
        for_lanes(cols, [&](int64_t i, int n) { store(row + i, load(from + i, n)); });
        for (int64_t i = (cols + kLanes - 1) / kLanes * kLanes; i < ld; i += kLanes)
          store(row + i, zero());
      });
  }

  void load_keys(int64_t first, int64_t keys) {
    load_rows(a_.k, a_.kv_dtype, a_.k_stride, g_, first, keys, a_.head_dim, key_);
    load_rows(a_.v, a_.kv_dtype, a_.v_stride, g_, first, keys, a_.value_dim, value_);
  }

  // to[d][r] = from[r][d] * scale; rows after the last are zero.
  static void turn(const float* from, int64_t ld, int rows, vf scale, float* to) {
    for (int64_t r = 0; r < rows; r += kLanes)
      for (int64_t d = 0; d < ld; d += kLanes) {
        vf square[kLanes];
        for (int i = 0; i < kLanes; ++i)
          square[i] = r + i < rows ? load(from + (r + i) * ld + d) * scale : zero();
        transpose(square);
        for (int i = 0; i < kLanes; ++i) store(to + (d + i) * kRows + r, square[i]);
      }
  }

  void load_queries(int64_t h, int64_t t0, int rows) {
    load_rows(a_.q, a_.dtype, a_.q_stride, h, t0, rows, a_.head_dim, query_);
    load_rows(args_.dout, a_.dtype, args_.dout_stride, h, t0, rows, a_.value_dim, dout_);
    turn(query_, dim_, rows, set1(a_.scale), query_t_);
    turn(dout_, value_dim_, rows, set1(1.0f), dout_t_);
    const float* lse = a_.lse + (b_ * a_.heads + h) * a_.q_len + t0;
    const float* delta = args_.delta + (b_ * a_.heads + h) * a_.q_len + t0;
    for (int r = 0; r < kRows; ++r) {
      bool sees = r < rows && lse[r] != kMinusInf;
      lse_[r] = sees ? lse[r] : -kMinusInf;  // e^(score - lse) is then 0
      delta_[r] = sees ? delta[r] : 0.0f;
    }
  }

  void block(int64_t h, int64_t t0, int rows, int64_t k0, int n, int64_t at, float* dquery) {
    const int64_t vecs = (rows + kLanes - 1) / kLanes;
    const float *key = key_ + at * dim_, *value = value_ + at * value_dim_;
    backward_product(n, {key, dim_, 1}, a_.head_dim, query_t_, kRows, vecs, weight_, kRows, false);
    if (args_.dq || args_.dk)
      backward_product(n, {value, value_dim_, 1}, a_.value_dim, dout_t_, kRows, vecs, dscore_,
                       kRows, false);
    if (a_.softcap != 0.0f) cap(n, vecs);
    mask(h, t0, rows, k0, n, vecs);
    weigh(n, vecs);
    if (args_.dv)
      backward_product(n, {weight_, kRows, 1}, rows, dout_, value_dim_, value_dim_ / kLanes,
                       dvalue_ + at * value_dim_, value_dim_, true);
    if (args_.dk)
      backward_product(n, {dscore_, kRows, 1}, rows, query_, dim_, dim_ / kLanes, dkey_ + at * dim_,
                       dim_, true);
    if (args_.dq)
      backward_product(rows, {dscore_, 1, kRows}, n, key, dim_, dim_ / kLanes, dquery, dim_, true);
  }

  void cap(int keys, int64_t vecs) {
    vf to = set1(a_.softcap), from = set1(1.0f / a_.softcap);
    for (int k = 0; k < keys; ++k)
      for (int64_t v = 0; v < vecs; ++v) {
        int64_t i = k * kRows + v * kLanes;
        vf t = vtanh(load(weight_ + i) * from);
        store(weight_ + i, to * t);
        store(capped_ + i, set1(1.0f) - t * t);
      }
  }

  void hide_keys(const uint8_t* seen, int64_t step, int keys, int64_t vecs) {
    for (int k = 0; k < keys; ++k)
      if (!seen[k * step])
        for (int64_t v = 0; v < vecs; ++v) store(weight_ + k * kRows + v * kLanes, set1(kMinusInf));
  }

  void mask(int64_t h, int64_t t0, int rows, int64_t k0, int keys, int64_t vecs) {
    if (a_.key_mask) hide_keys(a_.key_mask + b_ * a_.key_mask_stride + k0, 1, keys, vecs);
    if (a_.mask.data && a_.mask.dtype == DType::boolean && a_.mask.stride[1] == 0 &&
        a_.mask.stride[2] == 0)
      hide_keys(mask_row(a_, b_, 0, 0, k0), a_.mask.stride[3], keys, vecs);
    else if (a_.mask.data)
      for (int r = 0; r < rows; ++r) add_mask(a_, b_, h, t0 + r, k0, keys, weight_ + r, kRows);
    if (k0 + keys > keys_end(a_, t0)) {
      alignas(64) float seen[kRows];  // keys of this block that a row sees
      for (int r = 0; r < kRows; ++r)
        seen[r] = float(keys_end(a_, t0 + (r < rows ? r : rows - 1)) - k0);
      for (int k = 0; k < keys; ++k)
        for (int64_t v = 0; v < vecs; ++v) {
          float* s = weight_ + k * kRows + v * kLanes;
          store(s, select_less(set1(float(k)), load(seen + v * kLanes), load(s), set1(kMinusInf)));
        }
    }
  }

  // Scores and dw to weights and du.
  void weigh(int keys, int64_t vecs) {
    for (int64_t v = 0; v < vecs; ++v) {
      vf lse = load(lse_ + v * kLanes), delta = load(delta_ + v * kLanes);
      for (int k = 0; k < keys; ++k) {
        int64_t i = k * kRows + v * kLanes;
        vf weight = exp_of_negative(load(weight_ + i) - lse);
        vf dscore = weight * (load(dscore_ + i) - delta);
        if (a_.softcap != 0.0f) dscore = dscore * load(capped_ + i);
        store(weight_ + i, weight);
        store(dscore_ + i, dscore);
      }
    }
  }

  void store_queries(int64_t local, int64_t h, int64_t t0, int rows) {
    const float* from = dquery_ + (one_chunk() ? 0 : local * kRows * dim_);
    vf scale = set1(a_.scale);
    for (int r = 0; r < rows; ++r)
      with_row(args_.dq, a_.dtype, args_.dq_stride, b_, h, t0 + r, [&](auto* to) {
        for_lanes(a_.head_dim,
                  [&](int64_t i, int n) { store(to + i, load(from + r * dim_ + i) * scale, n); });
      });
  }

  void store_keys(int64_t first, int64_t keys) {
    if (args_.parts > 1) {
      float* to = args_.partial + (item_ * a_.kv_len + first) * (dim_ + value_dim_);
      for (int64_t k = 0; k < keys; ++k, to += dim_ + value_dim_) {
        for (int64_t i = 0; i < dim_; i += kLanes) store(to + i, load(dkey_ + k * dim_ + i));
        for (int64_t i = 0; i < value_dim_; i += kLanes)
          store(to + dim_ + i, load(dvalue_ + k * value_dim_ + i));
      }
      return;
    }
    for (int64_t k = 0; k < keys; ++k)
      store_key(args_, b_, g_, first + k, dkey_ + k * dim_, dvalue_ + k * value_dim_);
  }

 public:
  // Row s of key head g of dk and dv.
  static void store_key(const AttentionBackwardArgs& args, int64_t b, int64_t g, int64_t s,
                        const float* dkey, const float* dvalue) {
    const AttentionArgs& a = args.forward;
    vf scale = set1(a.scale);
    if (args.dk)
      with_row(args.dk, a.kv_dtype, args.dk_stride, b, g, s, [&](auto* to) {
        for_lanes(a.head_dim, [&](int64_t i, int n) { store(to + i, load(dkey + i) * scale, n); });
      });
    if (args.dv)
      with_row(args.dv, a.kv_dtype, args.dv_stride, b, g, s, [&](auto* to) {
        for_lanes(a.value_dim, [&](int64_t i, int n) { store(to + i, load(dvalue + i), n); });
      });
  }

 private:
  const AttentionBackwardArgs& args_;
  const AttentionArgs& a_;
  int64_t b_, g_, part_, item_, group_, head_blocks_, dim_, value_dim_;
  float *key_, *value_, *dkey_, *dvalue_;      // (keys of a chunk, D or Dv)
  float *query_, *query_t_, *dout_, *dout_t_;  // (rows, D or Dv) and turned, query_t_ scaled
  float *weight_, *dscore_, *capped_;          // (keys, rows)
  float* dquery_;                              // (rows, D): of a block, or of all blocks
  alignas(64) float lse_[kRows], delta_[kRows];
};

}  // namespace

void attention_backward(const AttentionBackwardArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) Item(args, i).run();
}

// Items: (b, h, t).
void attention_backward_delta(const AttentionBackwardArgs& args, int64_t begin, int64_t end) {
  const AttentionArgs& a = args.forward;
  for (int64_t i = begin; i < end; ++i) {
    int64_t t = i % a.q_len, h = i / a.q_len % a.heads, b = i / a.q_len / a.heads;
    visit_float(a.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* out = static_cast<const T*>(a.out) + b * a.out_stride[0] + h * a.out_stride[1] +
                     t * a.out_stride[2];
      const T* dout = static_cast<const T*>(args.dout) + b * args.dout_stride[0] +
                      h * args.dout_stride[1] + t * args.dout_stride[2];
      vf sum = zero();
      for_lanes(a.value_dim,
                [&](int64_t d, int n) { sum = fmadd(load(out + d, n), load(dout + d, n), sum); });
      args.delta[i] = reduce_add(sum);
    });
  }
}

// Items: (b, key head, s).
void attention_backward_combine(const AttentionBackwardArgs& args, int64_t begin, int64_t end) {
  const AttentionArgs& a = args.forward;
  int64_t dim = padded(a.head_dim), dims = dim + padded(a.value_dim);
  alignas(64) float sum[2 * kMaxHeadDim];
  for (int64_t i = begin; i < end; ++i) {
    int64_t s = i % a.kv_len, group = i / a.kv_len;
    const float* from = args.partial + (group * args.parts * a.kv_len + s) * dims;
    for (int64_t d = 0; d < dims; d += kLanes) {
      vf total = load(from + d);
      for (int64_t p = 1; p < args.parts; ++p) total = total + load(from + p * a.kv_len * dims + d);
      store(sum + d, total);
    }
    Item::store_key(args, group / a.kv_heads, group % a.kv_heads, s, sum, sum + dim);
  }
}

HONED_END_LEVEL
