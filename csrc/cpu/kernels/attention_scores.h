// Blocks of attention scores, transposed: keys by query rows along the lanes. What is added to
// scores, which of them are hidden, and what dropout leaves of their weights.
#pragma once
#include "cpu/kernels/attention.h"
#include "cpu/simd/transpose.h"

HONED_BEGIN_LEVEL
namespace {

constexpr int kMaxRows = 64;  // of a block

// Scores of keys k0 to k0 + keys: key k0 + k of row r is at data[k * ld + r]. Functions below do
// vectors v0 to v1 of the rows.
struct Scores {
  float* data;
  int64_t ld, k0;
  int keys, v0, v1;

  HONED_INLINE float* at(int k, int v) const { return data + k * ld + v * kLanes; }

  template <class F>
  HONED_INLINE void each(F&& body) const {  // body(vector, where)
    for (int v = v0; v < v1; ++v)
      for (int k = 0; k < keys; ++k) body(v, k, at(k, v));
  }
};

// Up to kMaxRows query rows of the heads that share key head g, side by side: row r is query
// query_of(r) of head head_of(r). Rows past count, up to a whole vector, repeat the last one.
class QueryRows {
 public:
  QueryRows(const AttentionArgs& args, const Span& span, int64_t g, int64_t row0, int64_t most)
      : a(args), span(span) {
    int64_t group = a.heads / a.kv_heads, t = row0 / group, h = row0 % group;
    count = int(smaller(most, group * span.q_len - row0));
    vecs = (count + kLanes - 1) / kLanes;
    for (int r = 0; r < vecs * kLanes; ++r) {
      head_[r] = g * group + h;
      query_[r] = t;
      if (r < count - 1 && ++h == group) h = 0, ++t;
      if (a.mask.data) mask_at_[r] = offset_of(a.mask, r);
      if (a.bias.data) bias_at_[r] = offset_of(a.bias, r);
      if (a.alibi) slope_[r] = a.alibi[span.b * a.alibi_stride[0] + head_[r] * a.alibi_stride[1]];
      if (a.dropout != 0.0f) {
        uint64_t key = dropout_key(a, span, head_[r], query_[r]);
        key_low_[r] = uint32_t(key), key_high_[r] = uint32_t(key >> 32);
      }
    }
  }

  int64_t head_of(int r) const { return head_[r]; }
  int64_t query_of(int r) const { return query_[r]; }

  // The keys that some row of vectors v0 to v1 sees, masks aside; all of them see what lies
  // between `from` of the last row and `to` of the first.
  int64_t first_seen(int v0) const { return first_key(a, span, query_[v0 * kLanes]); }
  int64_t end_seen(int v1) const { return end_key(a, span, query_[v1 * kLanes - 1]); }

  // True where no row sees one of these keys, as far as masks say so quickly.
  bool hidden(int64_t k0, int keys) const {
    if (a.key_mask && none_of(a.key_mask + span.b * a.key_mask_stride + k0, keys)) return true;
    if (!a.mask.data || a.mask.dtype != DType::boolean || a.mask.stride[3] != 1) return false;
    for (int r = 0; r < count; ++r)
      if (!none_of(static_cast<const uint8_t*>(a.mask.data) + mask_at_[r] + k0, keys)) return false;
    return true;
  }

  // True where scores are changed before the softmax by more than hiding keys.
  bool changes() const { return a.softcap != 0.0f || a.alibi || adds(a.mask) || adds(a.bias); }

  // Asks for what part `part` of `parts` of the rows will add to the keys' scores, for the second
  // cache: rows of a mask lie too far apart for the processor to see them coming.
  void prefetch(int64_t k0, int64_t keys, int part, int parts) const {
    prefetch(a.mask, mask_at_, k0, keys, count * part / parts, count * (part + 1) / parts);
    prefetch(a.bias, bias_at_, k0, keys, count * part / parts, count * (part + 1) / parts);
  }

  // Products to what the softmax takes.
  void finish(const Scores& s, float scale) const {
    if (a.softcap != 0.0f) cap(s, scale), scale = 1.0f;
    add_and_hide(s, scale);
  }

  // softcap(scale * product)
  void cap(const Scores& s, float scale) const {
    vf by = set1(scale), to = set1(a.softcap), from = set1(scale / a.softcap);
    if (a.softcap != 0.0f)
      s.each([&](int, int, float* p) { store(p, to * vtanh(load(p) * from)); });
    else if (scale != 1.0f)
      s.each([&](int, int, float* p) { store(p, load(p) * by); });
  }

