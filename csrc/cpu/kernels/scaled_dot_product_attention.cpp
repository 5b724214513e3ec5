// Attention of many queries. Scores, weights and results are kept transposed, queries along the
// lanes: then keys and values are read where they lie (broadcast one element at a time), the
// softmax needs no reduction across lanes, and both products are the same micro-kernel. The query
// heads that share a key head lie side by side in one block of rows: row r is query r / group of
// head r % group.
#include "ops/scaled_dot_product_attention.h"

#include "cpu/kernels/attention.h"

HONED_BEGIN_LEVEL

namespace {

// 6 x 4 of 32 registers, 6 x 2 of 16: the broadcast and the loaded row fit beside the accumulators.
constexpr int kTileRows = 6, kTileVecs = kLanes == 16 ? 4 : 2;

// The left operand: element (i, l) is at data[i * row + l * step].
struct Left {
  const float* data;
  int64_t row, step;
};

// c[i][.] = c[i][.] * rescale[.] + sum_l left(i, l) * b[l][.] for n <= N rows of V vectors; without
// rescale c starts at 0. Rows of b and c are ld apart.
template <int N, int V>
HONED_INLINE void tile(const Left& left, int n, int64_t count, const float* b, float* c, int64_t ld,
                       const float* rescale) {
  const float* p[N];
  vf sum[N][V];
  for (int i = 0; i < N; ++i) p[i] = left.data + (i < n ? i : n - 1) * left.row;
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v)
      sum[i][v] =
          rescale && i < n ? load(c + i * ld + v * kLanes) * load(rescale + v * kLanes) : zero();
  for (int64_t l = 0, at = 0; l < count; ++l, at += left.step, b += ld) {
    vf row[V];
    for (int v = 0; v < V; ++v) row[v] = load(b + v * kLanes);
    for (int i = 0; i < N; ++i) {
      vf x = set1(p[i][at]);
      for (int v = 0; v < V; ++v) sum[i][v] = fmadd(x, row[v], sum[i][v]);
    }
  }
  for (int i = 0; i < N; ++i)
    if (i < n)
      for (int v = 0; v < V; ++v) store(c + i * ld + v * kLanes, sum[i][v]);
}

template <int V>
HONED_INLINE void tile_of(const Left& left, int n, int64_t count, const float* b, float* c,
                          int64_t ld, const float* rescale) {
  if (n <= 2)
    tile<2, V>(left, n, count, b, c, ld, rescale);
  else if (n <= 4)
    tile<4, V>(left, n, count, b, c, ld, rescale);
  else
    tile<kTileRows, V>(left, n, count, b, c, ld, rescale);
}

// The same for any n and the first `vecs` vectors of a row.
void product(const Left& left, int64_t n, int64_t count, const float* b, float* c, int64_t ld,
             int vecs, const float* rescale) {
  for (int v = 0; v < vecs; v += kTileVecs) {
    int64_t at = v * kLanes;
    const float* scale = rescale ? rescale + at : nullptr;
    for (int64_t i = 0; i < n; i += kTileRows) {
      Left rows{left.data + i * left.row, left.row, left.step};
      int m = n - i < kTileRows ? int(n - i) : kTileRows;
      float* to = c + i * ld + at;
      switch (vecs - v) {
        case 1:
          tile_of<1>(rows, m, count, b + at, to, ld, scale);
          break;
        case 2:
          tile_of<2>(rows, m, count, b + at, to, ld, scale);
          break;
        case 3:
          tile_of < kTileVecs<3 ? kTileVecs : 3>(rows, m, count, b + at, to, ld, scale);
          break;
        default:
          tile_of<kTileVecs>(rows, m, count, b + at, to, ld, scale);
      }
    }
  }
}

// count rows as f32: where they are, or converted into buffer.
Left as_float(const void* data, DType dtype, int64_t stride, int64_t from, int64_t count,
              int64_t cols, float* buffer) {
  if (dtype == DType::f32) return {static_cast<const float*>(data) + from * stride, stride, 1};
  visit_float(dtype, [&](auto tag) {
    const auto* rows = static_cast<const typename decltype(tag)::type*>(data) + from * stride;
    for (int64_t r = 0; r < count; ++r)
      for_lanes(cols, [&](int64_t i, int n) {
        store(buffer + r * cols + i, load(rows + r * stride + i, n), n);
      });
  });
  return {buffer, cols, 1};
}

