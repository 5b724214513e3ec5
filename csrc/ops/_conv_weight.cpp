// Weights of convolutions made ready.
#include "ops/_conv_weight.h"

#include <algorithm>
#include <cmath>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/_depthwise.h"
#include "ops/_sizes.h"
#include "ops/_winograd.h"

namespace honed {

namespace {

template <class S>
void pad_groups(const TensorView& bias, int64_t groups, S* to) {
  const int64_t outputs = bias.size(0) / groups, padded = ceil_div(outputs, kPanel) * kPanel;
  std::fill_n(to, groups * padded, S(0));
  for (int64_t g = 0; g < groups; ++g)
    for (int64_t o = 0; o < outputs; ++o) {
      const int64_t at = (g * outputs + o) * bias.stride(0);
      to[g * padded + o] = S(bias.dtype == DType::f64 ? bias.as<double>()[at] : element(bias, at));
    }
}
}  // namespace

PackedView conv_panels(WeightKind kind, int64_t outputs, int64_t inputs) {
  PackedView w{};
  w.kind = kind;
  w.n = outputs;
  w.k = w.k_padded = inputs;
  w.panels = ceil_div(outputs, kPanel);
  w.panel_bytes = inputs * kPanel *
                  (kind == WeightKind::f64    ? 8
                   : kind == WeightKind::int8 ? 1
                                              : 4);
  return w;
}

int64_t conv_inputs(const TensorView& w) { return w.size(1) * w.size(2) * w.size(3) * w.size(4); }

void pack_conv_weight(const TensorView& w, int64_t groups, void* to) {
  ConvWeightArgs args{
      w.data, w.dtype, w.size(0) / groups, w.size(1), {}, w.stride(0), w.stride(1), {}, 0, to};
  for (int i = 0; i < 3; ++i) {
    args.kernel[i] = w.size(i + 2);
    args.k[i] = w.stride(i + 2);
  }
  args.panels = ceil_div(args.outputs, kPanel);
  cpu::run(cpu::kernels().conv_weight, args, groups * args.panels,
           cpu::grain_for(kPanel * conv_inputs(w) / 4));
}

int64_t padded_bias_bytes(int64_t outputs, int64_t groups, DType dtype) {
  return groups * ceil_div(outputs / groups, kPanel) * kPanel * size_of(sum_type(dtype));
}
void pad_bias(const TensorView& bias, int64_t groups, void* to) {
  if (bias.dtype == DType::f64)
    pad_groups(bias, groups, static_cast<double*>(to));
  else
    pad_groups(bias, groups, static_cast<float*>(to));
}

ConvWeight::ConvWeight(const TensorView& w, const TensorView* bias, int64_t groups, bool int8)
    : sizes_{w.size(0), w.size(1), {w.size(2), w.size(3), w.size(4)}, groups, sum_type(w.dtype)} {
  const int64_t outputs = w.size(0);
  HONED_CHECK_TYPE(is_real(w.dtype) && (!int8 || w.dtype != DType::f64), "conv: weight is ",
                   name_of(w.dtype), ", expected float32, float16 or bfloat16");
  HONED_CHECK(groups > 0 && outputs % groups == 0, "conv: weight has ", outputs,
              " output channels, expected a multiple of groups, ", groups);
  HONED_CHECK(!bias || (bias->ndim == 1 && bias->size(0) == outputs), "conv: bias has shape ",
              bias ? shape_of(*bias) : "", ", expected [", outputs, "]");
  const bool wide = sizes_.dtype == DType::f64;
  if (groups > 1 && w.size(1) == 1) {
    depthwise_ = allocate_packed(depthwise_weight_bytes(w));
    depthwise_weight(w, depthwise_.get());
  } else {
    panels_ = conv_panels(int8   ? WeightKind::int8
                          : wide ? WeightKind::f64
                                 : WeightKind::f32,
                          outputs / groups, conv_inputs(w));
    data_ = allocate_packed(groups * panels_.panels * panels_.panel_bytes);
    panels_.data = data_.get();
    if (int8)
      round(w);
    else
      pack_conv_weight(w, groups, data_.get());
  }
  if (!bias) return;
  padded_bias_ = allocate_packed(padded_bias_bytes(outputs, groups, sizes_.dtype));
  pad_bias(*bias, groups, padded_bias_.get());
  bias_ = allocate_packed(padded_bias_bytes(outputs, 1, sizes_.dtype));
  pad_bias(*bias, 1, bias_.get());
  bias_view_.data = bias_.get();
  bias_view_.ndim = 1;
  bias_view_.shape[0] = outputs;
  bias_view_.strides[0] = 1;
  bias_view_.dtype = sizes_.dtype;
}

void ConvWeight::round(const TensorView& w) {
  const int64_t count = sizes_.groups * panels_.panels, inputs = panels_.k;
  scales_ = allocate_packed(count * kPanel * 4);
  float* scales = reinterpret_cast<float*>(scales_.get());
  int8_t* rounded = reinterpret_cast<int8_t*>(data_.get());
  Scratch exact(count * inputs * kPanel * 4);
  pack_conv_weight(w, sizes_.groups, exact.as<void>());
  for (int64_t channel = 0; channel < count * kPanel; ++channel) {
    const int64_t at = channel / kPanel * inputs * kPanel + channel % kPanel;
    float largest = 0;
    for (int64_t i = 0; i < inputs; ++i)
      largest = std::max(largest, std::fabs(exact.as<float>()[at + i * kPanel]));
    scales[channel] = largest > 0 ? largest / 127 : 1;
    for (int64_t i = 0; i < inputs; ++i)
      rounded[at + i * kPanel] =
          int8_t(std::lrint(exact.as<float>()[at + i * kPanel] / scales[channel]));
  }
  panels_.scales = scales;
}

const float* ConvWeight::winograd(int tile) const {
  std::lock_guard lock(making_);
  std::shared_ptr<uint8_t[]>& form = winograd_[tile == 4];
  if (!form) {
    // The weight again out of its panels: (O, 9, C).
    const int64_t outputs = sizes_.outputs, channels = sizes_.channels;
    Scratch plain(outputs * 9 * channels * 4);
    const float* panels = reinterpret_cast<const float*>(data_.get());
    for (int64_t o = 0; o < outputs; ++o)
      for (int64_t i = 0; i < 9 * channels; ++i)
        plain.as<float>()[o * 9 * channels + i] =
            panels[(o / kPanel * 9 * channels + i) * kPanel + o % kPanel];
    TensorView w;
    w.data = plain.as<void>();
    w.ndim = 5;
    const int64_t shape[] = {outputs, channels, 1, 3, 3};
    const int64_t strides[] = {9 * channels, 1, 0, 3 * channels, channels};
    std::copy_n(shape, 5, w.shape);
    std::copy_n(strides, 5, w.strides);
    form = allocate_packed(winograd_weight_bytes(tile, outputs, channels));
    winograd_weight(tile, w, form.get());
  }
  return reinterpret_cast<const float*>(form.get());
}

int64_t ConvWeight::bytes() const {
  std::lock_guard lock(making_);
  const ConvWeightSizes& s = sizes_;
  int64_t bytes = s.groups * panels_.panels * panels_.panel_bytes;
  if (depthwise_) bytes += s.outputs * s.kernel[0] * s.kernel[1] * s.kernel[2] * size_of(s.dtype);
  for (int i = 0; i < 2; ++i)
    if (winograd_[i]) bytes += winograd_weight_bytes(i ? 4 : 2, s.outputs, s.channels);
  return bytes;
}

}  // namespace honed
