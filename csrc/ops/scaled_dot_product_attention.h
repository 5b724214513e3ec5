// out[b,h,t,:] = sum_s w[b,h,t,s] v[b,g,s,:]           g = h / (H / Hkv): grouped query heads
// w = softmax_s(scores), with one more key of score sinks[h] and no value where there are sinks;
//     then dropout: w * keep / (1 - dropout)
// scores[b,h,t,s] = softcap(scale * q[b,h,t,:] . k[b,g,s,:]) + mask[b,h,t,s] + bias[b,h,t,s]
//                   - alibi[b,h] * |p - s|             p = t + offset: where query t stands
// Seen are the keys p - window_left <= s <= p + window_right that the masks let through.
//
// q: (B,H,T,D), k: (B,Hkv,S,D), v: (B,Hkv,S,Dv), out: (B,H,T,Dv), any strides but unit stride along
// D and Dv. Sums are f32, f64 for f64. A query that sees no key gives 0. Memory is O(block): online
// softmax (Milakov and Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135).
//
// Sequences of different lengths: with q_starts (B + 1) the queries of sequence b are the rows
// q_starts[b] to q_starts[b + 1] of a (1,H,T,D) tensor, with k_starts the keys likewise; with k_lens
// (B) only the first k_lens[b] keys of sequence b count. Paged: with block_table (B, blocks) key s of
// sequence b is row s % page of page block_table[b, s / page] of a (pages,Hkv,page,D) tensor. T and
// S are then the largest of the batch, and offset counts from the own lengths (attention_span).
//
// Two paths. Many queries: one kernel, parallel over blocks of query rows. Few queries (decoding):
// attention_decode is parallel over chunks of keys, each writing (accumulated values, max, sum) a
// row to `partial`; attention_combine merges them. A chunk's size is fixed, so the result does not
// depend on the number of threads.
#pragma once
#include "core/tensor_view.h"

namespace honed {

inline constexpr int64_t kMaxHeadDim = 512;  // the kernels' buffers are on the stack
// The decode path: up to 4 queries (one key head then gives too few blocks of rows for the
// threads), and up to 12 query rows a key head (the blocks of 16 rows that vectors make were 1.6
// times slower at 8; Zen 4).
inline constexpr int64_t kDecodeQueries = 4, kDecodeRows = 12;
inline constexpr int64_t kDecodeKeys = 128;       // keys a chunk of the decode path
inline constexpr int64_t kAttentionBlock = 8192;  // floats of a prefill buffer: rows * head size

inline constexpr int64_t kFurthest = int64_t{1} << 40;  // that a query may stand from its number
inline constexpr int64_t kNoWindow = 2 * kFurthest;     // further than any key from any query

// Added to the scores, or hiding keys: element (b,h,t,s).
struct AttentionMask {
  const void* data;   // nullptr: none
  DType dtype;        // boolean (true: seen) or float (added)
  int64_t stride[4];  // 0 broadcasts
};

struct AttentionArgs {
  const void *q, *k, *v;
  void* out;
  int64_t q_stride[3], k_stride[3], v_stride[3], out_stride[3];  // batch, head, time, in elements
  int64_t batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim;
  DType dtype;                     // of q and out
  DType kv_dtype;                  // of k and v: dtype, or f16, bf16 or i8 where dtype is f32
  bool dots;                       // bf16 alone: by dot instructions, where the level has them
  const float *k_scale, *v_scale;  // i8: (B,Hkv,S), key[s,:] * k_scale[s]; paged: (pages,Hkv,page)
  int64_t k_scale_stride[3], v_scale_stride[3];
  float scale, softcap;               // softcap 0: none; scores = softcap * tanh(scores / softcap)
  int64_t window_left, window_right;  // kNoWindow: unbounded; causal is window_right 0
  int64_t offset;           // of query 0 among the keys: 0 in torch's op; S - T with a cache
  bool offset_from_end;     // offset is S - T, of each sequence's own lengths
  const uint8_t* key_mask;  // (B,S), 0: never seen; nullptr: all seen
  int64_t key_mask_stride;  // of B
  AttentionMask mask, bias;
  const float* alibi;  // (B,H); nullptr: none
  int64_t alibi_stride[2];
  const float* sinks;  // (H); nullptr: none
  float dropout;       // 0: none; keep(b,h,t,s) is core/rng.h's, row (b H + h) T + t, column s
  uint64_t seed;
  const int64_t *q_starts, *k_starts, *k_lens;  // see above; nullptr: none
  const int32_t* block_table;
  int64_t block_table_stride, page;
  float* lse;      // (B,H,T), log of the sum of exponentials, -inf where none; or nullptr
  float* partial;  // attention_partial_floats() of them; the decode path only
  struct {         // f64 has these instead of those above, and attention_f64 instead of the others
    double scale, softcap, dropout;
    const double *alibi, *sinks;
    double* lse;
  } wide;
};

// Row first + t of sequence b, head h, of a paged cache (see above) = from[b,t,h,:], converted: new
// keys or values. Items: B * T.
struct CacheAppendArgs {
  const float* from;
  int64_t batch, time, heads, head_dim;
  int64_t from_stride;  // of a token (b,t); heads lie one after the other
  void* to;
  const int32_t* block_table;
  int64_t block_table_stride, page;
  int64_t to_page_stride, to_head_stride;  // elements; a position is head_dim of them
  int64_t first;
  DType dtype;  // of `to`
};

bool attention_splits(const AttentionArgs& args);    // true: attention_decode, then _combine
int64_t attention_items(const AttentionArgs& args);  // of the kernel that runs (first)
int64_t attention_combine_items(
    const AttentionArgs& args);  // 0: the decode kernel wrote out itself
int64_t attention_partial_floats(const AttentionArgs& args);  // 0 where partial is not used

// What kernels and callers agree on.
int64_t attention_block_rows(const AttentionArgs& args);  // prefill: query rows, and keys, a block
int64_t attention_chunks(const AttentionArgs& args);      // decode: chunks of keys, at least 1

}  // namespace honed