HONED_INLINE void transpose4(const float* from, int64_t from_ld, float* to, int64_t to_ld) {
  __m128 a = _mm_loadu_ps(from), b = _mm_loadu_ps(from + from_ld);
  __m128 c = _mm_loadu_ps(from + 2 * from_ld), d = _mm_loadu_ps(from + 3 * from_ld);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  _mm_storeu_ps(to, a);
  _mm_storeu_ps(to + to_ld, b);
  _mm_storeu_ps(to + 2 * to_ld, c);
  _mm_storeu_ps(to + 3 * to_ld, d);
}

// A block of rows of one key head, and its buffers: 64 KiB.
class Block {
 public:
  Block(const AttentionArgs& args, int64_t b, int64_t g, int64_t row0)
      : a_(args),
        b_(b),
        g_(g),
        row0_(row0),
        group_(args.heads / args.kv_heads),
        ld_(block_rows(args)) {
    int64_t left = group_ * a_.q_len - row0;
    rows_ = int(left < ld_ ? left : ld_);
    vecs_ = (rows_ + kLanes - 1) / kLanes;
  }

  void run() {
    load_queries();
    for (int v = 0; v < vecs_; ++v) {
      store(max_ + v * kLanes, set1(kLowest));
      store(sum_ + v * kLanes, zero());
    }
    int64_t end = keys_end(a_, (row0_ + rows_ - 1) / group_);
    bool first = true;
    for (int64_t k0 = 0; k0 < end; k0 += ld_) {
      int n = int(end - k0 < ld_ ? end - k0 : ld_);
      if (hidden(k0, n)) continue;
      Left keys = as_float(head(a_.k, a_.k_stride, a_.kv_dtype, b_, g_), a_.kv_dtype,
                           a_.k_stride[2], k0, n, a_.head_dim, converted_);
      product(keys, n, a_.head_dim, query_, score_, ld_, vecs_, nullptr);
      if (a_.softcap != 0.0f) cap(n);
      mask(k0, n);
      weigh(n);
      Left values = as_float(head(a_.v, a_.v_stride, a_.kv_dtype, b_, g_), a_.kv_dtype,
                             a_.v_stride[2], k0, n, a_.value_dim, converted_);
      product({values.data, 1, values.row}, a_.value_dim, n, score_, result_, ld_, vecs_,
              first ? nullptr : rescale_);
      first = false;
    }
    store_results(first);
  }

 private:
  void load_queries() {
    alignas(64) float row[4][kMaxHeadDim];
    int64_t dim = (a_.head_dim + 3) / 4 * 4;
    for (int r = 0; r < vecs_ * kLanes; r += 4) {
      for (int i = 0; i < 4; ++i) {
        bool real = r + i < rows_;
        if (real) load_query(a_, b_, g_, head_of(r + i), query_of(r + i), set1(a_.scale), row[i]);
        for (int64_t d = real ? a_.head_dim : 0; d < dim; ++d) row[i][d] = 0.0f;
      }
      for (int64_t d = 0; d < dim; d += 4)
        transpose4(row[0] + d, kMaxHeadDim, query_ + d * ld_ + r, ld_);
    }
  }

  void cap(int keys) {
    vf to = set1(a_.softcap), from = set1(1.0f / a_.softcap);
    for (int k = 0; k < keys; ++k)
      for (int v = 0; v < vecs_; ++v) {
        float* s = score_ + k * ld_ + v * kLanes;
        store(s, to * vtanh(load(s) * from));
      }
  }

  // True where no row sees one of these keys, as far as that is quickly said.
  bool hidden(int64_t k0, int keys) const {
    if (a_.key_mask && none_of(a_.key_mask + b_ * a_.key_mask_stride + k0, keys)) return true;
    if (!a_.mask.data || a_.mask.dtype != DType::boolean || a_.mask.stride[3] != 1) return false;
    for (int r = 0; r < rows_; ++r)
      if (!none_of(mask_row(a_, b_, g_ * group_ + head_of(r), query_of(r), k0), keys)) return false;
    return true;
  }

  void hide_keys(const uint8_t* seen, int64_t step, int keys) {
    for (int k = 0; k < keys; ++k)
      if (!seen[k * step])
        for (int v = 0; v < vecs_; ++v) store(score_ + k * ld_ + v * kLanes, set1(kMinusInf));
  }

