// One token a row without sorting the vocabulary: the maxima of small blocks say where the large
// logits are, and what a filter leaves is compacted for the next one.
#include "ops/sample.h"

#include "cpu/kernels/sample_filters.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

template <class T>
class Row {
 public:
  Row(const SampleArgs& args, int64_t row)
      : a_(args),
        at_(row),
        row_(args.row[row]),
        logits_(logits_of(args.row[row])),
        tokens_(args.scratch + 2 * padded(blocks_of(args.vocab)), args.vocab),
        sums_(reinterpret_cast<double*>(args.scratch + 2 * padded(blocks_of(args.vocab)) +
                                        8 * (padded(args.vocab) + kBlock))) {}

  void run() {
    const SampleOptions& o = row_.options;
    a_.status[at_] = kSampled;
    logits_.survey();
    if (logits_.has_nan()) {
      a_.status[at_] = kNan;
      a_.out[at_] = logits_.first_nan();
      return;
    }
    if (logits_.largest() == -kInfinity) {
      a_.status[at_] = kNothingToSample;
      a_.out[at_] = 0;
      return;
    }
    float temperature = o.do_sample ? o.temperature : 0.0f;
    if (o.do_sample && o.dynatemp_range > 0.0f) temperature = dynamic_temperature();
    if (temperature == 0.0f) return greedy();
    if (logits_.largest() / temperature == kInfinity)
      return only([&](float y) { return y / temperature == kInfinity; });
    if (logits_.largest() / temperature == -kInfinity)  // all x are
      return only([&](float y) { return y == logits_.largest(); });
    Masses<T> masses(logits_, temperature, sums_);
    if (draw_of_all(masses)) return report(temperature);
    SampleOptions left = o;
    if (!take_roughly(masses, temperature, &left)) {
      left = o;
      take(temperature);
    }
    Filters(tokens_, row_, left).run(a_.vocab);
    draw();
    report();
  }

 private:
  Logits<T> logits_of(const SampleRow& row) const {
    int64_t blocks = padded(blocks_of(a_.vocab));
    return {static_cast<const T*>(a_.logits) + at_ * a_.stride, row, a_.vocab, a_.scratch,
            reinterpret_cast<int32_t*>(a_.scratch + blocks)};
  }
  static int64_t blocks_of(int64_t vocab) { return (vocab + kBlock - 1) / kBlock; }

  void greedy() {
    float most = logits_.largest();
    if (most == kInfinity) return only([](float y) { return y == kInfinity; });
    a_.out[at_] = logits_.first([&](float y) { return y == most; }, most);
    if (!a_.scores) return report(1.0f);
    tokens_.take_all(logits_, 1.0f);
    report();
  }

  // The first token for which it holds; nothing else is kept.
  template <class F>
  void only(F&& holds) {
    int64_t id = logits_.first(holds);
    a_.out[at_] = id;
    if (a_.logprob) a_.logprob[at_] = 0.0f;
    for (int64_t i = 0; i < a_.top_n; ++i) {
      a_.top_ids[at_ * a_.top_n + i] = i == 0 ? id : -1;
      a_.top_logprobs[at_ * a_.top_n + i] = i == 0 ? 0.0f : -kInfinity;
    }
    if (!a_.scores) return;
    float* scores = a_.scores + at_ * a_.vocab;
    for (int64_t i = 0; i < a_.vocab; ++i) scores[i] = i == id ? kInfinity : -kInfinity;
  }

  float dynamic_temperature() {
    const SampleOptions& o = row_.options;
    if (logits_.largest() == kInfinity) return 1.0f;
    tokens_.take_all(logits_, 1.0f);
    int64_t n = 0;
    for (int64_t i = 0; i < tokens_.count(); ++i) n += tokens_.x(i) > -kInfinity;
    double low = double(o.temperature) - double(o.dynatemp_range);
    low = low > 0.0 ? low : 0.0;
    double high = double(o.temperature) + double(o.dynatemp_range);
    if (n < 2) return o.temperature;
    double part = tokens_.entropy() / __builtin_log(double(n));
    part = part > 0.0 ? part : 0.0;
    return float(low + product(high - low, __builtin_pow(part, double(o.dynatemp_exponent))));
  }

