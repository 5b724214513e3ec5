// Weights into panels; int4 scales by search.
#include "cpu/visit.h"
#include "ops/linear.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int kMaxGroup = 64;

// Inputs [k0, k0 + count) of a panel's 32 channels as f32 [k][channel], zeros where there are none.
void gather(const LinearPackArgs& a, int64_t panel, int64_t k0, int count, float* out) {
  for (int c = 0; c < kPanel; ++c) {
    int s = a.gated ? int(panel % 2) : 0;
    int64_t row = a.gated ? panel / 2 * kPanel + c : panel * kPanel + c;
    if (!a.gated)
      for (; s + 1 < a.count && row >= a.sources[s].rows; ++s) row -= a.sources[s].rows;
    const LinearPackArgs::Source& w = a.sources[s];
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
void pack_float(const LinearPackArgs& a, int64_t panel) {
  T* to = reinterpret_cast<T*>(a.data + panel * a.panel_bytes);
  float block[kMaxGroup * kPanel];
  for (int64_t k = 0; k < a.k; k += kMaxGroup) {
    int count = int(a.k - k < kMaxGroup ? a.k - k : kMaxGroup);
    gather(a, panel, k, count, block);
    for (int i = 0; i < count * kPanel; i += kLanes) store(to + k * kPanel + i, load(block + i));
  }
}

int rounded(float x, int low, int high) {
  int q = int(__builtin_lrintf(x));
  return q < low ? low : q > high ? high : q;
}

void pack_int8(const LinearPackArgs& a, int64_t panel) {
  uint8_t* to = a.data + panel * a.panel_bytes;
  float block[kMaxGroup * kPanel];
  float largest[kPanel] = {};
  for (int64_t k = 0; k < a.k_padded; k += a.group) {
    gather(a, panel, k, a.group, block);
    for (int i = 0; i < a.group * kPanel; ++i) {
      float magnitude = __builtin_fabsf(block[i]);
      if (magnitude > largest[i % kPanel]) largest[i % kPanel] = magnitude;
    }
  }
  float inverse[kPanel];
  for (int c = 0; c < kPanel; ++c) {
    a.scales[panel * kPanel + c] = largest[c] / 127.0f;
    inverse[c] = largest[c] > 0 ? 127.0f / largest[c] : 0.0f;
  }
  for (int64_t k = 0; k < a.k_padded; k += a.group) {
    gather(a, panel, k, a.group, block);
    for (int i = 0; i < a.group; ++i)
      for (int c = 0; c < kPanel; ++c)
        to[((k + i) / 4 * kPanel + c) * 4 + i % 4] =
            uint8_t(rounded(block[i * kPanel + c] * inverse[c], -127, 127) + 128);
  }
}

// The scales of one group's channels: of some candidates around largest / 8, both signs, the one with
// the least squared error after its best refit to the integers it rounds to.
void search_scales(const float* block, int group, float* scales) {
  for (int c = 0; c < kPanel; c += kLanes) {
    vf largest = zero(), extreme = zero();  // extreme keeps the sign of the largest magnitude
    for (int i = 0; i < group; ++i) {
      vf x = load(block + i * kPanel + c);
      extreme = select_less(largest, vabs(x), x, extreme);
      largest = vmax(largest, vabs(x));
    }
    vf best_scale = zero(), best_gain = zero();
    constexpr int kCandidates = 16;
    for (int j = 0; j < kCandidates; ++j) {
      // -8 s = extreme at 8.0: divisors from 6.6 to 9.0, the range in which every winner was found.
      vf scale = extreme * set1(-1.0f / (6.6f + 0.16f * float(j)));
      vf inverse = select_less(zero(), largest, set1(1.0f) / scale, zero());
      vf xq = zero(), qq = zero();
      for (int i = 0; i < group; ++i) {
        vf x = load(block + i * kPanel + c);
        vf q = vmin(set1(7.0f), vmax(set1(-8.0f), round_even(x * inverse)));
        xq = fmadd(x, q, xq);
        qq = fmadd(q, q, qq);
      }
      // With the scale refitted to xq / qq the squared error is sum x^2 - xq^2 / qq.
      vf gain = select_less(zero(), qq, xq * xq / qq, zero());
      vf refit = select_less(zero(), qq, xq / qq, zero());
      best_scale = select_less(best_gain, gain, refit, best_scale);
      best_gain = vmax(best_gain, gain);
    }
    store(scales + c, best_scale);
  }
}

void pack_int4(const LinearPackArgs& a, int64_t panel) {
  uint8_t* to = a.data + panel * a.panel_bytes;
  float block[kMaxGroup * kPanel], scales[kPanel];
  for (int64_t k = 0; k < a.k_padded; k += a.group) {
    gather(a, panel, k, a.group, block);
    search_scales(block, a.group, scales);
    f16* stored = reinterpret_cast<f16*>(to);
    for (int c = 0; c < kPanel; c += kLanes) {
      store(stored + c, load(scales + c));
      store(scales + c, load(stored + c));  // round with the scale as stored
    }
    to += kPanel * 2;
    for (int i = 0; i < a.group; i += 8)
      for (int c = 0; c < kPanel; ++c)
        for (int j = 0; j < 4; ++j) {
          float inverse = scales[c] != 0 ? 1.0f / scales[c] : 0.0f;
          int low = rounded(block[(i + j) * kPanel + c] * inverse, -8, 7) + 8;
          int high = rounded(block[(i + j + 4) * kPanel + c] * inverse, -8, 7) + 8;
          to[(i / 8 * kPanel + c) * 4 + j] = uint8_t(low | high << 4);
        }
    to += a.group / 2 * kPanel;
  }
}

}  // namespace

void linear_pack(const LinearPackArgs& a, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) switch (a.kind) {
      case WeightKind::f32: pack_float<float>(a, panel); break;
      case WeightKind::f16: pack_float<f16>(a, panel); break;
      case WeightKind::bf16: pack_float<bf16>(a, panel); break;
      case WeightKind::int8: pack_int8(a, panel); break;
      case WeightKind::int4: pack_int4(a, panel); break;
    }
}

HONED_END_LEVEL