  // scale * score + mask + bias - slope * distance, -infinity where hidden. The first that adds
  // something scales.
  void add_and_hide(const Scores& s, float scale = 1.0f) const {
    if (a.alibi) add_positions(s, scale), scale = 1.0f;
    if (adds(a.mask)) add(a.mask, mask_at_, s, scale), scale = 1.0f;
    if (adds(a.bias)) add(a.bias, bias_at_, s, scale), scale = 1.0f;
    if (scale != 1.0f) s.each([&](int, int, float* p) { store(p, load(p) * set1(scale)); });
    if (a.mask.data && a.mask.dtype == DType::boolean) hide_masked(s);
    hide(s);
  }

  // Keys that the key mask or the window hides.
  void hide(const Scores& s) const {
    if (a.key_mask) {
      const uint8_t* seen = a.key_mask + span.b * a.key_mask_stride + s.k0;
      if (!all_of(seen, s.keys)) hide_keys(seen, 1, s);
    }
    for (int v = s.v0; v < s.v1; ++v) {
      int64_t first = query_[v * kLanes], last = query_[v * kLanes + kLanes - 1];
      if (first_key(a, span, last) <= s.k0 && end_key(a, span, first) >= s.k0 + s.keys) continue;
      alignas(64) float from[kLanes], to[kLanes];  // keys of this block that a row sees
      for (int i = 0; i < kLanes; ++i) {
        int64_t t = query_[v * kLanes + i];
        from[i] = float(first_key(a, span, t) - s.k0) - 0.5f;
        to[i] = float(end_key(a, span, t) - s.k0);
      }
      for (int k = 0; k < s.keys; ++k) {
        vf key = set1(float(k)), hidden = set1(kMinusInf);
        vf kept = select_less(load(from), key, load(s.at(k, v)), hidden);
        store(s.at(k, v), select_less(key, load(to), kept, hidden));
      }
    }
  }

  // drop(x, s) of vector v: x, of weights (or their gradients) of key s, times keep: 0 where dropped,
  // not yet divided by 1 - p.
  auto dropping(int v) const {
    vu low = load_bits32(key_low_ + v * kLanes), high = load_bits32(key_high_ + v * kLanes);
    vu threshold = all_bits(drop_threshold_of(a.dropout));
    return [=](vf x, int64_t s) {
      return keep(x, random_columns(low, high, all_bits(uint32_t(s))), threshold);
    };
  }
  void drop(const Scores& s) const {
    for (int v = s.v0; v < s.v1; ++v) {
      auto drop = dropping(v);
      for (int k = 0; k < s.keys; ++k) store(s.at(k, v), drop(load(s.at(k, v)), s.k0 + k));
    }
  }

  const AttentionArgs& a;
  const Span span;
  int count, vecs;

 private:
  int64_t offset_of(const AttentionMask& mask, int r) const {
    return span.b * mask.stride[0] + head_[r] * mask.stride[1] + query_[r] * mask.stride[2];
  }

  static void prefetch(const AttentionMask& mask, const int64_t* at, int64_t k0, int64_t keys,
                       int first, int end) {
    if (!mask.data || mask.stride[3] != 1) return;
    int64_t bytes = mask.dtype == DType::boolean ? 1 : bytes_of(mask.dtype);
    for (int r = first; r < end; ++r) {
      if (r && at[r] == at[r - 1]) continue;
      const char* row = static_cast<const char*>(mask.data) + (at[r] + k0) * bytes;
      for (int64_t i = 0; i < keys * bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
    }
  }

  // True where all rows of the vectors have one row of the mask.
  bool same_rows(const int64_t* at, const Scores& s) const {
    for (int r = s.v0 * kLanes + 1; r < s.v1 * kLanes; ++r)
      if (at[r] != at[s.v0 * kLanes]) return false;
    return true;
  }

  void hide_keys(const uint8_t* seen, int64_t step, const Scores& s) const {
    for (int k = 0; k < s.keys; ++k)
      if (!seen[k * step])
        for (int v = s.v0; v < s.v1; ++v) store(s.at(k, v), set1(kMinusInf));
  }

  static bool adds(const AttentionMask& mask) { return mask.data && mask.dtype != DType::boolean; }

  void add_positions(const Scores& s, float scale) const {
    for (int v = s.v0; v < s.v1; ++v) {
      alignas(64) float ahead[kLanes];  // of key k0
      for (int i = 0; i < kLanes; ++i)
        ahead[i] = float(query_[v * kLanes + i] + span.offset - s.k0);
      vf distance = load(ahead), slope = zero() - load(slope_ + v * kLanes), by = set1(scale);
      for (int k = 0; k < s.keys; ++k, distance = distance - set1(1.0f))
        store(s.at(k, v), fmadd(slope, vabs(distance), load(s.at(k, v)) * by));
    }
  }

  void add(const AttentionMask& mask, const int64_t* at, const Scores& s, float scale) const {
    visit_float(mask.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const auto* values = static_cast<const T*>(mask.data) + s.k0 * mask.stride[3];
      if (!same_rows(at, s)) return add_tiles(values, mask.stride[3], at, s, scale);
      s.each([&](int, int k, float* p) {
        vf value = set1(scalar(values[at[s.v0 * kLanes] + k * mask.stride[3]]));
        store(p, fmadd(load(p), set1(scale), value));
      });
    });
  }

