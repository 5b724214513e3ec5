// Weights (N,K) into the panels of ops/linear.h: as they are, or rounded.
//
//   int8    q = round(w / s), s = max |w| / 127, a channel
//   int4    q = round((w - low) / step) in [0, 15], low and step f16 a group of inputs: of some
//           ranges inside [min w, max w], the one whose integers fit best after a least-squares
//           refit of both
//   grid4, grid8   only weights that are step * q + low with 4-bit q, or step * q with 8-bit q,
//           exactly, in every group of 32 inputs: what was expanded from a quantised file
//
// The fit of int4 weighs the error of input k by importance[k] (all 1 where absent): with the mean
// square of what reaches the input, it is the error of the product that is least, not that of the
// weight. A channel whose steps or lows would leave the range of f16 is divided by a power of two
// first, which its scale gives back.
//
// Parallel over panels.
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "ops/linear.h"

namespace honed {

struct QuantizeWeightArgs {
  struct Source {
    const void* data;
    int64_t rows, row_stride, col_stride;
    DType dtype;
  };
  const Source* sources;
  int count;
  WeightKind kind;
  bool gated;
  int group;
  int64_t k, k_padded, panel_bytes;
  uint8_t* data;
  float* scales;            // a channel each; left alone where 1
  const float* importance;  // int4: (k_padded,); nullptr: all 1
};

// Raised whenever the same weight packs into other bytes: files of packed weights name it.
inline constexpr int kPackedLayout = 1;

inline constexpr int kWholeRow = 0;

struct WeightOptions {
  // Inputs a scale: of int4, 32 or 64; of the rows that int8 meets, a multiple of 32 or kWholeRow.
  int group = 32;
  bool gated = false;                      // two weights of one shape, woven panel by panel
  bool float_rows = false;                 // int8 and int4: rows are not rounded
  const TensorView* importance = nullptr;  // (K,) f32, used by int4; nullptr: all inputs alike
};

// The sizes of a packed weight; no memory yet. Gated: n outputs of each half.
PackedView packed_layout(WeightKind kind, const WeightOptions& options, int64_t n, int64_t k);

// Owns a packed weight.
class PackedWeight {
 public:
  // Weights (N_i, K) one below the other, or woven. biases: one a weight or empty. Without a kind:
  // the cheapest that holds every value exactly, of grid4, grid8, bf16, f16 and f32.
  PackedWeight(const std::vector<TensorView>& weights, const std::vector<TensorView>& biases,
               std::optional<WeightKind> kind, const WeightOptions& options);

  // What was packed before and lies in memory that `owner` keeps: sizes as packed_layout has them.
  PackedWeight(const PackedView& view, std::shared_ptr<const void> owner);

  const PackedView& view() const { return view_; }
  int64_t bytes() const;

  // Writes what the kernels multiply with: (N, K) f32; gated: gate's rows, then up's.
  void unpack(float* out) const;

 private:
  void allocate(WeightKind kind, const WeightOptions& options, int64_t n, int64_t k);
  void pack(const std::vector<TensorView>& weights, const TensorView* importance);
  // -1, or the first of a group of inputs that lies on no grid
  int64_t pack_grid(const std::vector<TensorView>& weights);
  int64_t packed_channel(int64_t weight, int64_t before, int64_t row) const;
  void pack_bias(const std::vector<TensorView>& weights, const std::vector<TensorView>& biases);

  PackedView view_{};
  std::shared_ptr<uint8_t[]> data_;
  std::shared_ptr<const void> owner_;  // of foreign memory
  std::vector<float> scales_, bias_;
};

}  // namespace honed
