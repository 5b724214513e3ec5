// A decoder-only transformer as data: what kind of norms, positions and blocks, and their weights.
#pragma once
#include <memory>
#include <vector>

#include "core/tensor_view.h"
#include "ops/quantize_weight.h"

namespace honed::engine {

enum class Norm : uint8_t { rms_norm, layer_norm };
enum class Position : uint8_t { rope, learned, none };

struct Description {
  int64_t vocab_size, hidden_size, num_layers, num_heads, num_kv_heads, head_dim, intermediate_size;
  int64_t max_positions;
  Norm norm;
  float norm_eps;
  Position position;
  int64_t position_offset;  // added to positions before a learned table is read
  bool rope_interleaved;
  Activation activation;
  bool gated;              // mlp(x) = down(act(gate(x)) * up(x)), else down(act(up(x)))
  bool parallel_residual;  // x + attention(norm(x)) + mlp(norm(x)), else one after the other
  float attention_scale, attention_softcap, logit_softcap;  // softcap 0: none
  float embedding_scale;

  int64_t q_size() const { return num_heads * head_dim; }
  int64_t kv_size() const { return num_kv_heads * head_dim; }
};

// Gain and bias of a norm, in f32; empty: absent.
struct NormWeight {
  std::vector<float> weight, bias;
};

using Weight = std::shared_ptr<const PackedWeight>;

struct Layer {
  NormWeight attention_norm, mlp_norm;  // an empty mlp_norm: the block shares attention_norm
  std::vector<float> q_norm, k_norm;    // over a head; empty: none
  Weight qkv, attention_out, up, down;
};

struct Model {
  Description description;
  TensorView embedding;           // (V,C), borrowed
  TensorView position_embedding;  // (P,C), borrowed; learned positions
  TensorView rope_cos, rope_sin;  // (P,R/2) f32, borrowed; rope
  NormWeight final_norm;
  Weight head;
  std::vector<Layer> layers;

  void check() const;     // shapes against the description; throws ValueError naming the weight
  int64_t bytes() const;  // of packed weights, shared ones once
};

}  // namespace honed::engine
