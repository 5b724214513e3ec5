// quantize_weight: checks, sizes, then the CPU table.
#include "ops/quantize_weight.h"

#include <algorithm>
#include <atomic>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_grid.h"

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
    case WeightKind::grid4:
      return k_padded / group * kPanel * (4 + group / 2);
    case WeightKind::grid8:
      return k_padded / group * kPanel * (2 + group);
  }
  return 0;
}

void check_weight(const TensorView& w) {
  HONED_CHECK(w.ndim == 2, "linear: weight has shape ", shape_of(w), ", expected (N, K)");
  HONED_CHECK_TYPE(is_float(w.dtype), "linear: weight is ", name_of(w.dtype),
                   ", expected float32, float16 or bfloat16");
  HONED_CHECK(w.device == Device::cpu, "linear: weight is on a CUDA device, expected the CPU");
}

bool is_grid(WeightKind kind) { return kind == WeightKind::grid4 || kind == WeightKind::grid8; }

// Channel `lane` of a panel, from the row of a weight.
void write_grid(const PackedView& v, const float* w, int64_t lane, uint8_t* panel) {
  bool four = v.kind == WeightKind::grid4;
  int64_t group_bytes = panel_bytes_of(v.kind, kGridGroup, kGridGroup);
  for (int64_t k = 0; k < v.k; k += kGridGroup, panel += group_bytes) {
    int count = int(std::min<int64_t>(kGridGroup, v.k - k));
    GridGroup group;
    HONED_CHECK(four ? fit_grid4(w + k, count, &group) : fit_grid8(w + k, count, &group),
                "quantize_weight: inputs ", k, " to ", k + count - 1, " of a channel lie on no ",
                name_of(v.kind), " grid, expected weights expanded from a quantised file");
    f16* steps = reinterpret_cast<f16*>(panel);
    steps[lane] = group.step;
    if (four) steps[kPanel + lane] = group.low;
    uint8_t* codes = panel + kPanel * (four ? 4 : 2);
    for (int i = 0; i < count; ++i)
      if (four)
        codes[(i / 8 * kPanel + lane) * 4 + i % 4] |=
            uint8_t(group.codes[i] << (i % 8 < 4 ? 0 : 4));
      else
        codes[(i / 4 * kPanel + lane) * 4 + i % 4] = uint8_t(group.codes[i] + 128);
  }
}

// A row of a weight as f32.
void read_row(const TensorView& w, int64_t row, float* out) {
  for (int64_t i = 0; i < w.size(1); ++i) out[i] = element(w, row * w.stride(0) + i * w.stride(1));
}

bool every_row(const std::vector<TensorView>& weights, bool (*holds)(const float*, int64_t)) {
  for (const TensorView& w : weights) {
    std::atomic<bool> all{true};
    parallel_for(w.size(0), 16, [&](int64_t begin, int64_t end) {
      std::vector<float> row(size_t(w.size(1)));
      for (int64_t r = begin; r < end && all.load(std::memory_order_relaxed); ++r) {
        read_row(w, r, row.data());
        if (!holds(row.data(), w.size(1))) all = false;
      }
    });
    if (!all) return false;
  }
  return true;
}

template <bool (*fit)(const float*, int, GridGroup*)>
bool row_on_grid(const float* row, int64_t count) {
  GridGroup group;
  for (int64_t k = 0; k < count; k += kGridGroup)
    if (!fit(row + k, int(std::min<int64_t>(kGridGroup, count - k)), &group)) return false;
  return true;
}

bool row_is_f16(const float* row, int64_t count) {
  return std::all_of(row, row + count, [](float x) { return to_float(to_f16(x)) == x; });
}

bool row_is_bf16(const float* row, int64_t count) {
  return std::all_of(row, row + count, [](float x) { return to_float(to_bf16(x)) == x; });
}

}  // namespace

PackedView packed_layout(WeightKind kind, int group, bool gated, int64_t n, int64_t k) {
  HONED_CHECK(group == 32 || group == 64, "linear: group is ", group, ", expected 32 or 64");
  PackedView view{};
  view.kind = kind;
  view.gated = gated;
  view.group = is_grid(kind) ? kGridGroup : group;
  view.n = n;
  view.k = k;
  view.panels = round_up(n, kPanel) / kPanel * (gated ? 2 : 1);
  view.k_padded = is_integer(kind) || is_grid(kind) ? round_up(k, view.group) : k;
  view.panel_bytes = panel_bytes_of(kind, view.k_padded, view.group);
  return view;
}

