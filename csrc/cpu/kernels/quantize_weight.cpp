// Weights into panels; int4 scales by search.
#include "ops/quantize_weight.h"

#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int kMaxGroup = 64;

// Inputs [k0, k0 + count) of a panel's 32 channels as f32 [k][channel], zeros where there are none.
void gather(const QuantizeWeightArgs& a, int64_t panel, int64_t k0, int count, float* out) {
  for (int c = 0; c < kPanel; ++c) {
    int s = a.gated ? int(panel % 2) : 0;
    int64_t row = a.gated ? panel / 2 * kPanel + c : panel * kPanel + c;
    if (!a.gated)
      for (; s + 1 < a.count && row >= a.sources[s].rows; ++s) row -= a.sources[s].rows;
    const QuantizeWeightArgs::Source& w = a.sources[s];
    bool there = row < w.rows;
    visit_float(w.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const T* p = static_cast<const T*>(w.data) + row * w.row_stride;
      for (int i = 0; i < count; ++i) {
        int64_t k = k0 + i;
        out[i * kPanel + c] = there && k < a.k ? scalar(p[k * w.col_stride]) : 0.0f;
      }
    });
  }
}

template <class T>
void pack_float(const QuantizeWeightArgs& a, int64_t panel) {
  T* to = reinterpret_cast<T*>(a.data + panel * a.panel_bytes);
  float block[kMaxGroup * kPanel];
  for (int64_t k = 0; k < a.k; k += kMaxGroup) {
    int count = int(a.k - k < kMaxGroup ? a.k - k : kMaxGroup);
    gather(a, panel, k, count, block);
    for (int i = 0; i < count * kPanel; i += kLanes) store(to + k * kPanel + i, load(block + i));
  }
}

void pack_pairs(const QuantizeWeightArgs& a, int64_t panel) {
  Pair* to = reinterpret_cast<Pair*>(a.data + panel * a.panel_bytes);
  float block[kMaxGroup * kPanel];
  for (int64_t k = 0; k < a.k; k += kMaxGroup) {
    int count = int(a.k - k < kMaxGroup ? a.k - k : kMaxGroup);
    gather(a, panel, k, count, block);
    for (int c = 0; count % 2 && c < kPanel; ++c) block[count * kPanel + c] = 0;
    for (int i = 0; i < count; i += 2)
      for (int c = 0; c < kPanel; c += kLanes) {
        bf16 even[kLanes], odd[kLanes];
        store(even, load(block + i * kPanel + c));
        store(odd, load(block + (i + 1) * kPanel + c));
        for (int j = 0; j < kLanes; ++j) to[(k + i) / 2 * kPanel + c + j] = {{even[j], odd[j]}};
      }
  }
}

int rounded(float x, int low, int high) {
  int q = int(__builtin_lrintf(x));
  return q < low ? low : q > high ? high : q;
}

// The largest magnitudes of a panel's channels; `odd` becomes NaN where one is NaN or infinite.
void find_largest(const QuantizeWeightArgs& a, int64_t panel, float* largest, float* odd) {
  float block[kMaxGroup * kPanel];
  for (int c = 0; c < kPanel; ++c) largest[c] = odd[c] = 0;
  for (int64_t k = 0; k < a.k; k += kMaxGroup) {
    int count = int(a.k - k < kMaxGroup ? a.k - k : kMaxGroup);
    gather(a, panel, k, count, block);
    for (int i = 0; i < count * kPanel; ++i) {
      float magnitude = __builtin_fabsf(block[i]);
      if (magnitude > largest[i % kPanel]) largest[i % kPanel] = magnitude;
      odd[i % kPanel] += block[i] - block[i];
    }
  }
}

void pack_int8(const QuantizeWeightArgs& a, int64_t panel) {
  uint8_t* to = a.data + panel * a.panel_bytes;
  float block[kMaxGroup * kPanel], largest[kPanel], odd[kPanel];
  find_largest(a, panel, largest, odd);
  auto count = [&](int64_t k) {
    return int(a.k_padded - k < kMaxGroup ? a.k_padded - k : kMaxGroup);
  };
  float inverse[kPanel];
  for (int c = 0; c < kPanel; ++c) {
    a.scales[panel * kPanel + c] = largest[c] / 127.0f + odd[c];
    inverse[c] = largest[c] > 0 ? 127.0f / largest[c] : 0.0f;
  }
  for (int64_t k = 0; k < a.k_padded; k += kMaxGroup) {
    gather(a, panel, k, count(k), block);
    for (int i = 0; i < count(k); ++i)
      for (int c = 0; c < kPanel; ++c)
        to[((k + i) / 4 * kPanel + c) * 4 + i % 4] =
            uint8_t(rounded(block[i * kPanel + c] * inverse[c], -127, 127) + 128);
  }
}

HONED_INLINE vf to_code(vf x, vf low, vf inverse) {
  return vmin(vmax(round_even((x - low) * inverse), zero()), set1(15.0f));  // NaN gives 0
}

