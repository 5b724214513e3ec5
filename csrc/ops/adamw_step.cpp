// adamw_step: checks, then the CPU table.
#include "ops/adamw_step.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

namespace {

// Every element once, in memory without gaps.
bool dense(const TensorView& t) {
  const int64_t total = t.numel();
  for (int64_t step = 1; step < total;) {  // the dimension of that stride leads to the next
    int d = 0;
    while (d < t.ndim && (t.shape[d] == 1 || t.strides[d] != step)) ++d;
    if (d == t.ndim) return false;
    step *= t.shape[d];
  }
  return true;
}

bool same_layout(const TensorView& a, const TensorView& b) {
  if (!same_shape(a, b)) return false;
  for (int d = 0; d < a.ndim; ++d)
    if (a.shape[d] > 1 && a.strides[d] != b.strides[d]) return false;
  return true;
}

// `wide`: f32 stands beside a 16-bit parameter.
void check_beside(const char* what, size_t i, const TensorView& t, const TensorView& param,
                  bool wide, bool written) {
  HONED_CHECK_TYPE(
      t.dtype == param.dtype || (wide && t.dtype == DType::f32 && is_float(param.dtype)),
      "adamw_step: ", what, " ", i, " is ", name_of(t.dtype), " beside a parameter of ",
      name_of(param.dtype), ", expected that type", wide ? " or float32 for a narrower one" : "");
  HONED_CHECK(same_layout(t, param) || t.numel() + param.numel() == 0, "adamw_step: ", what, " ", i,
              " has shape ", shape_of(t), " and its parameter ", shape_of(param),
              ", expected equal shapes and strides");
  HONED_CHECK(!written || !t.readonly, "adamw_step: ", what, " ", i,
              " is read-only, expected memory that can be written");
}

struct Extent {
  const char *begin, *end;
  bool written;
};

void check_apart(std::vector<Extent>& extents) {
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  const char *read_to = nullptr, *written_to = nullptr;
  for (const Extent& e : extents) {
    HONED_CHECK(e.begin >= written_to && (!e.written || e.begin >= read_to),
                "adamw_step: two of the tensors overlap in memory, expected each its own");
    (e.written ? written_to : read_to) = std::max(e.written ? written_to : read_to, e.end);
  }
}

void check(std::span<const AdamwParameter> parameters, const AdamwOptions& o) {
  HONED_CHECK(o.lr >= 0 && o.eps >= 0 && o.weight_decay >= 0, "adamw_step: lr is ", o.lr, ", eps ",
              o.eps, " and weight_decay ", o.weight_decay, ", expected none below 0");
  HONED_CHECK(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1, "adamw_step: betas are ",
              o.beta1, " and ", o.beta2, ", expected at least 0 and less than 1");
  std::vector<Extent> extents;
  extents.reserve(parameters.size() * 5);
  for (size_t i = 0; i < parameters.size(); ++i) {
    const AdamwParameter& p = parameters[i];
    HONED_CHECK_TYPE(is_real(p.param.dtype), "adamw_step: parameter ", i, " is ",
                     name_of(p.param.dtype), ", expected float64, float32, float16 or bfloat16");
    HONED_CHECK(!p.param.readonly, "adamw_step: parameter ", i,
                " is read-only, expected memory that can be written");
    HONED_CHECK(dense(p.param), "adamw_step: parameter ", i, " of shape ", shape_of(p.param),
                " has gaps or repeats in memory, expected it dense");
    HONED_CHECK(p.step >= 1, "adamw_step: step ", i, " is ", p.step,
                ", expected the number of this step, from 1 on");
    check_beside("gradient", i, p.grad, p.param, true, false);
    check_beside("exp_avg", i, p.exp_avg, p.param, true, true);
    check_beside("exp_avg_sq", i, p.exp_avg_sq, p.exp_avg, false, true);
    if (p.max_exp_avg_sq)
      check_beside("max_exp_avg_sq", i, *p.max_exp_avg_sq, p.exp_avg, false, true);
    if (p.master) {
      check_beside("master", i, *p.master, p.param, true, true);
      HONED_CHECK_TYPE(p.master->dtype == DType::f32 && size_of(p.param.dtype) == 2,
                       "adamw_step: master ", i, " is ", name_of(p.master->dtype),
                       " beside a parameter of ", name_of(p.param.dtype),
                       ", expected float32 beside float16 or bfloat16");
    }
    auto extend = [&](const TensorView& t, bool written) {
      const char* begin = t.as<char>();
      if (t.numel()) extents.push_back({begin, begin + t.numel() * size_of(t.dtype), written});
    };
    extend(p.grad, false);
    for (const TensorView* t : {&p.param, &p.exp_avg, &p.exp_avg_sq, p.max_exp_avg_sq, p.master})
      if (t) extend(*t, true);
  }
  check_apart(extents);
}

}  // namespace

void adamw_step(std::span<const AdamwParameter> parameters, const AdamwOptions& o) {
  check(parameters, o);
  std::vector<AdamwTensor> tensors;
  tensors.reserve(parameters.size());
  int64_t items = 0;
  for (const AdamwParameter& p : parameters) {
    const int64_t count = p.param.numel();
    if (!count) continue;
    tensors.push_back({p.param.data, p.grad.data, p.exp_avg.data, p.exp_avg_sq.data,
                       p.max_exp_avg_sq ? p.max_exp_avg_sq->data : nullptr,
                       p.master ? p.master->as<float>() : nullptr, count, items,
                       o.lr / (1 - std::pow(o.beta1, p.step)),
                       std::sqrt(1 - std::pow(o.beta2, p.step)), p.param.dtype, p.grad.dtype,
                       p.exp_avg.dtype});
    items += (count + kAdamwBlock - 1) / kAdamwBlock;
  }
  AdamwStepArgs args{tensors.data(), int64_t(tensors.size()),   o.beta1,      o.beta2,
                     o.eps,          1 - o.lr * o.weight_decay, o.grad_scale, o.maximize};
  cpu::run(cpu::kernels().adamw_step, args, items, cpu::grain_for(kAdamwBlock / 2));
}

}  // namespace honed
