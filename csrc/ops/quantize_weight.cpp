// quantize_weight: checks, sizes, then the CPU table.
#include "ops/quantize_weight.h"

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

namespace {

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

int64_t panel_bytes_of(WeightKind kind, int64_t k_padded, int group) {
  switch (kind) {
    case WeightKind::f32:
      return k_padded * kPanel * 4;
    case WeightKind::f16:
    case WeightKind::bf16:
      return k_padded * kPanel * 2;
    case WeightKind::int8:
      return k_padded * kPanel;
    case WeightKind::int4:
      return k_padded / group * kPanel * (4 + group / 2);
  }
  return 0;
}

float element(const TensorView& t, int64_t at) {
  if (t.dtype == DType::f32) return t.as<float>()[at];
  return t.dtype == DType::f16 ? to_float(t.as<f16>()[at]) : to_float(t.as<bf16>()[at]);
}

}  // namespace

PackedWeight::PackedWeight(const std::vector<TensorView>& weights,
                           const std::vector<TensorView>& biases, WeightKind kind, int group,
                           bool gated, const TensorView* importance) {
  HONED_CHECK(!weights.empty() && weights.size() <= 8, "linear: ", weights.size(),
              " weights, expected 1 to 8");
  HONED_CHECK(!gated || (weights.size() == 2 && same_shape(weights[0], weights[1])),
              "linear: a gated weight takes two weights of one shape, got ", weights.size());
  HONED_CHECK(group == 32 || group == 64, "linear: group is ", group, ", expected 32 or 64");
  std::vector<QuantizeWeightArgs::Source> sources;
  int64_t n = 0;
  for (const TensorView& w : weights) {
    HONED_CHECK(w.ndim == 2, "linear: weight has shape ", shape_of(w), ", expected (N, K)");
    HONED_CHECK_TYPE(is_float(w.dtype), "linear: weight is ", name_of(w.dtype),
                     ", expected float32, float16 or bfloat16");
    HONED_CHECK(w.device == Device::cpu, "linear: weight is on a CUDA device, expected the CPU");
    HONED_CHECK(w.size(1) == weights[0].size(1), "linear: weights have ", weights[0].size(1),
                " and ", w.size(1), " inputs, expected one number");
    sources.push_back({w.data, w.size(0), w.stride(0), w.stride(1), w.dtype});
    n += w.size(0);
  }
  view_.kind = kind;
  view_.gated = gated;
  view_.group = group;
  view_.n = gated ? weights[0].size(0) : n;
  view_.k = weights[0].size(1);
  view_.panels = round_up(view_.n, kPanel) / kPanel * (gated ? 2 : 1);
  view_.k_padded = is_integer(kind) ? round_up(view_.k, group) : view_.k;
  view_.panel_bytes = panel_bytes_of(kind, view_.k_padded, group);
  data_ = allocate_packed(view_.panels * view_.panel_bytes);
  view_.data = data_.get();
  if (kind == WeightKind::int8) {
    scales_.resize(size_t(view_.panels * kPanel));
    view_.scales = scales_.data();
  }
  std::vector<float> weighed;
  if (importance) {
    HONED_CHECK(importance->ndim == 1 && importance->size(0) == view_.k &&
                    importance->dtype == DType::f32 && importance->contiguous(),
                "linear: importance is ", name_of(importance->dtype), " of shape ",
                shape_of(*importance), ", expected a contiguous float32 [", view_.k, "]");
    const float* from = importance->as<float>();
    for (int64_t i = 0; i < view_.k; ++i)
      HONED_CHECK(from[i] >= 0 && from[i] < 1e30f, "linear: importance[", i, "] is ", from[i],
                  ", expected a finite number of at least 0");
    weighed.assign(from, from + view_.k);
    weighed.resize(size_t(view_.k_padded));
  }
  QuantizeWeightArgs args{sources.data(),
                          int(sources.size()),
                          kind,
                          gated,
                          group,
                          view_.k,
                          view_.k_padded,
                          view_.panel_bytes,
                          data_.get(),
                          scales_.data(),
                          importance ? weighed.data() : nullptr};
  cpu::run(cpu::kernels().quantize_weight, args, view_.panels, 1);
  if (!biases.empty()) pack_bias(weights, biases);
}