  // What the first filter that is on keeps, where rough sums are enough to tell; the others are left.
  bool take_roughly(Masses<T>& masses, float temperature, SampleOptions* left) {
    const SampleOptions& o = row_.options;
    if (!masses.usable() || o.mirostat == 1) return false;
    if (o.mirostat == 2) {
      masses.sum();
      if (!take_share(masses, temperature, __builtin_exp2(-*row_.mirostat_mu), 0.0, 1))
        return false;
      *left = SampleOptions{};
      return true;
    }
    if (o.top_n_sigma > 0.0 || o.top_h > 0.0 || o.top_k > 0) return false;
    if (o.top_p < 1.0) {
      left->top_p = 1.0;
      return take_nucleus(masses, temperature);
    }
    if (o.min_p > 0.0 || o.typical_p < 1.0) return false;
    int64_t floor = o.min_tokens_to_keep;
    if (o.epsilon_cutoff > 0.0) {
      left->epsilon_cutoff = 0.0;
      masses.sum();
      return take_share(masses, temperature, o.epsilon_cutoff, 0.0, floor);
    }
    if (o.eta_cutoff == 0.0) return false;
    left->eta_cutoff = 0.0;
    double error, entropy = masses.sum_entropy(&error);
    double scaled = product(__builtin_sqrt(o.eta_cutoff), __builtin_exp(-entropy));
    double eta = o.eta_cutoff < scaled ? o.eta_cutoff : scaled;
    return take_share(masses, temperature, eta, error, floor);
  }

  // The tokens that have at least that share of the total weight, its logarithm within `error`.
  bool take_share(const Masses<T>& masses, float temperature, double share, double error,
                  int64_t floor) {
    double top = double(masses.top()), least = top + __builtin_log(share) + masses.log_total();
    double band = error + 1.1 * kRough + kSummed;
    if (!(least > top - 80.0)) return false;
    tokens_.take_down_to(logits_, temperature, least - band);
    int64_t kept = 0, unclear = 0;
    for (int64_t i = 0; i < tokens_.count(); ++i) {
      double x = double(tokens_.x(i));
      kept += x > least + band;
      unclear += x > least - band;
    }
    if (kept < floor || kept != unclear) return false;
    tokens_.keep_if([&](int64_t i) { return double(tokens_.x(i)) > least; });
    return true;
  }

  bool take_nucleus(Masses<T>& masses, float temperature) {
    const SampleOptions& o = row_.options;
    double share = 1.0 - o.top_p, top = double(masses.top());
    masses.sum();
    double total = masses.total();
    // All tokens below this together are less than what top_p drops.
    double least = top + __builtin_log(0.999 * share / double(a_.vocab)) + masses.log_total();
    double guess = masses.guess_below(0.7 * share * total, least);
    bool clear = false;
    Cut cut;
    const double bounds[] = {guess, least};
    for (double from : bounds) {
      tokens_.take_down_to(logits_, temperature, from - 1e-3);
      clear = tokens_.roughly_without(share, total, masses.rough(), &cut) &&
              tokens_.count() >= o.min_tokens_to_keep;
      if (clear || guess == least) break;
    }
    if (!clear) return false;
    tokens_.keep(lower_of(cut, tokens_.largest(o.min_tokens_to_keep)));
    return true;
  }

  // All tokens, or those that the first filter can leave.
  void take(float temperature) {
    const SampleOptions& o = row_.options;
    int64_t floor = o.min_tokens_to_keep;
    bool plain = o.mirostat == 0 && o.top_n_sigma == 0.0;
    if (plain && o.top_h > 0.0)
      tokens_.take_largest(logits_, temperature, kRanked);
    else if (plain && o.top_k > 0)
      tokens_.take_largest(logits_, temperature, o.top_k > floor ? o.top_k : floor);
    else if (plain && o.top_p == 1.0 && o.min_p > 0.0 && floor == 1)
      tokens_.take_down_to(
          logits_, temperature,
          double(logits_.largest()) / double(temperature) + __builtin_log(o.min_p) - 1e-5);
    else
      tokens_.take_all(logits_, temperature);
  }

  // Where nothing is filtered, and rough sums are enough to tell.
  bool draw_of_all(Masses<T>& masses) {
    const SampleOptions& o = row_.options;
    bool filtered = o.mirostat != 0 || o.top_n_sigma > 0.0 || o.top_h > 0.0 || o.top_k > 0 ||
                    o.top_p < 1.0 || o.min_p > 0.0 || o.typical_p < 1.0 || o.epsilon_cutoff > 0.0 ||
                    o.eta_cutoff > 0.0 || o.xtc_probability > 0.0;
    if (filtered || a_.scores || !masses.usable()) return false;
    masses.sum();
    int64_t id = masses.drawn(random_uniform(row_.seed, row_.counter));
    if (id >= 0) a_.out[at_] = id;
    return id >= 0;
  }