  void mask(int64_t k0, int keys) {
    if (a_.key_mask) hide_keys(a_.key_mask + b_ * a_.key_mask_stride + k0, 1, keys);
    if (a_.mask.data && a_.mask.dtype == DType::boolean && a_.mask.stride[1] == 0 &&
        a_.mask.stride[2] == 0)
      hide_keys(mask_row(a_, b_, 0, 0, k0), a_.mask.stride[3], keys);
    else if (a_.mask.data)
      for (int r = 0; r < rows_; ++r)
        add_mask(a_, b_, g_ * group_ + head_of(r), query_of(r), k0, keys, score_ + r, ld_);
    if (k0 + keys > keys_end(a_, row0_ / group_)) {
      alignas(64) float seen[64];  // keys of this block that a row sees
      for (int r = 0; r < vecs_ * kLanes; ++r)
        seen[r] = float(keys_end(a_, (row0_ + (r < rows_ ? r : rows_ - 1)) / group_) - k0);
      for (int k = 0; k < keys; ++k)
        for (int v = 0; v < vecs_; ++v) {
          float* s = score_ + k * ld_ + v * kLanes;
          store(s, select_less(set1(float(k)), load(seen + v * kLanes), load(s), set1(kMinusInf)));
        }
    }
  }

  // Scores to weights relative to the largest so far, and what that does to the earlier ones.
  void weigh(int keys) {
    for (int v = 0; v < vecs_; ++v) {
      float* s = score_ + v * kLanes;
      vf before = load(max_ + v * kLanes), top = before;
      for (int k = 0; k < keys; ++k) top = vmax(load(s + k * ld_), top);
      vf fade = exp_of_negative(before - top), total = load(sum_ + v * kLanes) * fade;
      for (int k = 0; k < keys; ++k) {
        vf weight = exp_of_negative(load(s + k * ld_) - top);
        store(s + k * ld_, weight);
        total = total + weight;
      }
      store(max_ + v * kLanes, top);
      store(sum_ + v * kLanes, total);
      store(rescale_ + v * kLanes, fade);
    }
  }

  void store_results(bool nothing_seen) {
    alignas(64) float row[4][kMaxHeadDim];
    int64_t dim = (a_.value_dim + 3) / 4 * 4;
    for (int r = 0; r < rows_; r += 4) {
      if (!nothing_seen)
        for (int64_t d = 0; d < dim; d += 4)
          transpose4(result_ + d * ld_ + r, ld_, row[0] + d, kMaxHeadDim);
      for (int i = 0; i < 4 && r + i < rows_; ++i) {
        vf scale = set1(nothing_seen || sum_[r + i] == 0.0f ? 0.0f : 1.0f / sum_[r + i]);
        for_lanes(a_.value_dim, [&](int64_t d, int n) {
          store(row[i] + d, nothing_seen ? zero() : load(row[i] + d, n) * scale);
        });
        store_result(a_, b_, g_ * group_ + head_of(r + i), query_of(r + i), row[i]);
      }
    }
  }

  // Row r of the block is query query_of(r) of head head_of(r) of the group.
  int64_t head_of(int r) const { return (row0_ + r) % group_; }
  int64_t query_of(int r) const { return (row0_ + r) / group_; }

  const AttentionArgs& a_;
  int64_t b_, g_, row0_, group_, ld_;
  int rows_, vecs_;
  alignas(64) float query_[kAttentionBlock];      // (D, rows), scaled
  alignas(64) float score_[kAttentionBlock];      // (keys, rows)
  alignas(64) float result_[kAttentionBlock];     // (Dv, rows), not yet divided by the sum
  alignas(64) float converted_[kAttentionBlock];  // (keys, D or Dv)
  alignas(64) float max_[64], sum_[64], rescale_[64];
};

}  // namespace

void scaled_dot_product_attention(const AttentionArgs& a, int64_t begin, int64_t end) {
  int64_t rows = a.heads / a.kv_heads * a.q_len, size = block_rows(a),
          blocks = (rows + size - 1) / size;
  for (int64_t i = begin; i < end; ++i) {
    // First and last block in turn: under a causal mask every stretch of items is then about as
    // much work.
    int64_t at = i % blocks, block = at % 2 ? blocks - 1 - at / 2 : at / 2;
    Block(a, i / blocks / a.kv_heads, i / blocks % a.kv_heads, block * size).run();
  }
}

HONED_END_LEVEL
