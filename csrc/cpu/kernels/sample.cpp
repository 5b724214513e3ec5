// One token a row without sorting the vocabulary: maxima of small blocks say where the large logits
// are, a histogram of weights says where the cumulative weight crosses top_p, and only what lies
// there is sorted.
#include "ops/sample.h"

#include "core/rng.h"
#include "cpu/simd/exp_f64.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int kBlock = kExpBlock, kBins = 2048;
constexpr float kInfinity = __builtin_inff();

// What is kept: x > least, and x == least from index `from` on.
struct Kept {
  float least = -kInfinity;
  int64_t from = 0;
  double min_weight = 0.0;
};

// Orders as the float does, zeros being equal.
HONED_INLINE uint32_t key_of(float x) {
  x += 0.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
HONED_INLINE float value_of(uint64_t entry) {
  uint32_t key = uint32_t(entry >> 32), bits = key & 0x80000000u ? key ^ 0x80000000u : ~key;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
HONED_INLINE uint64_t entry_of(float x, int64_t index) {
  return uint64_t(key_of(x)) << 32 | uint64_t(index);
}
HONED_INLINE int64_t index_of(uint64_t entry) { return int64_t(entry & 0xffffffffu); }

// Sorts by value; of equal values the order stays. Radix sort from the low byte up.
void sort_entries(uint64_t* list, uint64_t* other, int64_t n) {
  int64_t count[4][256] = {};
  for (int64_t i = 0; i < n; ++i)
    for (int byte = 0; byte < 4; ++byte) ++count[byte][list[i] >> (32 + 8 * byte) & 255];
  uint64_t *from = list, *to = other;
  for (int byte = 0; byte < 4; ++byte) {
    int shift = 32 + 8 * byte;
    if (n == 0 || count[byte][from[0] >> shift & 255] == n) continue;  // all alike
    int64_t at = 0;
    for (int64_t& c : count[byte]) {
      int64_t here = c;
      c = at;
      at += here;
    }
    for (int64_t i = 0; i < n; ++i) to[count[byte][from[i] >> shift & 255]++] = from[i];
    uint64_t* swap = from;
    from = to;
    to = swap;
  }
  if (from != list) __builtin_memcpy(list, from, size_t(n) * sizeof(uint64_t));
}

class Row {
 public:
  Row(const SampleArgs& args, int64_t row)
      : a_(args), o_(args.row[row].options), row_(row), blocks_((a_.vocab + kBlock - 1) / kBlock) {
    list_ = reinterpret_cast<uint64_t*>(a_.scratch);
    other_ = list_ + blocks_ * kBlock;
    block_sum_ = reinterpret_cast<double*>(other_ + blocks_ * kBlock);
    bin_ = block_sum_ + blocks_;
    x_ = reinterpret_cast<float*>(bin_ + kBins);
    block_max_ = x_ + blocks_ * kBlock;
  }

  template <class T>
  void run() {
    const T* logits = static_cast<const T*>(a_.logits) + row_ * a_.stride;
    bool greedy = !o_.do_sample || o_.temperature == 0.0f;
    int64_t best = greedy ? largest(logits) : scale(logits);
    a_.status[row_] = kSampled;
    if (nan_) {
      a_.status[row_] = kNan;
      best = first(logits, [](float x) { return x != x; });
    } else if (max_ == -kInfinity) {
      a_.status[row_] = kNothingToSample;
    } else if (!greedy) {
      best = max_ == kInfinity ? first(x_, [](float x) { return x == kInfinity; }) : draw(keep());
    }
    a_.out[row_] = best;
  }

 private:
  template <class T, class F>
  int64_t first(const T* values, F&& holds, int64_t from = 0) const {
    for (int64_t i = from; i < a_.vocab; ++i) {
      alignas(64) float x[kLanes];
      store(x, load(values + i, 1));
      if (holds(x[0])) return i;
    }
    return 0;
  }

  // The first largest logit: its stretch first, then its place there.
  template <class T>
  int64_t largest(const T* logits) {
    constexpr int64_t kStretch = 1024;
    vf nan = zero();
    int64_t best = 0;
    for (int64_t from = 0; from < a_.vocab; from += kStretch) {
      int64_t count = a_.vocab - from < kStretch ? a_.vocab - from : kStretch, i = 0;
      vf top[4] = {set1(-kInfinity), set1(-kInfinity), set1(-kInfinity), set1(-kInfinity)};
      for (; i + 4 * kLanes <= count; i += 4 * kLanes)
        for (int u = 0; u < 4; ++u) {
          vf v = load(logits + from + i + u * kLanes);
          top[u] = vmax(v, top[u]);
          nan = select_nan(v, nan);
        }
      for_lanes(count - i, [&](int64_t at, int n) {
        vf v = keep_first(load(logits + from + i + at, n), n, set1(-kInfinity));
        top[0] = vmax(v, top[0]);
        nan = select_nan(v, nan);
      });
      float most = reduce_max(vmax(vmax(top[0], top[1]), vmax(top[2], top[3])));
      if (most > max_) {
        max_ = most;
        best = from;
      }
    }
    nan_ = any_nan(nan);
    return nan_ || max_ == -kInfinity ? 0
                                      : first(logits, [this](float x) { return x == max_; }, best);
  }

  // x, the maxima of its blocks and of all.
  template <class T>
  int64_t scale(const T* logits) {
    vf nan = zero(), by = set1(o_.temperature), low = set1(kInfinity);
    for (int64_t b = 0; b < blocks_; ++b) {
      vf top = set1(-kInfinity);
      for (int i = 0; i < kBlock; i += kLanes) {
        int64_t at = b * kBlock + i, left = a_.vocab - at;
        int n = left >= kLanes ? kLanes : left > 0 ? int(left) : 0;
        vf v = load(logits + (n ? at : 0), n);
        v = keep_first(v / by, n, set1(-kInfinity));
        nan = select_nan(v, nan);
        top = vmax(v, top);
        low = vmin(v, low);
        store(x_ + at, v);
      }
      block_max_[b] = reduce_max(top);
      max_ = block_max_[b] > max_ ? block_max_[b] : max_;
    }
    min_ = -reduce_max(zero() - low);
    nan_ = any_nan(nan);
    return 0;
  }

  static bool any_nan(vf v) {
    float sum = reduce_add(v);
    return sum != sum;
  }

  Kept keep() {
    Kept kept;
    kept.min_weight = o_.min_p;
    bool nucleus = o_.top_p < 1.0;
    if (o_.top_k > 0 && o_.top_k < a_.vocab) {
      int64_t n = list_largest(o_.top_k);
      kept.least = value_of(list_[0]);
      if (nucleus) drop_tail(0, n, 0.0, total_of(n), &kept);
    } else if (nucleus) {
      drop_bins(&kept);
    }
    return kept;
  }

  // Entries of all x at least `least`, in order of index.
  int64_t list_from(float least) {
    int64_t n = 0;
    for (int64_t b = 0; b < blocks_; ++b)
      if (block_max_[b] >= least)
        for (int64_t i = b * kBlock; i < (b + 1) * kBlock && i < a_.vocab; ++i)
          if (x_[i] >= least) list_[n++] = entry_of(x_[i], i);
    return n;
  }

  // The k largest x and what ties with the last of them, sorted, at the front of list_.
  int64_t list_largest(int64_t k) {
    float bound =
        -kInfinity;  // at most the k-th largest: k blocks have something at least as large
    if (k <= blocks_) {
      for (int64_t b = 0; b < blocks_; ++b) list_[b] = entry_of(block_max_[b], b);
      sort_entries(list_, other_, blocks_);
      bound = value_of(list_[blocks_ - k]);
    }
    int64_t n = list_from(bound), start = n - k;
    sort_entries(list_, other_, n);
    while (start > 0 && list_[start - 1] >> 32 == list_[start] >> 32) --start;
    for (int64_t i = start; i < n; ++i) list_[i - start] = list_[i];
    return n - start;
  }

  double weight_of(uint64_t entry) const {
    float x[8] = {value_of(entry)};
    double w[8];
    exp8(x, max_, w);
    return w[0];
  }

  double total_of(int64_t n) const {
    double total = 0.0;
    for (int64_t i = 0; i < n; ++i) total += weight_of(list_[i]);
    return total;
  }

  // Of list_[begin, end), sorted, drops from the front while the dropped weights stay within their
  // share.
  void drop_tail(int64_t begin, int64_t end, double dropped, double total, Kept* kept) const {
    double share = (1.0 - o_.top_p) * total;
    int64_t i = begin;
    for (; i + 1 < end; ++i) {
      dropped += weight_of(list_[i]);
      if (dropped > share) break;
    }
    kept->least = value_of(list_[i]);
    kept->from = index_of(list_[i]);
  }

  // The same over the whole vocabulary: whole bins first, then within the bin where the share is
  // crossed.
  void drop_bins(Kept* kept) {
    float range = max_ - min_ < 40.0f ? max_ - min_ : 40.0f;  // e^-40: whatever is below is one bin
    vf step = set1(range > 0.0f ? float(kBins - 1) / range : 0.0f);
    auto bins_of = [&](const float* x, int32_t* bins) {
      for (int i = 0; i < kBlock; i += kLanes) {
        vi each = to_int(vmin((set1(max_) - load(x + i)) * step, set1(float(kBins - 1))));
        __builtin_memcpy(bins + i, &each, sizeof each);
      }
    };
    alignas(64) int32_t bins[kBlock];
    alignas(64) double w[kBlock];
    for (int b = 0; b < kBins; ++b) bin_[b] = 0.0;
    for (int64_t b = 0; b < blocks_; ++b) {
      bins_of(x_ + b * kBlock, bins);
      exp_block(x_ + b * kBlock, max_, w);
      for (int i = 0; i < kBlock; ++i) bin_[bins[i]] += w[i];
    }
    double total = 0.0, dropped = 0.0;
    for (int b = kBins - 1; b >= 0; --b) total += bin_[b];
    double share = (1.0 - o_.top_p) * total;
    int crossed = kBins - 1;
    while (crossed > 0 && dropped + bin_[crossed] <= share) dropped += bin_[crossed--];
    int64_t n = 0;
    for (int64_t b = 0; b < blocks_; ++b) {
      if ((max_ - block_max_[b]) * float(kBins - 1) > (float(crossed) + 1.0f) * range) continue;
      bins_of(x_ + b * kBlock, bins);
      for (int64_t i = 0, at = b * kBlock; i < kBlock && at < a_.vocab; ++i, ++at)
        if (bins[i] == crossed) list_[n++] = entry_of(x_[at], at);
    }
    sort_entries(list_, other_, n);
    drop_tail(0, n, dropped, total, kept);
  }

  // Kept weights of a block.
  void weights(const Kept& kept, int64_t b, double* w) const {
    exp_block(x_ + b * kBlock, max_, w);
    if (kept.least == -kInfinity && kept.min_weight == 0.0) return;
    for (int i = 0; i < kBlock; ++i) {
      float x = x_[b * kBlock + i];
      bool in = (x > kept.least || (x == kept.least && b * kBlock + i >= kept.from)) &&
                w[i] >= kept.min_weight;
      w[i] = in ? w[i] : 0.0;
    }
  }

  int64_t draw(const Kept& kept) {
    alignas(64) double w[kBlock];
    double total = 0.0;
    int64_t block = 0;
    for (int64_t b = 0; b < blocks_; ++b) {
      block_sum_[b] = 0.0;
      if (block_max_[b] < kept.least) continue;
      weights(kept, b, w);
      block_sum_[b] = sum_block(w);
      total += block_sum_[b];
      if (block_sum_[b] > 0.0) block = b;  // the last that can be drawn
    }
    double target = random_uniform(a_.row[row_].seed, a_.row[row_].counter) * total, sum = 0.0;
    int64_t last = block;
    for (block = 0; block < last && sum + block_sum_[block] <= target; ++block)
      sum += block_sum_[block];
    weights(kept, block, w);
    int64_t chosen = 0;
    for (int i = 0; i < kBlock; ++i) {
      if (w[i] == 0.0) continue;
      chosen = block * kBlock + i;
      sum += w[i];
      if (sum > target) break;
    }
    return chosen;
  }

  const SampleArgs& a_;
  const SampleOptions& o_;
  int64_t row_, blocks_;
  float max_ = -kInfinity, min_ = kInfinity;
  bool nan_ = false;
  uint64_t *list_, *other_;
  double *block_sum_, *bin_;
  float *x_, *block_max_;
};

}  // namespace

void sample(const SampleArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto tag) {
    for (int64_t row = begin; row < end; ++row) Row(a, row).run<typename decltype(tag)::type>();
  });
}

HONED_END_LEVEL