PackedWeight::PackedWeight(const PackedView& view, std::shared_ptr<const void> owner)
    : view_(view), owner_(std::move(owner)) {}

PackedWeight::PackedWeight(const std::vector<TensorView>& weights,
                           const std::vector<TensorView>& biases, WeightKind kind, int group,
                           bool gated, const TensorView* importance) {
  HONED_CHECK(!weights.empty() && weights.size() <= 8, "linear: ", weights.size(),
              " weights, expected 1 to 8");
  HONED_CHECK(!gated || (weights.size() == 2 && same_shape(weights[0], weights[1])),
              "linear: a gated weight takes two weights of one shape, got ", weights.size());
  std::vector<QuantizeWeightArgs::Source> sources;
  int64_t n = 0;
  for (const TensorView& w : weights) {
    check_weight(w);
    HONED_CHECK(w.size(1) == weights[0].size(1), "linear: weights have ", weights[0].size(1),
                " and ", w.size(1), " inputs, expected one number");
    sources.push_back({w.data, w.size(0), w.stride(0), w.stride(1), w.dtype});
    n += w.size(0);
  }
  view_ = packed_layout(kind, group, gated, gated ? weights[0].size(0) : n, weights[0].size(1));
  data_ = allocate_packed(view_.panels * view_.panel_bytes);
  view_.data = data_.get();
  if (kind == WeightKind::int8) {
    scales_.resize(size_t(view_.panels * kPanel));
    view_.scales = scales_.data();
  }
  if (is_grid(kind)) {
    pack_grid(weights);
    if (!biases.empty()) pack_bias(weights, biases);
    return;
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
                          view_.group,
                          view_.k,
                          view_.k_padded,
                          view_.panel_bytes,
                          data_.get(),
                          scales_.data(),
                          importance ? weighed.data() : nullptr};
  cpu::run(cpu::kernels().quantize_weight, args, view_.panels, 1);
  if (!biases.empty()) pack_bias(weights, biases);
}

void PackedWeight::pack_grid(const std::vector<TensorView>& weights) {
  std::fill_n(data_.get(), view_.panels * view_.panel_bytes, uint8_t{0});
  int64_t before = 0;
  std::vector<float> row(size_t(view_.k));
  for (size_t s = 0; s < weights.size(); ++s) {
    for (int64_t i = 0; i < weights[s].size(0); ++i) {
      read_row(weights[s], i, row.data());
      int64_t c = packed_channel(int64_t(s), before, i);
      write_grid(view_, row.data(), c % kPanel, data_.get() + c / kPanel * view_.panel_bytes);
    }
    before += weights[s].size(0);
  }
}

int64_t PackedWeight::packed_channel(int64_t weight, int64_t before, int64_t row) const {
  return view_.gated ? (row / kPanel * 2 + weight) * kPanel + row % kPanel : before + row;
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
      bias_[size_t(packed_channel(int64_t(s), before, i))] = element(b, i * b.stride(0));
    }
    before += rows;
  }
  view_.bias = bias_.data();
}

int64_t PackedWeight::bytes() const {
  int64_t rows = (view_.scales ? 1 : 0) + (view_.bias ? 1 : 0);
  return view_.panels * (view_.panel_bytes + rows * kPanel * 4);
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
      } else if (v.kind == WeightKind::grid8) {
        const uint8_t* block = panel + i / v.group * kPanel * (2 + v.group);
        int q = block[kPanel * 2 + (i % v.group / 4 * kPanel + lane) * 4 + i % 4];
        value = float(q - 128) * to_float(reinterpret_cast<const f16*>(block)[lane]);
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
  for (const TensorView& w : weights) check_weight(w);
  if (every_row(weights, row_on_grid<fit_grid4>)) return WeightKind::grid4;
  if (every_row(weights, row_on_grid<fit_grid8>)) return WeightKind::grid8;
  if (every_row(weights, row_is_bf16)) return WeightKind::bf16;
  return every_row(weights, row_is_f16) ? WeightKind::f16 : WeightKind::f32;
}

}  // namespace honed