  void draw() {
    tokens_.weigh();
    const SampleOptions& o = row_.options;
    double target = product(random_uniform(row_.seed, row_.counter), tokens_.total()), sum = 0.0;
    int64_t block = 0, last = 0, chosen = 0;
    for (int64_t i = 0; i < tokens_.count(); i += kBlock)
      if (tokens_.block_weight(i) > 0.0) last = i;
    for (; block < last && sum + tokens_.block_weight(block) <= target; block += kBlock)
      sum += tokens_.block_weight(block);
    for (int64_t i = block; i < block + kBlock; ++i) {
      if (tokens_.weight(i) == 0.0) continue;
      chosen = i;
      sum += tokens_.weight(i);
      if (sum > target) break;
    }
    a_.out[at_] = tokens_.id(chosen);
    if (o.mirostat == 0) return;
    double surprise = -__builtin_log2(tokens_.weight(chosen) / tokens_.total());
    *row_.mirostat_mu -= product(o.mirostat_eta, surprise - o.mirostat_tau);
  }

  // Scores, then log-probabilities: of what was kept, or of the logits as given. With a temperature
  // everything was.
  void report(float temperature = 0.0f) {
    if (a_.scores) {
      float* scores = a_.scores + at_ * a_.vocab;
      for (int64_t i = 0; i < a_.vocab; ++i) scores[i] = -kInfinity;
      for (int64_t i = 0; i < tokens_.count(); ++i) scores[tokens_.id(i)] = tokens_.x(i);
    }
    if (!a_.logprob && a_.top_n == 0) return;
    if (!a_.logprob_of_drawn) {
      if (logits_.as_given()) return report_of(logits_, 1.0f);
      SampleRow plain;
      Logits<T> given = logits_of(plain);
      given.survey();
      return report_of(given, 1.0f);
    }
    if (temperature > 0.0f) return report_of(logits_, temperature);
    tokens_.weigh();
    double log_total = __builtin_log(tokens_.total());
    if (a_.logprob)
      for (int64_t i = 0; i < tokens_.count(); ++i)
        if (tokens_.id(i) == a_.out[at_]) a_.logprob[at_] = float(tokens_.distance(i) - log_total);
    if (a_.top_n > 0) alternatives(log_total);
  }

  // Log-probabilities of all tokens.
  void report_of(const Logits<T>& logits, float temperature) {
    Masses<T> masses(logits, temperature, sums_);
    double log_total = double(__builtin_nanf(""));
    if (masses.usable()) {
      masses.sum();
      log_total = masses.log_total();
      if (a_.top_n > 0) tokens_.take_largest(logits, temperature, a_.top_n);
    } else {
      tokens_.take_all(logits, temperature);
      tokens_.weigh();
      if (!logits.has_nan() && logits.largest() < kInfinity)
        log_total = __builtin_log(tokens_.total());
    }
    double x = double(logits.logit(a_.out[at_]) / temperature);
    if (a_.logprob) a_.logprob[at_] = float(x - double(masses.top()) - log_total);
    if (a_.top_n > 0) alternatives(log_total);
  }

  void alternatives(double log_total) {
    int64_t* ids = a_.top_ids + at_ * a_.top_n;
    float* logprobs = a_.top_logprobs + at_ * a_.top_n;
    tokens_.keep({tokens_.reached(a_.top_n), 0});
    const int32_t* place = tokens_.sort_down(false);
    for (int64_t i = 0; i < a_.top_n; ++i) {
      bool there = i < tokens_.count() && tokens_.x(place[i]) > -kInfinity;
      ids[i] = there ? tokens_.id(place[i]) : -1;
      logprobs[i] = there ? float(tokens_.distance(place[i]) - log_total) : -kInfinity;
    }
  }

  const SampleArgs& a_;
  int64_t at_;
  const SampleRow& row_;
  Logits<T> logits_;
  Tokens tokens_;
  double* sums_;
};

}  // namespace

void sample(const SampleArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto tag) {
    for (int64_t row = begin; row < end; ++row) Row<typename decltype(tag)::type>(a, row).run();
  });
}

HONED_END_LEVEL