  // The rows, which lie along the keys, are turned, a square of vectors at a time.
  template <class T>
  void add_tiles(const T* values, int64_t step, const int64_t* at, const Scores& s,
                 float scale) const {
    vf by = set1(scale);
    for (int v = s.v0; v < s.v1; ++v)
      for (int k = 0; k < s.keys; k += kLanes) {
        int n = int(smaller(kLanes, s.keys - k));
        vf tile[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          const T* row = values + at[v * kLanes + i] + k * step;
          tile[i] = step == 1 ? load(row, n) : gather(row, step, n);
        }
        transpose(tile);
        for (int j = 0; j < n; ++j) store(s.at(k + j, v), fmadd(load(s.at(k + j, v)), by, tile[j]));
      }
  }

  void hide_masked(const Scores& s) const {
    int64_t step = a.mask.stride[3];
    const auto* seen = static_cast<const uint8_t*>(a.mask.data) + s.k0 * step;
    if (same_rows(mask_at_, s))
      hide_keys(seen + mask_at_[s.v0 * kLanes], step, s);
    else
      hide_tiles(seen, step, mask_at_, s);
  }

  // 32 keys at a time: a row's bytes become bits, and each key takes the uppermost of all rows.
  void hide_tiles(const uint8_t* seen, int64_t step, const int64_t* at, const Scores& s) const {
    for (int v = s.v0; v < s.v1; ++v)
      for (int k = 0; k < s.keys; k += 32) {
        int n = int(smaller(32, s.keys - k));
        alignas(64) uint32_t words[kLanes];
        uint32_t all = ~0u;
        for (int i = 0; i < kLanes; ++i) {
          words[i] = bits_of_bytes(seen + at[v * kLanes + i] + k * step, step, n);
          all &= words[i];
        }
        if (all == ~0u) continue;
        vu bits = load_bits32(words);
        for (int j = n - 1; j >= 0; --j, bits <<= 1)
          store(s.at(k + j, v), select_sign(bits, load(s.at(k + j, v)), set1(kMinusInf)));
      }
  }
  // Bit 31 - n + 1 + j: byte j is not 0; bits below are 1.
  HONED_INLINE static uint32_t bits_of_bytes(const uint8_t* p, int64_t step, int n) {
    alignas(32) uint8_t copy[32];
    if (step != 1 || n != 32) {
      __builtin_memset(copy, 1, 32);
      for (int j = 0; j < n; ++j) copy[32 - n + j] = p[j * step];
      p = copy;
    }
    auto half = [&](int from) {
      __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + from));
      return uint32_t(_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_setzero_si128())));
    };
    return ~(half(0) | half(16) << 16);
  }
  // x where the uppermost bit is set, else y
  HONED_INLINE static vf select_sign(vu bits, vf x, vf y) {
#if defined(__AVX512F__)
    return _mm512_mask_blend_ps(_mm512_movepi32_mask((__m512i)bits), y, x);
#elif defined(__AVX2__)
    return _mm256_blendv_ps(y, x, (vf)bits);
#else
    return select(_mm_srai_epi32((vi)bits, 31), x, y);
#endif
  }

  template <class T>
  HONED_INLINE static vf gather(const T* row, int64_t step, int n) {
    alignas(64) float lanes[kLanes] = {};
    for (int j = 0; j < n; ++j) lanes[j] = scalar(row[j * step]);
    return load(lanes);
  }
  int64_t head_[kMaxRows], query_[kMaxRows], mask_at_[kMaxRows], bias_at_[kMaxRows];
  alignas(64) float slope_[kMaxRows];
  alignas(64) uint32_t key_low_[kMaxRows], key_high_[kMaxRows];
};

}  // namespace
HONED_END_LEVEL
