// The filters of ops/sample.h, each on what the one before left.
#pragma once
#include "core/rng.h"
#include "cpu/kernels/sample_tokens.h"

HONED_BEGIN_LEVEL
namespace {

constexpr int64_t kRanked = 100;                      // tokens that top_h and mirostat 1 look at
constexpr uint64_t kXtcStream = 0x9fb21c651e98df25u;  // another seed than the draw's

HONED_INLINE int64_t key_of_positive(double x) {
  int64_t bits;
  __builtin_memcpy(&bits, &x, 8);
  return bits;
}

class Filters {
 public:
  // Those of `left`: the options of the row, or what is left to do of them.
  Filters(Tokens& tokens, const SampleRow& row, const SampleOptions& left)
      : t_(tokens), row_(row), o_(left) {}

  void run(int64_t vocab) {
    if (o_.mirostat == 1) return zipf(vocab);
    if (o_.mirostat == 2) return surprise();
    if (o_.top_n_sigma > 0.0) deviation();
    if (o_.top_h > 0.0) entropy_share();
    if (o_.top_k > 0) t_.keep({t_.reached(o_.top_k > floor() ? o_.top_k : floor()), 0});
    if (o_.top_p < 1.0) nucleus();
    if (o_.min_p > 0.0) {
      t_.weigh();
      double most = 0.0;
      for (int64_t i = 0; i < t_.count(); ++i) most = t_.weight(i) > most ? t_.weight(i) : most;
      t_.keep_weight(product(o_.min_p, most), t_.largest(floor()));
    }
    if (o_.typical_p < 1.0) typical();
    if (o_.epsilon_cutoff > 0.0) {
      t_.weigh();
      t_.keep_weight(product(o_.epsilon_cutoff, t_.total()), {t_.reached(floor()), 0});
    }
    if (o_.eta_cutoff > 0.0) {
      double scaled = product(__builtin_sqrt(o_.eta_cutoff), __builtin_exp(-t_.entropy()));
      double eta = o_.eta_cutoff < scaled ? o_.eta_cutoff : scaled;
      t_.keep_weight(product(eta, t_.total()), {t_.reached(floor()), 0});
    }
    if (o_.xtc_probability > 0.0) exclude_top();
  }

 private:
  int64_t floor() const { return o_.min_tokens_to_keep; }

  void deviation() {
    double sum = 0.0, squares = 0.0;
    int64_t n = 0;
    for (int64_t i = 0; i < t_.count(); ++i)
      if (t_.x(i) > -kInfinity) {
        sum += double(t_.x(i));
        ++n;
      }
    double mean = sum / double(n);
    for (int64_t i = 0; i < t_.count(); ++i)
      if (t_.x(i) > -kInfinity) {
        double d = double(t_.x(i)) - mean;
        squares += product(d, d);
      }
    double least = double(t_.top()) - product(o_.top_n_sigma, __builtin_sqrt(squares / double(n)));
    t_.keep_if([&](int64_t i) { return double(t_.x(i)) >= least; });
  }

  void entropy_share() {
    t_.keep_if([&](int64_t i) { return t_.x(i) > -kInfinity; });  // no rank is of these
    t_.keep(t_.largest(kRanked));
    t_.weigh();
    bool in[kRanked] = {};
    const int32_t* place = t_.sort_down(true);
    double log_total = __builtin_log(t_.total()), all = 0.0, sum = 0.0;
    auto term = [&](int64_t i) {  // -p log p
      double p = t_.weight(i) / t_.total();
      return p > 0.0 ? product(p, log_total - t_.distance(i)) : 0.0;
    };
    for (int64_t r = 0; r < t_.count(); ++r) all += term(place[r]);
    double limit = product(o_.top_h, all);
    for (int64_t r = 0; r < t_.count(); ++r) {
      sum += term(place[r]);
      if (r > 0 && !(sum <= limit)) break;
      in[place[r]] = true;
    }
    t_.keep_if([&](int64_t i) { return in[i]; });
  }

  void nucleus() {
    t_.weigh();
    t_.keep(lower_of(t_.without(product(1.0 - o_.top_p, t_.total())), t_.largest(floor())));
  }

  void typical() {
    double entropy = t_.entropy(), log_total = __builtin_log(t_.total());
    auto deviation = [&](int64_t i) {
      double d = log_total - t_.distance(i) - entropy;
      return key_of_positive(d < 0.0 ? -d : d);
    };
    auto fill = [&](bool weights) {
      Weighed& list = t_.list();
      list.count = t_.count();
      for (int64_t i = 0; i < list.count; ++i) {
        list.key[i] = deviation(i);
        list.weight[i] = weights ? t_.weight(i) : 1.0;
      }
      return list;
    };
    int64_t most = split(fill(true), product(o_.typical_p, t_.total()), true).key, equal = 0;
    if (floor() > 1) {  // a floor of one keeps the first, which is in anyhow
      int64_t rank = floor() < t_.count() ? floor() : t_.count();
      Split at = split(fill(false), double(rank - 1), false);
      if (at.key > most) {
        most = at.key - 1;
        equal = rank - int64_t(at.below);
      }
    }
    t_.keep_if([&](int64_t i) {
      int64_t key = deviation(i);
      return key <= most || (key == most + 1 && equal-- > 0);
    });
  }

  void exclude_top() {
    if (random_uniform(row_.seed ^ kXtcStream, row_.counter) >= o_.xtc_probability) return;
    t_.weigh();
    double least = product(o_.xtc_threshold, t_.total());
    int64_t above = 0, smallest = 0, finite = 0;
    for (int64_t i = 0; i < t_.count(); ++i) {
      finite += t_.x(i) > -kInfinity;
      if (t_.weight(i) < least) continue;
      if (above++ == 0 || t_.x(i) < t_.x(smallest)) smallest = i;
    }
    if (above < 2 || finite - (above - 1) < floor()) return;
    t_.keep_if([&](int64_t i) { return t_.weight(i) < least || i == smallest; });
  }

  void surprise() {
    t_.weigh();
    double least = product(__builtin_exp2(-*row_.mirostat_mu), t_.total());
    t_.keep_weight(least, t_.largest(1));
  }

  // Mirostat 1: k of the Zipf distribution that the largest tokens suggest.
  void zipf(int64_t vocab) {
    Cut ranked = t_.largest(kRanked);
    float top[kRanked];
    int64_t n = 0;
    for (int64_t i = 0; i < t_.count(); ++i) {
      if (t_.x(i) < ranked.least || (t_.x(i) == ranked.least && ranked.skip-- > 0)) continue;
      if (t_.x(i) == -kInfinity) continue;
      int64_t at = n++;
      for (; at > 0 && top[at - 1] < t_.x(i); --at) top[at] = top[at - 1];
      top[at] = t_.x(i);
    }
    double with = 0.0, squares = 0.0;
    for (int64_t i = 0; i + 1 < n; ++i) {
      double rank = __builtin_log(double(i + 2) / double(i + 1));
      with += product(rank, double(top[i]) - double(top[i + 1]));
      squares += product(rank, rank);
    }
    double s = with / squares, e = s - 1.0;
    double k = __builtin_pow(
        product(e, __builtin_exp2(*row_.mirostat_mu)) / (1.0 - __builtin_pow(double(vocab), -e)),
        1.0 / s);
    t_.keep(t_.largest(k >= double(vocab) ? vocab : k >= 1.0 ? int64_t(k) : 1));
  }

  Tokens& t_;
  const SampleRow& row_;
  const SampleOptions& o_;
};

}  // namespace
HONED_END_LEVEL
