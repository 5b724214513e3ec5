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
  bool changes() const {
    return a.softcap != 0.0f || a.alibi || a.bias.data ||
           (a.mask.data && a.mask.dtype != DType::boolean);
  }

  // Products to what the softmax takes.
  void finish(const Scores& s, float scale) const {
    cap(s, scale);
    add_and_hide(s);
  }

  // Capped scores to what the softmax takes.
  void add_and_hide(const Scores& s) const {
    add_positions(s);
    if (a.mask.data) add(a.mask, mask_at_, s);
    if (a.bias.data) add(a.bias, bias_at_, s);
    hide(s);
  }

  // softcap(scale * product)
  void cap(const Scores& s, float scale) const {
    vf by = set1(scale);
    if (a.softcap != 0.0f) {
      vf to = set1(a.softcap), from = set1(scale / a.softcap);
      s.each([&](int, int, float* p) { store(p, to * vtanh(load(p) * from)); });
    } else if (scale != 1.0f) {
      s.each([&](int, int, float* p) { store(p, load(p) * by); });
    }
  }

  // ALiBi
  void add_positions(const Scores& s) const {
    if (!a.alibi) return;
    for (int v = s.v0; v < s.v1; ++v) {
      alignas(64) float ahead[kLanes];  // of key k0
      for (int i = 0; i < kLanes; ++i)
        ahead[i] = float(query_[v * kLanes + i] + span.offset - s.k0);
      vf distance = load(ahead), slope = zero() - load(slope_ + v * kLanes);
      for (int k = 0; k < s.keys; ++k, distance = distance - set1(1.0f))
        store(s.at(k, v), fmadd(slope, vabs(distance), load(s.at(k, v))));
    }
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

  // Weights (or their gradients) times keep: 0 where dropped, not yet divided by 1 - p.
  void drop(const Scores& s) const {
    vu threshold = all_bits(drop_threshold_of(a.dropout));
    for (int v = s.v0; v < s.v1; ++v) {
      vu low = load_bits32(key_low_ + v * kLanes), high = load_bits32(key_high_ + v * kLanes);
      for (int k = 0; k < s.keys; ++k) {
        vu bits = random_columns(low, high, all_bits(uint32_t(s.k0 + k)));
        store(s.at(k, v), keep(load(s.at(k, v)), bits, threshold));
      }
    }
  }

  const AttentionArgs& a;
  const Span span;
  int count, vecs;

 private:
  int64_t offset_of(const AttentionMask& mask, int r) const {
    return span.b * mask.stride[0] + head_[r] * mask.stride[1] + query_[r] * mask.stride[2];
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

  void add(const AttentionMask& mask, const int64_t* at, const Scores& s) const {
    bool same = same_rows(at, s);
    if (mask.dtype == DType::boolean) {
      const auto* seen = static_cast<const uint8_t*>(mask.data) + s.k0 * mask.stride[3];
      if (same)
        hide_keys(seen + at[s.v0 * kLanes], mask.stride[3], s);
      else
        hide_tiles(seen, mask.stride[3], at, s);
      return;
    }
    visit_float(mask.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      const auto* values = static_cast<const T*>(mask.data) + s.k0 * mask.stride[3];
      if (same)
        s.each([&](int, int k, float* p) {
          store(p, load(p) + set1(scalar(values[at[s.v0 * kLanes] + k * mask.stride[3]])));
        });
      else
        add_tiles(values, mask.stride[3], at, s);
    });
  }

  // The mask's rows along the keys are turned, a square of vectors at a time.
  template <class T>
  void add_tiles(const T* values, int64_t step, const int64_t* at, const Scores& s) const {
    for (int v = s.v0; v < s.v1; ++v)
      for (int k = 0; k < s.keys; k += kLanes) {
        int n = int(smaller(kLanes, s.keys - k));
        vf tile[kLanes];
        for (int i = 0; i < kLanes; ++i) {
          const T* row = values + at[v * kLanes + i] + k * step;
          tile[i] = step == 1 ? load(row, n) : gather(row, step, n);
        }
        transpose(tile);
        for (int j = 0; j < n; ++j) store(s.at(k + j, v), load(s.at(k + j, v)) + tile[j]);
      }
  }
  void hide_tiles(const uint8_t* seen, int64_t step, const int64_t* at, const Scores& s) const {
    for (int v = s.v0; v < s.v1; ++v)
      for (int k = 0; k < s.keys; k += kLanes) {
        int n = int(smaller(kLanes, s.keys - k));
        alignas(16) uint8_t bytes[kLanes][16];
        __m128i zeros = _mm_setzero_si128();
        for (int i = 0; i < kLanes; ++i) {
          const uint8_t* row = seen + at[v * kLanes + i] + k * step;
          auto* to = reinterpret_cast<__m128i*>(bytes[i]);
          _mm_store_si128(to, _mm_set1_epi8(1));
          if (step == 1 && n == kLanes)
            __builtin_memcpy(bytes[i], row, kLanes);
          else
            for (int j = 0; j < n; ++j) bytes[i][j] = row[j * step];
          __m128i line = _mm_load_si128(to);
          zeros = _mm_or_si128(zeros, _mm_cmpeq_epi8(line, _mm_setzero_si128()));
        }
        if (_mm_movemask_epi8(zeros) == 0) continue;
        vf tile[kLanes];
        for (int i = 0; i < kLanes; ++i) tile[i] = from_bytes(bytes[i]);
        transpose(tile);
        for (int j = 0; j < n; ++j)
          store(s.at(k + j, v),
                select_less(zero(), tile[j], load(s.at(k + j, v)), set1(kMinusInf)));
      }
  }

  template <class T>
  HONED_INLINE static vf gather(const T* row, int64_t step, int n) {
    alignas(64) float lanes[kLanes] = {};
    for (int j = 0; j < n; ++j) lanes[j] = scalar(row[j * step]);
    return load(lanes);
  }
  HONED_INLINE static vf from_bytes(const uint8_t* p) {
    bytes_of_lanes bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    return (vf) __builtin_convertvector(bytes != 0, floats_of_lanes) * set1(-1.0f);
  }

  int64_t head_[kMaxRows], query_[kMaxRows], mask_at_[kMaxRows], bias_at_[kMaxRows];
  alignas(64) float slope_[kMaxRows];
  alignas(64) uint32_t key_low_[kMaxRows], key_high_[kMaxRows];
};

}  // namespace
HONED_END_LEVEL
