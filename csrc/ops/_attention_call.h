// scaled_dot_product_attention as its callers see it: operands in, checked, run.
#pragma once
#include <vector>

#include "ops/scaled_dot_product_attention.h"

namespace honed {

// The op's operands as its caller has them; the last dimension of out, q, k and v has unit stride.
struct AttentionInputs {
  TensorView out, q, k, v;  // 4-D: (B,H,T,D), (1,H,total,D) with q_starts, (pages,Hkv,page,D)
  const TensorView *mask = nullptr, *bias = nullptr;    // broadcast to (B,H,T,S)
  const TensorView* key_mask = nullptr;                 // (B,S), boolean or u8
  const TensorView *alibi = nullptr, *sinks = nullptr;  // (H) or (B,H); (H)
  const TensorView *q_starts = nullptr, *k_starts = nullptr, *k_lens = nullptr;  // i32 or i64
  const TensorView* block_table = nullptr;                  // (B,blocks), i32 or i64
  const TensorView *k_scale = nullptr, *v_scale = nullptr;  // f32, (B,Hkv,S) or (pages,Hkv,page)
  const TensorView* lse = nullptr;  // (B,H,T) or (1,H,total), contiguous, f32 or, of f64, f64
  double scale = 1, softcap = 0;
  int64_t window_left = -1, window_right = -1;  // below 0: unbounded
  int64_t offset = 0;
  bool offset_from_end = false;
  double dropout = 0;
  uint64_t seed = 0;
};

// The kernels' arguments, checked, and the memory of what had to be converted for them.
class AttentionCall {
 public:
  explicit AttentionCall(const AttentionInputs& inputs);
  AttentionCall(const AttentionCall&) = delete;
  AttentionCall& operator=(const AttentionCall&) = delete;
  AttentionArgs args{};

 private:
  std::vector<int64_t> q_starts_, k_starts_, k_lens_;
  std::vector<int32_t> blocks_;
  std::vector<float> alibi_, sinks_;
  std::vector<double> wide_alibi_, wide_sinks_;
};

void scaled_dot_product_attention(const AttentionInputs& inputs);

}  // namespace honed
