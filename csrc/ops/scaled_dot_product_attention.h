// out[b,h,t,:] = sum_s softmax_s(scores[b,h,t,s]) v[b,g,s,:]      g = h / (H / Hkv): grouped query
// heads scores = softcap(scale * q[b,h,t,:] . k[b,g,s,:]) + mask[b,h,t,s]
//
// q: (B,H,T,D), k: (B,Hkv,S,D), v: (B,Hkv,S,Dv), out: (B,H,T,Dv), any strides but unit stride along
// D and Dv. Sums are f32. A query that sees no key gives 0. Memory is O(block): online softmax
// (Milakov and Gimelshein, arXiv:1805.02867; Dao et al., arXiv:2205.14135).
//
// Two paths. Many queries: one kernel, parallel over blocks of query rows. Few queries (decoding):
// attention_decode is parallel over chunks of keys, each writing (accumulated values, max, sum) a
// row to `partial`; attention_combine merges them. A chunk's size is fixed, so the result does not
// depend on the number of threads.
#pragma once
#include "core/tensor_view.h"

namespace honed {

inline constexpr int64_t kMaxHeadDim = 256;  // the kernels' buffers are on the stack
// The decode path: up to 4 queries (one key head then gives too few blocks of rows for the
// threads), and up to 12 query rows a key head (the blocks of 16 rows that vectors make were 1.6
// times slower at 8; Zen 4).
inline constexpr int64_t kDecodeQueries = 4, kDecodeRows = 12;
inline constexpr int64_t kDecodeKeys = 128;       // keys a chunk of the decode path
inline constexpr int64_t kAttentionBlock = 4096;  // floats of a prefill buffer: rows * head size

struct AttentionArgs {
  const void *q, *k, *v;
  void* out;
  int64_t q_stride[3], k_stride[3], v_stride[3], out_stride[3];  // batch, head, time, in elements
  int64_t batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim;
  DType dtype;              // of q and out
  DType kv_dtype;           // of k and v: dtype, or f16 or bf16 where dtype is f32
  float scale, softcap;     // softcap 0: none; scores = softcap * tanh(scores / softcap)
  bool causal;              // query t sees the keys 0..t + causal_offset
  int64_t causal_offset;    // 0 in torch's op; kv_len - q_len with a cache
  const uint8_t* key_mask;  // (B,S), 0: never seen; nullptr: all seen
  int64_t key_mask_stride;  // of B
  const void* mask;         // (B,H,T,S), boolean (true: seen) or float (added); nullptr: none
  DType mask_dtype;
  int64_t mask_stride[4];  // 0 broadcasts
  float* partial;          // attention_partial_floats() of them; the decode path only
};

// to[b,h,first+t,:] = from[b,t,h,:], converted: new keys or values into a cache. Items: B * T.
struct CacheAppendArgs {
  const float* from;
  int64_t batch, time, heads, head_dim;
  int64_t from_stride;  // of a token (b,t); heads lie one after the other
  void* to;
  int64_t to_batch_stride, to_head_stride;  // elements; a position is head_dim of them
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

// 4-D tensors. mask broadcasts to (B,H,T,S); key_mask is (B,S), boolean or u8. With no softcap: 0.
void scaled_dot_product_attention(const TensorView& out, const TensorView& q, const TensorView& k,
                                  const TensorView& v, const TensorView* mask,
                                  const TensorView* key_mask, float scale, float softcap,
                                  bool causal, int64_t causal_offset);

}  // namespace honed
