// The tokens that are still kept, in vocabulary order: x, index and, when a filter asks, weight.
#pragma once
#include "cpu/kernels/sample_rough.h"

HONED_BEGIN_LEVEL
namespace {

// Keeps x > least, and of x == least all but the `skip` first.
struct Cut {
  float least = -kInfinity;
  int64_t skip = 0;
};
HONED_INLINE Cut lower_of(Cut a, Cut b) {
  if (a.least != b.least) return a.least < b.least ? a : b;
  return {a.least, a.skip < b.skip ? a.skip : b.skip};
}

constexpr int kHalvings = 7;
constexpr int64_t kFew = 4;  // of so many blocks one may be looked at again for the largest

class Tokens {
 public:
  Tokens(float* scratch, int64_t vocab) {
    int64_t room = padded(vocab) + kBlock;
    weight_ = reinterpret_cast<double*>(scratch);
    list_ = {reinterpret_cast<int64_t*>(weight_ + room), weight_ + 2 * room, 0};
    x_ = reinterpret_cast<float*>(weight_ + 3 * room);
    id_ = reinterpret_cast<int32_t*>(x_ + room);
  }

  int64_t count() const { return count_; }
  float x(int64_t i) const { return x_[i]; }
  int64_t id(int64_t i) const { return id_[i]; }
  double weight(int64_t i) const { return weight_[i]; }
  double block_weight(int64_t i) const { return sum_block(weight_ + i); }  // from i, of kBlock
  double total() const { return total_; }
  float top() const { return top_; }

  // Every token.
  template <class T>
  void take_all(const Logits<T>& logits, float temperature) {
    vf by = set1(temperature);
    for (int64_t b = 0; b < logits.blocks(); ++b) {
      float* x = x_ + b * kBlock;
      logits.block(b, x);
      for (int i = 0; i < kBlock; ++i) id_[b * kBlock + i] = int32_t(b * kBlock + i);
      if (temperature == 1.0f) continue;
      for (int i = 0; i < kBlock; i += kLanes) store(x + i, load(x + i) / by);
    }
    begin(logits.vocab(), logits.largest() / temperature);
  }

  // At least the k largest and what ties with them, or all.
  template <class T>
  void take_largest(const Logits<T>& logits, float temperature, int64_t k) {
    if (k * kFew > logits.blocks()) return take_all(logits, temperature);
    // k blocks, so k tokens, have something as large. x may round equal for a little less.
    float least =
        reached_by(logits.block_maxima(), padded(logits.blocks()), k, k / 8, logits.largest());
    take_down_to(logits, temperature, double(least) / double(temperature));
  }
  // At least those of x >= least, or all.
  template <class T>
  void take_down_to(const Logits<T>& logits, float temperature, double least) {
    double y = product(least, double(temperature));
    float from = float(y - 1e-6 * (y < 0.0 ? -y : y));
    if (ordinary(from, temperature))
      take_from(logits, temperature, from);
    else
      take_all(logits, temperature);
  }

  // Weights and their sum, of those kept now.
  void weigh() {
    if (weighed_ < 0) {
      for (int64_t i = 0; i < count_; i += kBlock) exp_block(x_ + i, base_, weight_ + i);
      weighed_ = 0;
    }
    if (weighed_ == count_) return;
    total_ = 0.0;
    for (int64_t i = 0; i < count_; i += kBlock) total_ += sum_block(weight_ + i);
    weighed_ = count_;
  }
  double distance(int64_t i) const { return double(x_[i]) - double(base_); }  // log of the weight

  // Of the weights, in nats.
  double entropy() {
    weigh();
    double sum = 0.0;
    alignas(64) double term[kBlock];
    for (int64_t i = 0; i < count_; i += kBlock) {
      for (int j = 0; j < kBlock; j += kDoubles) {
        vh x;
        vd w;
        __builtin_memcpy(&x, x_ + i + j, sizeof x);
        __builtin_memcpy(&w, weight_ + i + j, sizeof w);
        vd d = __builtin_convertvector(x, vd) - all(base_);
        d = (vd)((vl)d & (w > all(0.0)));
        d = times(w, d);
        __builtin_memcpy(term + j, &d, sizeof d);
      }
      sum += sum_block(term);
    }
    return __builtin_log(total_) - sum / total_;
  }