// Step and low of one group's channels (QuantizeWeightArgs has the rule). weight: one an input.
void search_steps(const float* block, const float* weight, int group, float* steps, float* lows) {
  // The range may shrink by this part at either end: Gaussian weights win at about 0.05, weights
  // that come from a 4-bit grid at 0, where the fit is exact.
  const float kShrink[] = {0.0f, 0.015f, 0.03f, 0.05f, 0.07f, 0.09f, 0.12f};
  float all = 0;
  for (int i = 0; i < group; ++i) all += weight[i];
  const vf count = set1(all > 0 ? all : 1.0f);
  for (int c = 0; c < kPanel; c += kLanes) {
    vf least = load(block + c), most = least, sum_x = zero(), odd = zero();
    for (int i = 0; i < group; ++i) {
      vf x = load(block + i * kPanel + c);
      least = vmin(least, x);
      most = vmax(most, x);
      odd = odd + (x - x);  // NaN where a weight is NaN or infinite
      sum_x = fmadd(set1(weight[i]), x, sum_x);
    }
    vf mean = sum_x / count;
    vf best_step = (most - least) * set1(1.0f / 15.0f), best_low = least, best_gain = zero();
    for (float shrink : kShrink) {
      vf inset = (most - least) * set1(shrink);
      vf low = least + inset, step = (most - least - inset - inset) * set1(1.0f / 15.0f);
      vf inverse = select_less(zero(), step, set1(1.0f) / step, zero());
      vf sum_q = zero(), sum_qq = zero(), sum_qx = zero();
      for (int i = 0; i < group; ++i) {
        vf x = load(block + i * kPanel + c), q = to_code(x, low, inverse);
        vf weighed = q * set1(weight[i]);
        sum_q = sum_q + weighed;
        sum_qq = fmadd(q, weighed, sum_qq);
        sum_qx = fmadd(weighed, x - mean, sum_qx);
      }
      // Least squares of x on q: what it explains of the variance is its gain.
      vf spread = sum_qq - sum_q * sum_q / count;
      vf fitted = select_less(zero(), spread, sum_qx / spread, zero());
      vf gain = fitted * sum_qx;
      best_step = select_less(best_gain, gain, fitted, best_step);
      best_low = select_less(best_gain, gain, mean - fitted * sum_q / count, best_low);
      best_gain = vmax(best_gain, gain);
    }
    store(steps + c, best_step + odd);
    store(lows + c, best_low + odd);
  }
}

void pack_int4(const QuantizeWeightArgs& a, int64_t panel) {
  uint8_t* to = a.data + panel * a.panel_bytes;
  alignas(64) float block[kMaxGroup * kPanel], steps[2 * kPanel], codes[8 * kPanel];
  float alike[kMaxGroup];
  for (float& weight : alike) weight = 1.0f;
  float largest[kPanel], odd[kPanel], shrink[kPanel];
  find_largest(a, panel, largest, odd);
  for (int c = 0; c < kPanel; ++c) {
    bool within = largest[c] < 0x1p15f && largest[c] > 0x1p-10f;  // steps and lows are good f16
    if (!within && largest[c] > 0 && largest[c] <= 0x1.fffffep127f)
      a.scales[panel * kPanel + c] = __builtin_ldexpf(1.0f, __builtin_ilogbf(largest[c]));
    shrink[c] = 1.0f / a.scales[panel * kPanel + c];
  }
  for (int64_t k = 0; k < a.k_padded; k += a.group) {
    gather(a, panel, k, a.group, block);
    for (int i = 0; i < a.group * kPanel; ++i) block[i] *= shrink[i % kPanel];
    search_steps(block, a.importance ? a.importance + k : alike, a.group, steps, steps + kPanel);
    f16* stored = reinterpret_cast<f16*>(to);
    for (int c = 0; c < 2 * kPanel; c += kLanes) {
      store(stored + c, load(steps + c));
      store(steps + c, load(stored + c));  // round with step and low as stored
    }
    to += kPanel * 4;
    for (int i = 0; i < a.group; i += 8, to += kPanel * 4) {
      for (int c = 0; c < kPanel; c += kLanes) {
        vf step = load(steps + c), low = load(steps + kPanel + c);
        vf inverse = select_less(zero(), step, set1(1.0f) / step, zero());
        for (int j = 0; j < 8; ++j)
          store(codes + j * kPanel + c, to_code(load(block + (i + j) * kPanel + c), low, inverse));
      }
      for (int c = 0; c < kPanel; ++c)
        for (int j = 0; j < 4; ++j)
          to[c * 4 + j] =
              uint8_t(int(codes[j * kPanel + c]) | int(codes[(j + 4) * kPanel + c]) << 4);
    }
  }
}

}  // namespace

void quantize_weight(const QuantizeWeightArgs& a, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) switch (a.kind) {
      case WeightKind::f32:
        pack_float<float>(a, panel);
        break;
      case WeightKind::f16:
        pack_float<f16>(a, panel);
        break;
      case WeightKind::bf16:
        pack_pairs(a, panel);
        break;
      case WeightKind::int8:
        pack_int8(a, panel);
        break;
      case WeightKind::int4:
        pack_int4(a, panel);
        break;
      case WeightKind::grid4:
      case WeightKind::grid8:  // found, not rounded: the op writes them
      case WeightKind::f64:    // arranged for one product only
        break;
    }
}

HONED_END_LEVEL
