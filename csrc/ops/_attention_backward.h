// Gradients of scaled_dot_product_attention, from its operands, its result and its lse:
//
// delta[t] = sum_d dout[t,d] out[t,d] - dlse[t]      w[t,s] = exp(scores[t,s] - lse[t])
// dw = keep / (1 - dropout) * (dout v^T)   ds = w * (dw - delta)
// dv = (w keep / (1 - dropout))^T dout     dbias = ds, summed over what the bias broadcasts
// du = ds * (1 - tanh^2) with softcap      dq = scale * du k      dk = scale * du^T q
// dsinks[h] = -sum_t exp(sinks[h] - lse[t]) delta[t]
//
// One pass of five products (Dao, arXiv:2307.08691, has them): an item is a key head, whose dk and
// dv one thread sums, a chunk of keys at a time, over blocks of query rows. Where there are few key
// heads their query blocks are divided into parts, each with sums of its own, which
// attention_backward_combine adds. The division depends on sizes alone, so the gradients do not
// depend on the number of threads. A bias's gradient, which several key heads may share, has a
// kernel of its own over blocks of the bias; it computes scores and ds anew.
#pragma once
#include "ops/scaled_dot_product_attention.h"

namespace honed {

inline constexpr int64_t kBackwardRows = 64;  // query rows, and keys, of a block

struct AttentionBackwardArgs {
  AttentionArgs forward;  // as the forward had them, with out and lse
  const void* dout;
  const void* dlse;    // like lse; nullptr: none
  void *dq, *dk, *dv;  // of the types of q, k and v; nullptr: not wanted
  int64_t dout_stride[3], dq_stride[3], dk_stride[3], dv_stride[3];  // batch, head, time
  void* dbias;              // of the bias's shape, contiguous; nullptr: not wanted
  int64_t dbias_stride[4];  // 0 broadcasts
  void* dsinks;             // (H); nullptr: not wanted
  float* delta;             // (B,H,T)
  int64_t block_floats;     // of scratch, a block of rows
  int64_t chunk, parts;     // keys a chunk; see above
  float* scratch;           // of this thread
  float* partial;           // (B,Hkv,parts,S,D+Dv), both padded; parts > 1 only
};

// args.forward, dout and the gradients wanted are filled in and fit together.
void attention_backward(AttentionBackwardArgs args);

}  // namespace honed
