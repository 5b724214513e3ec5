// Copies of rows, the last state's after the final norm.
#include "engine/hidden.h"

#include <cstring>

#include "core/check.h"
#include "cpu/dispatch.h"
#include "ops/layer_norm.h"
#include "ops/rms_norm.h"

namespace honed::engine {

void HiddenStates::check(const Description& d, int64_t time) const {
  HONED_CHECK(keep > 0 && keep <= time, "Engine: hidden_keep is ", keep, ", expected 1 to ", time);
  for (int64_t i = 0; i < count; ++i)
    HONED_CHECK(states[i] >= 0 && states[i] <= d.num_layers, "Engine: hidden state ", states[i],
                ", expected 0 to ", d.num_layers);
}

void take_hidden(const HiddenStates& asked, const Model& model, const Crew& crew, int64_t state,
                 const float* x, int64_t batch, int64_t time) {
  const Description& d = model.description;
  const NormWeight& norm = model.final_norm;
  const float* bias = norm.bias.empty() ? nullptr : norm.bias.data();
  int64_t c = d.hidden_size;
  for (int64_t i = 0; i < asked.count; ++i) {
    if (asked.states[i] != state) continue;
    for (int64_t r = crew.begin(batch * time); r < crew.end(batch * time); ++r) {
      int64_t b = r / time, at = asked.start + r % time;
      if (at < 0) continue;
      const float* from = x + r * c;
      float* to = asked.out + ((i * batch + b) * asked.keep + at) * c;
      if (state < d.num_layers)
        std::memcpy(to, from, size_t(c) * sizeof(float));
      else if (d.norm == Norm::rms_norm)
        cpu::kernels().rms_norm(
            {from, norm.weight.data(), nullptr, to, 1, c, c, c, d.norm_eps, DType::f32}, 0, 1);
      else
        cpu::kernels().layer_norm(
            {from, norm.weight.data(), bias, to, 1, c, c, c, d.norm_eps, DType::f32}, 0, 1);
    }
  }
}

}  // namespace honed::engine