void PackedWeight::pack_bias(const std::vector<TensorView>& weights,
                             const std::vector<TensorView>& biases) {
  HONED_CHECK(biases.size() == weights.size(), "linear: ", biases.size(), " biases for ",
              weights.size(), " weights");
  bias_.resize(size_t(view_.panels * kPanel));
  int64_t before = 0;
  for (size_t s = 0; s < biases.size(); ++s) {
    const TensorView& b = biases[s];
    int64_t rows = weights[s].size(0);
    HONED_CHECK(b.ndim == 1 && b.size(0) == rows, "linear: bias has shape ", shape_of(b),
                ", expected [", rows, "]");
    HONED_CHECK_TYPE(is_float(b.dtype), "linear: bias is ", name_of(b.dtype),
                     ", expected float32, float16 or bfloat16");
    for (int64_t i = 0; i < rows; ++i) {
      int64_t at = view_.gated ? (i / kPanel * 2 + int64_t(s)) * kPanel + i % kPanel : before + i;
      bias_[size_t(at)] = element(b, i * b.stride(0));
    }
    before += rows;
  }
  view_.bias = bias_.data();
}

int64_t PackedWeight::bytes() const {
  return view_.panels * view_.panel_bytes + int64_t(scales_.size() + bias_.size()) * 4;
}

void PackedWeight::unpack(float* out) const {
  const PackedView& v = view_;
  int64_t rows = v.gated ? 2 * v.n : v.n;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t half = row / v.n, r = row % v.n;
    int64_t c = v.gated ? (r / kPanel * 2 + half) * kPanel + r % kPanel : r;  // packed channel
    const uint8_t* panel = v.data + c / kPanel * v.panel_bytes;
    int64_t lane = c % kPanel;
    for (int64_t i = 0; i < v.k; ++i) {
      float value = 0;
      int64_t flat = i * kPanel + lane;
      if (v.kind == WeightKind::f32) {
        value = reinterpret_cast<const float*>(panel)[flat];
      } else if (v.kind == WeightKind::f16) {
        value = to_float(reinterpret_cast<const f16*>(panel)[flat]);
      } else if (v.kind == WeightKind::bf16) {
        value = to_float(reinterpret_cast<const bf16*>(panel)[flat]);
      } else if (v.kind == WeightKind::int8) {
        int q = panel[(i / 4 * kPanel + lane) * 4 + i % 4];
        value = float(q - 128) * v.scales[c];
      } else {
        const uint8_t* block = panel + i / v.group * kPanel * (4 + v.group / 2);
        const f16* steps = reinterpret_cast<const f16*>(block);
        int64_t j = i % v.group;
        uint8_t byte = block[kPanel * 4 + (j / 8 * kPanel + lane) * 4 + j % 4];
        value = float(j % 8 < 4 ? byte & 15 : byte >> 4) * to_float(steps[lane]) +
                to_float(steps[kPanel + lane]);
      }
      out[row * v.k + i] = value;
    }
  }
}

WeightKind exact_kind(const std::vector<TensorView>& weights) {
  bool half = true, brain = true;
  for (const TensorView& w : weights) {
    if (w.dtype == DType::f16) brain = false;
    if (w.dtype == DType::bf16) half = false;
    if (w.dtype != DType::f32) continue;
    for (int64_t r = 0; r < w.size(0) && (half || brain); ++r)
      for (int64_t c = 0; c < w.size(1) && (half || brain); ++c) {
        float value = w.as<float>()[r * w.stride(0) + c * w.stride(1)];
        if (half) half = to_float(to_f16(value)) == value;
        if (brain) brain = to_float(to_bf16(value)) == value;
      }
  }
  return half ? WeightKind::f16 : brain ? WeightKind::bf16 : WeightKind::f32;
}

}  // namespace honed
