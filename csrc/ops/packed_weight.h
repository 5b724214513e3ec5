// Owns a packed weight: made by quantize_weight, read by linear.
#pragma once
#include <memory>
#include <vector>

#include "ops/linear.h"

namespace honed {

class PackedWeight {
 public:
  // Weights (N_i, K) one below the other, or woven panel by panel (gated: exactly two of one shape).
  // biases: one a weight or empty. group: inputs a scale, 32 or 64. importance: (K,) f32, used by int4;
  // nullptr: all inputs alike.
  PackedWeight(const std::vector<TensorView>& weights, const std::vector<TensorView>& biases,
               WeightKind kind, int group, bool gated, const TensorView* importance);

  const PackedView& view() const { return view_; }
  int64_t bytes() const;

  // Writes what the kernels multiply with: (N, K) f32; gated: gate's rows, then up's.
  void unpack(float* out) const;

 private:
  struct Free {
    void operator()(uint8_t* p) const;
  };
  void pack_bias(const std::vector<TensorView>& weights, const std::vector<TensorView>& biases);

  PackedView view_{};
  std::unique_ptr<uint8_t[], Free> data_;
  std::vector<float> scales_, bias_;
};

// The cheapest kind that holds every value of the weights exactly: f16, bf16 or f32.
WeightKind exact_kind(const std::vector<TensorView>& weights);

}  // namespace honed