  // Keeps those for whose place it holds, asked in order.
  template <class F>
  void keep_if(F&& holds) {
    int64_t n = 0;
    for (int64_t i = 0; i < count_; ++i) {
      bool in = holds(i);
      x_[n] = x_[i];
      id_[n] = id_[i];
      weight_[n] = weight_[i];
      n += in;
    }
    if (n == count_) return;
    if (weighed_ >= 0) weighed_ = 0;
    count_ = n;
    finish();
  }
  void keep(Cut cut) {
    if (cut.least == -kInfinity) return;
    keep_if(
        [&](int64_t i) { return x_[i] > cut.least || (x_[i] == cut.least && cut.skip-- <= 0); });
  }
  // Those of at least that weight, and those of the cut.
  void keep_weight(double least, Cut also) {
    keep_if([&](int64_t i) {
      bool in = x_[i] > also.least || (x_[i] == also.least && also.skip-- <= 0);
      return in || weight_[i] >= least;
    });
  }

  // The k largest: of equal x the last.
  Cut largest(int64_t k) const {
    if (k >= count_) return {};
    float least = reached_by(x_, padded(count_), k, 0, top_);
    return {least, count_from(x_, padded(count_), least) - k};
  }
  float reached(int64_t k) const {
    return k >= count_ ? -kInfinity : reached_by(x_, padded(count_), k, 0, top_);
  }

  // Smallest x first, drops what weighs at most `share` together.
  Cut without(double share) {
    for (int64_t i = 0; i < count_; ++i) list_.key[i] = key_of(x_[i]);
    __builtin_memcpy(list_.weight, weight_, size_t(count_) * sizeof(double));
    list_.count = count_;
    Split at = split(list_, share, false);
    Cut cut{value_of(uint32_t(at.key)), 0};
    double dropped = at.below;
    for (int64_t i = 0; i < count_; ++i)
      if (x_[i] == cut.least) {
        dropped += weight_[i];
        if (dropped > share) break;
        ++cut.skip;
      }
    return cut;
  }

  // As without(share), where these are the largest of all tokens and `all`, by rough(), is the sum of
  // all: false where that is too rough to tell.
  bool roughly_without(double part, double all, const Rough& rough, Cut* cut) {
    double share = product(part, all),
           margin = product(3.0 * kRough, share) + product(kSummed, all);
    drop_roughly(all, share - margin, rough);
    alignas(64) float w[kLanes];
    list_.count = count_;
    for (int64_t i = 0; i < padded(count_); i += kLanes) {
      store(w, rough(load(x_ + i)));
      for (int j = 0; j < kLanes; ++j) {
        list_.weight[i + j] = double(w[j]);
        list_.key[i + j] = key_of(x_[i + j]);
      }
    }
    double head = 0.0;
    for (int64_t i = 0; i < count_; ++i) head += list_.weight[i];
    double limit = share - (all - head);
    if (limit < margin) return false;
    Split at = split(list_, limit, false);
    *cut = {value_of(uint32_t(at.key)), 0};
    store(w, rough(set1(cut->least)));
    cut->skip = int64_t((limit - at.below) / double(w[0]));
    double dropped = at.below + product(double(cut->skip), double(w[0]));
    return limit - dropped > margin && dropped + double(w[0]) - limit > margin;
  }

  // The places of what is kept, largest first, of equal x the later or the earlier first. For few
  // tokens, but for equal ones.
  int32_t* sort_down(bool later) {
    int32_t* place = reinterpret_cast<int32_t*>(list_.key);
    for (int64_t i = 0; i < count_; ++i) {
      int64_t at = i;
      auto before = [&](float x) { return x < x_[i] || (later && x == x_[i]); };
      for (; at > 0 && before(x_[place[at - 1]]); --at) place[at] = place[at - 1];
      place[at] = int32_t(i);
    }
    return place;
  }

  Weighed& list() { return list_; }

 private:
  // Far from where x loses digits.
  static bool ordinary(float least, float temperature) {
    float size = (least < 0.0f ? -least : least) / temperature;
    return size > 1e-30f && size < 1e30f;
  }

