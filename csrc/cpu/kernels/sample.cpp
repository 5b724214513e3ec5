// One token a row without sorting the vocabulary: the maxima of small blocks say where the large
// logits are, and what a filter leaves is compacted for the next one.
#include "ops/sample.h"

#include "cpu/kernels/sample_filters.h"
#include "cpu/visit.h"

HONED_BEGIN_LEVEL

namespace {

constexpr int64_t kFew = 4;  // of so many blocks one may be looked at again for top_k

template <class T>
class Row {
 public:
  Row(const SampleArgs& args, int64_t row)
      : a_(args),
        at_(row),
        row_(args.row[row]),
        logits_(logits_of(args.row[row])),
        tokens_(args.scratch + 2 * padded(blocks_of(args.vocab)), args.vocab) {}

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
    bool done = take_nucleus(temperature);
    if (!done) take(temperature);
    Filters(tokens_, row_).run(a_.vocab, done);
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
    if (!a_.scores && !a_.logprob && a_.top_n == 0) return;
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

  // Far from where x loses digits.
  static bool ordinary(float least, float temperature) {
    float size = (least < 0.0f ? -least : least) / temperature;
    return size > 1e-30f && size < 1e30f;
  }

  // What top_p keeps, where it is the first filter and sums in f32 are enough to tell.
  bool take_nucleus(float temperature) {
    const SampleOptions& o = row_.options;
    if (o.mirostat != 0 || o.top_n_sigma > 0.0 || o.top_h > 0.0 || o.top_k > 0 || o.top_p == 1.0)
      return false;
    float top = logits_.largest() / temperature;
    if (!(top < 1e4f && top > -1e4f)) return false;
    Rough rough(top);
    double total = logits_.rough_total(temperature, rough), share = 1.0 - o.top_p;
    // All tokens below this together are less than what top_p drops.
    double depth =
        __builtin_log(0.999 * share * total / rough.exact(double(top)) / double(a_.vocab));
    double y = double(logits_.largest()) + (depth - 1e-3) * double(temperature);
    float least = float(y - 1e-6 * (y < 0.0 ? -y : y));
    if (!ordinary(least, temperature)) return false;
    tokens_.take_from(logits_, temperature, least);
    Cut cut;
    bool clear = tokens_.roughly_without(share, total, rough, &cut) &&
                 tokens_.count() >= o.min_tokens_to_keep;
    if (!clear) return false;
    tokens_.keep(lower_of(cut, tokens_.largest(o.min_tokens_to_keep)));
    return true;
  }

  // All tokens, or those that the first filter can leave.
  void take(float temperature) {
    const SampleOptions& o = row_.options;
    int64_t floor = o.min_tokens_to_keep, blocks = logits_.blocks(), k = 0;
    bool plain = o.mirostat == 0 && o.top_n_sigma == 0.0;
    if (plain && o.top_h > 0.0)
      k = kRanked;
    else if (plain && o.top_k > 0)
      k = o.top_k > floor ? o.top_k : floor;
    float top = logits_.largest(), least = -kInfinity;
    if (k > 0 && k <= blocks / kFew) {
      // k blocks, so k tokens, have something as large. x may round equal for a little less.
      least = reached_by(logits_.block_maxima(), padded(blocks), k, k / 8, top);
      least -= 1e-6f * (least < 0.0f ? -least : least);
    } else if (plain && k == 0 && o.top_p == 1.0 && o.min_p > 0.0 && floor == 1) {
      double x = double(top) / double(temperature) + __builtin_log(o.min_p);
      double y = product(x, double(temperature));
      least = float(y - 1e-5 * (y < 0.0 ? -y : y) - 1e-5 * double(temperature));
    }
    if (ordinary(least, temperature))
      tokens_.take_from(logits_, temperature, least);
    else
      tokens_.take_all(logits_, temperature);
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

  // Scores, then log-probabilities: of what was kept, or of the logits as given.
  void report() {
    if (a_.scores) {
      float* scores = a_.scores + at_ * a_.vocab;
      for (int64_t i = 0; i < a_.vocab; ++i) scores[i] = -kInfinity;
      for (int64_t i = 0; i < tokens_.count(); ++i) scores[tokens_.id(i)] = tokens_.x(i);
    }
    if (!a_.logprob && a_.top_n == 0) return;
    SampleRow plain;
    bool finite = true;
    if (!a_.logprob_of_drawn) {
      Logits<T> given = logits_of(plain);
      given.survey();
      finite = !given.has_nan() && given.largest() != kInfinity;
      tokens_.take_all(given, 1.0f);
    }
    tokens_.weigh();
    double log_total = finite ? __builtin_log(tokens_.total()) : double(__builtin_nanf(""));
    if (a_.logprob) {
      a_.logprob[at_] = -kInfinity;
      for (int64_t i = 0; i < tokens_.count(); ++i)
        if (tokens_.id(i) == a_.out[at_]) a_.logprob[at_] = float(tokens_.distance(i) - log_total);
    }
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
};

}  // namespace

void sample(const SampleArgs& a, int64_t begin, int64_t end) {
  visit_float(a.dtype, [&](auto tag) {
    for (int64_t row = begin; row < end; ++row) Row<typename decltype(tag)::type>(a, row).run();
  });
}

HONED_END_LEVEL
