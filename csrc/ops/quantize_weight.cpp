// quantize_weight: checks, sizes, then the CPU table.
#include "ops/quantize_weight.h"

#include <algorithm>
#include <atomic>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_grid.h"
#include "ops/_sizes.h"

namespace honed {

namespace {

int64_t panel_bytes_of(WeightKind kind, int64_t k_padded, int group) {
  switch (kind) {
    case WeightKind::f64:
      return k_padded * kPanel * 8;
    case WeightKind::f32:
      return k_padded * kPanel * 4;
    case WeightKind::f16:
      return k_padded * kPanel * 2;
    case WeightKind::bf16:
      return round_up(k_padded, 2) * kPanel * 2;
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

// Writes channel `lane` of a zeroed panel from the row of a weight. False where inputs from
// *failed on are on no such grid.
bool write_grid(const PackedView& v, const float* w, int64_t lane, uint8_t* panel,
                int64_t* failed) {
  bool four = v.kind == WeightKind::grid4;
  int64_t group_bytes = panel_bytes_of(v.kind, kGridGroup, kGridGroup);
  for (int64_t k = 0; k < v.k; k += kGridGroup, panel += group_bytes) {
    int count = int(std::min<int64_t>(kGridGroup, v.k - k));
    GridGroup group;
    *failed = k;
    if (!fit_grid(v.kind, w + k, count, &group)) return false;
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
  return true;
}

// A row of a weight as f32.
void read_row(const TensorView& w, int64_t row, float* out) {
  for (int64_t i = 0; i < w.size(1); ++i) out[i] = element(w, row * w.stride(0) + i * w.stride(1));
}

// `holds` of every `stride`-th row, until one does not.
template <class F>
bool every_row(const std::vector<TensorView>& weights, int64_t stride, F&& holds) {
  for (const TensorView& w : weights) {
    std::atomic<bool> all{true};
    parallel_for((w.size(0) + stride - 1) / stride, 16, [&](int64_t begin, int64_t end) {
      std::vector<float> row(size_t(w.size(1)));
      for (int64_t r = begin; r < end && all.load(std::memory_order_relaxed); ++r) {
        read_row(w, r * stride, row.data());
        if (!holds(row.data(), w.size(1))) all = false;
      }
    });
    if (!all) return false;
  }
  return true;
}

// Whether a few rows lie on the grid: nearly all weights that are on none are told here.
bool may_be_grid(const std::vector<TensorView>& weights, WeightKind kind) {
  constexpr int64_t kSampled = 16;
  int64_t most = 0;
  for (const TensorView& w : weights) most = std::max(most, w.size(0));
  return every_row(weights, most / kSampled + 1, [&](const float* row, int64_t count) {
    GridGroup group;
    for (int64_t k = 0; k < count; k += kGridGroup)
      if (!fit_grid(kind, row + k, int(std::min<int64_t>(kGridGroup, count - k)), &group))
        return false;
    return true;
  });
}

bool row_is_f16(const float* row, int64_t count) {
  return std::all_of(row, row + count, [](float x) { return to_float(to_f16(x)) == x; });
}

bool row_is_bf16(const float* row, int64_t count) {
  return std::all_of(row, row + count, [](float x) { return to_float(to_bf16(x)) == x; });
}

WeightKind float_kind(const std::vector<TensorView>& weights) {
  if (every_row(weights, 1, row_is_bf16)) return WeightKind::bf16;
  return every_row(weights, 1, row_is_f16) ? WeightKind::f16 : WeightKind::f32;
}

// A packed channel as the kernels multiply with it.
void unpack_channel(const PackedView& v, int64_t c, float* out) {
  const uint8_t* panel = v.data + c / kPanel * v.panel_bytes;
  const int64_t lane = c % kPanel;
  const float scale = v.scales ? v.scales[c] : 1.0f;
  for (int64_t i = 0; i < v.k; ++i) {
    int64_t flat = i * kPanel + lane;
    if (v.kind == WeightKind::f32) {
      out[i] = reinterpret_cast<const float*>(panel)[flat];
    } else if (v.kind == WeightKind::f16) {
      out[i] = to_float(reinterpret_cast<const f16*>(panel)[flat]);
    } else if (v.kind == WeightKind::bf16) {
      out[i] = to_float(reinterpret_cast<const Pair*>(panel)[i / 2 * kPanel + lane].of[i % 2]);
    } else if (v.kind == WeightKind::int8) {
      int q = panel[(i / 4 * kPanel + lane) * 4 + i % 4];
      out[i] = float(q - 128) * scale;
    } else if (v.kind == WeightKind::grid8) {
      const uint8_t* block = panel + i / v.group * kPanel * (2 + v.group);
      int q = block[kPanel * 2 + (i % v.group / 4 * kPanel + lane) * 4 + i % 4];
      out[i] = float(q - 128) * to_float(reinterpret_cast<const f16*>(block)[lane]);
    } else {
      const uint8_t* block = panel + i / v.group * kPanel * (4 + v.group / 2);
      const f16* steps = reinterpret_cast<const f16*>(block);
      int64_t j = i % v.group;
      uint8_t byte = block[kPanel * 4 + (j / 8 * kPanel + lane) * 4 + j % 4];
      float value = float(j % 8 < 4 ? byte & 15 : byte >> 4) * to_float(steps[lane]) +
                    to_float(steps[kPanel + lane]);
      out[i] = value * scale;
    }
  }
}

}  // namespace

PackedView packed_layout(WeightKind kind, const WeightOptions& options, int64_t n, int64_t k) {
  const bool quads = kind == WeightKind::int8 || kind == WeightKind::int4;
  const bool any = kind == WeightKind::int8;
  int group = is_grid(kind) ? kGridGroup : options.group;
  HONED_CHECK(
      group == 32 || group == 64 ||
          (any && (group == kWholeRow || (group > 0 && group % 32 == 0 && group <= kLongestGroup))),
      "linear: group is ", group, ", expected ",
      any ? "a multiple of 32 or the whole row" : "32 or 64");
  if (any && options.float_rows) group = 32;  // what is opened at a time
  PackedView view{};
  view.kind = kind;
  view.gated = options.gated;
  view.float_rows = options.float_rows && quads;
  view.group = group == kWholeRow ? kLongestGroup : group;
  view.n = n;
  view.k = view.k_padded = k;
  view.panels = round_up(n, kPanel) / kPanel * (options.gated ? 2 : 1);
  if (any && !options.float_rows)
    view.k_padded = round_up(k, 4);
  else if (quads || is_grid(kind))
    view.k_padded = round_up(k, group);
  view.panel_bytes = panel_bytes_of(kind, view.k_padded, group);
  return view;
}

PackedWeight::PackedWeight(const PackedView& view, std::shared_ptr<const void> owner)
    : view_(view), owner_(std::move(owner)) {}

PackedWeight::PackedWeight(const std::vector<TensorView>& weights,
                           const std::vector<TensorView>& biases, std::optional<WeightKind> kind,
                           const WeightOptions& options) {
  HONED_CHECK(!weights.empty() && weights.size() <= 8, "linear: ", weights.size(),
              " weights, expected 1 to 8");
  bool gated = options.gated;
  HONED_CHECK(!gated || (weights.size() == 2 && same_shape(weights[0], weights[1])),
              "linear: a gated weight takes two weights of one shape, got ", weights.size());
  int64_t n = 0;
  for (const TensorView& w : weights) {
    check_weight(w);
    HONED_CHECK(w.size(1) == weights[0].size(1), "linear: weights have ", weights[0].size(1),
                " and ", w.size(1), " inputs, expected one number");
    n += w.size(0);
  }
  const int64_t outputs = gated ? weights[0].size(0) : n, inputs = weights[0].size(1);
  for (WeightKind grid : {WeightKind::grid4, WeightKind::grid8}) {
    if (kind ? *kind != grid : !may_be_grid(weights, grid)) continue;
    allocate(grid, options, outputs, inputs);
    int64_t failed = pack_grid(weights);
    if (failed < 0) {
      pack_bias(weights, biases);
      return;
    }
    HONED_CHECK(!kind, "quantize_weight: inputs ", failed, " to ",
                std::min(failed + kGridGroup, view_.k) - 1, " of a channel lie on no ",
                name_of(grid), " grid, expected weights expanded from a quantised file");
  }
  allocate(kind ? *kind : float_kind(weights), options, outputs, inputs);
  pack(weights, options.importance);
  pack_bias(weights, biases);
}

void PackedWeight::allocate(WeightKind kind, const WeightOptions& options, int64_t n, int64_t k) {
  view_ = packed_layout(kind, options, n, k);
  data_ = allocate_packed(view_.panels * view_.panel_bytes);
  view_.data = data_.get();
  if (kind == WeightKind::int8 || kind == WeightKind::int4)
    scales_.assign(size_t(view_.panels * kPanel), 1.0f);
}

void PackedWeight::pack(const std::vector<TensorView>& weights, const TensorView* importance) {
  std::vector<QuantizeWeightArgs::Source> sources;
  for (const TensorView& w : weights)
    sources.push_back({w.data, w.size(0), w.stride(0), w.stride(1), w.dtype});
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
                          view_.kind,
                          view_.gated,
                          view_.group,
                          view_.k,
                          view_.k_padded,
                          view_.panel_bytes,
                          data_.get(),
                          scales_.data(),
                          importance ? weighed.data() : nullptr};
  cpu::run(cpu::kernels().quantize_weight, args, view_.panels, 1);
  if (std::all_of(scales_.begin(), scales_.end(), [](float s) { return s == 1.0f; })) scales_ = {};
  if (!scales_.empty()) view_.scales = scales_.data();
}

int64_t PackedWeight::pack_grid(const std::vector<TensorView>& weights) {
  std::atomic<int64_t> failed{-1};
  parallel_for(view_.panels, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> row(size_t(view_.k));
    for (int64_t panel = begin; panel < end; ++panel) {
      uint8_t* to = data_.get() + panel * view_.panel_bytes;
      std::fill_n(to, view_.panel_bytes, uint8_t{0});
      for (int64_t lane = 0; lane < kPanel; ++lane) {
        size_t s = view_.gated ? size_t(panel % 2) : 0;
        int64_t i = (view_.gated ? panel / 2 : panel) * kPanel + lane, at = 0;
        while (!view_.gated && s + 1 < weights.size() && i >= weights[s].size(0))
          i -= weights[s++].size(0);
        if (i >= weights[s].size(0)) break;
        read_row(weights[s], i, row.data());
        if (failed.load(std::memory_order_relaxed) >= 0) return;
        if (!write_grid(view_, row.data(), lane, to, &at)) failed = at;
      }
    }
  });
  return failed;
}

int64_t PackedWeight::packed_channel(int64_t weight, int64_t before, int64_t row) const {
  return view_.gated ? (row / kPanel * 2 + weight) * kPanel + row % kPanel : before + row;
}

void PackedWeight::pack_bias(const std::vector<TensorView>& weights,
                             const std::vector<TensorView>& biases) {
  if (biases.empty()) return;
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
  const int64_t rows = view_.gated ? 2 * view_.n : view_.n;
  parallel_for(rows, cpu::grain_for(view_.k * 4), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int64_t c = view_.gated ? packed_channel(row / view_.n, 0, row % view_.n) : row;
      unpack_channel(view_, c, out + row * view_.k);
    }
  });
}

}  // namespace honed