  // The tokens whose logit is at least `least`.
  template <class T>
  void take_from(const Logits<T>& logits, float temperature, float least) {
    alignas(64) float y[kBlock];
    alignas(64) int32_t id[kBlock];
    int64_t n = 0;
    for (int64_t b = 0; b < logits.blocks(); ++b) {
      if (logits.block_max(b) < least) continue;
      logits.block(b, y);
      for (int i = 0; i < kBlock; ++i) id[i] = int32_t(b * kBlock) + i;
      n += append(y, id, least, n);
    }
    vf by = set1(temperature);
    for (int64_t i = 0; i < n; i += kLanes) store(x_ + i, load(x_ + i) / by);
    begin(n, logits.largest() / temperature);
  }

  // Drops the x below a bound that a few halvings find, which together with the tokens that are not
  // here weigh at most `share` of `all`.
  void drop_roughly(double all, double share, const Rough& rough) {
    float* weight = reinterpret_cast<float*>(list_.weight);
    vf smallest = set1(top_);
    for (int64_t i = 0; i < padded(count_); i += kLanes) {
      vf x = load(x_ + i);
      smallest = select_less(set1(-kInfinity), x, vmin(x, smallest), smallest);
      store(weight + i, rough(x));
    }
    float low = -reduce_max(zero() - smallest), high = top_;
    float least = low;
    for (int halving = 0; halving < kHalvings; ++halving) {
      float at = 0.5f * low + 0.5f * high;
      vd sum[2] = {};
      for (int64_t i = 0; i < padded(count_); i += kLanes)
        add_to(sum, select_less(load(x_ + i), set1(at), zero(), load(weight + i)));
      double above = 0.0;
      for (int i = 0; i < kDoubles; ++i) above += sum[0][i] + sum[1][i];
      if (all - above < share)
        low = least = at;
      else
        high = at;
    }
    int64_t n = 0;
    for (int64_t i = 0; i < padded(count_); i += kBlock) n += again(i, least, n);
    count_ = n;
    finish();
  }

  // append() of the tokens from place i on, in their own place.
  HONED_INLINE int64_t again(int64_t i, float least, int64_t n) {
    alignas(64) float y[kBlock];
    alignas(64) int32_t id[kBlock];
    __builtin_memcpy(y, x_ + i, sizeof y);
    __builtin_memcpy(id, id_ + i, sizeof id);
    return append(y, id, least, n);
  }

  // Puts those of a block that are at least `least` to place n on; how many these are.
  HONED_INLINE int64_t append(const float* y, const int32_t* id, float least, int64_t n) {
    int64_t from = n;
#if defined(__AVX512F__)
    for (int i = 0; i < kBlock; i += kLanes) {
      vf v = load(y + i);
      __mmask16 in = _mm512_cmp_ps_mask(v, set1(least), _CMP_GE_OQ);
      store(x_ + n, _mm512_maskz_compress_ps(in, v));
      store_int(id_ + n, _mm512_maskz_compress_epi32(in, load_int(id + i)));
      n += __builtin_popcount(in);
    }
#else
    for (int i = 0; i < kBlock; ++i) {
      x_[n] = y[i];
      id_[n] = id[i];
      n += y[i] >= least;
    }
#endif
    return n - from;
  }

  void begin(int64_t count, float base) {
    count_ = count;
    base_ = base;
    weighed_ = -1;
    finish();
  }
  // Pads, and finds the largest.
  void finish() {
    for (int64_t i = count_; i < padded(count_); ++i) {
      x_[i] = -kInfinity;
      weight_[i] = 0.0;
    }
    vf top = set1(-kInfinity);
    for (int64_t i = 0; i < padded(count_); i += kLanes) top = vmax(load(x_ + i), top);
    top_ = reduce_max(top);
  }

  int64_t count_ = 0,
          weighed_ = -1;  // weighed_: how many total_ sums; -1: there are no weights yet
  float base_ = 0.0f, top_ = 0.0f;
  double total_ = 0.0;
  double* weight_;
  Weighed list_;
  float* x_;
  int32_t* id_;
};

}  // namespace
HONED_END_LEVEL
