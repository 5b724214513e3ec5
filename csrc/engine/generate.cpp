// forward, rules, sample, stop; again.
#include "engine/generate.h"

#include <algorithm>
#include <cstring>

#include "core/check.h"
#include "ops/sample.h"

namespace honed::engine {

namespace {

void check(const GenerateOptions& o, const Cache& cache, int64_t batch, int64_t prompt) {
  HONED_CHECK(prompt > 0, "generate: the prompt is empty, expected at least one token");
  HONED_CHECK(o.max_new_tokens >= 0, "generate: max_new_tokens is ", o.max_new_tokens,
              ", expected 0 or more");
  auto one_a_row = [batch](size_t count, const char* what) {
    HONED_CHECK(int64_t(count) == batch, "generate: ", count, " ", what,
                ", expected one for each of ", batch, " rows");
  };
  one_a_row(o.rows.size(), "sets of options");
  one_a_row(o.rules.size(), "sets of rules");
  bool draws = std::any_of(o.rows.begin(), o.rows.end(), [](const auto& r) { return r.do_sample; });
  if (draws) one_a_row(o.seeds.size(), "seeds");
  HONED_CHECK(
      std::max<int64_t>(o.max_new_tokens - 1, 0) <= cache.max_length() - cache.length() - prompt,
      "generate: a prompt of ", prompt, " tokens after ", cache.length(), " and ", o.max_new_tokens,
      " new ones, expected at most ", cache.max_length(), " together (the model's positions)");
}

// What chooses a step's tokens: the rows' rules, then `sample`.
class Chooser {
 public:
  Chooser(GenerateOptions& options, const GenerateHooks& hooks, const Tokens& prompt, int64_t vocab)
      : options_(options),
        hooks_(hooks),
        batch_(prompt.batch),
        vocab_(vocab),
        rows_(static_cast<size_t>(batch_)),
        mu_(static_cast<size_t>(batch_)) {
    for (size_t b = 0; b < rows_.size(); ++b) {
      rows_[b].options = options.rows[b];
      if (rows_[b].options.do_sample) rows_[b].seed = options.seeds[b];
      mu_[b] = 2.0 * rows_[b].options.mirostat_tau;
      rows_[b].mirostat_mu = &mu_[b];
      wants_allowed_ = wants_allowed_ || options.rules[b].wants_allowed();
      ruled_ = ruled_ || !options.rules[b].empty();
      const int64_t* ids = prompt.ids + int64_t(b) * prompt.time;
      history_.emplace_back(ids, ids + prompt.time);
    }
    check_sample_options(rows_.data(), batch_);
  }

  // Changes the logits (B,V).
  void choose(float* logits, float* scores, int64_t step, std::vector<int64_t>* ids) {
    if (ruled_) apply_rules(logits);
    SampleArgs args{};
    args.logits = logits;
    args.rows = batch_;
    args.vocab = args.stride = vocab_;
    args.dtype = DType::f32;
    args.row = rows_.data();
    args.out = ids->data();
    args.scores = scores;
    for (SampleRow& row : rows_) row.counter = uint64_t(step);
    sample(args);
    // Of a greedy row, what the rules left: there is no temperature and no filter.
    for (int64_t b = 0; scores && b < batch_; ++b)
      if (!rows_[size_t(b)].options.do_sample)
        std::memcpy(scores + b * vocab_, logits + b * vocab_, size_t(vocab_) * sizeof(float));
  }

  void append(const std::vector<int64_t>& ids) {
    for (size_t b = 0; ruled_ && b < history_.size(); ++b) history_[b].push_back(ids[b]);
  }

 private:
  void apply_rules(float* logits) {
    const uint32_t* allowed = wants_allowed_ && hooks_.allowed ? hooks_.allowed() : nullptr;
    for (int64_t b = 0; b < batch_; ++b) {
      RuleState& rules = options_.rules[size_t(b)];
      if (rules.empty()) continue;
      float* row = logits + b * vocab_;
      const TokenIds& tokens = history_[size_t(b)];
      const uint32_t* mask = allowed ? allowed + b * ((vocab_ + 31) / 32) : nullptr;
      rules.apply({row, DType::f32, vocab_, tokens.data(), int64_t(tokens.size()), mask}, scratch_);
      rules.write(row, vocab_);
    }
  }

  GenerateOptions& options_;
  const GenerateHooks& hooks_;
  int64_t batch_, vocab_;
  std::vector<SampleRow> rows_;
  std::vector<double> mu_;
  std::vector<TokenIds> history_;
  RuleScratch scratch_;
  bool ruled_ = false, wants_allowed_ = false;
};

}  // namespace

std::vector<std::vector<int64_t>> generate(const Model& model, Cache& cache, const Tokens& prompt,
                                           GenerateOptions& o, const GenerateHooks& hooks) {
  int64_t batch = prompt.batch, vocab = model.description.vocab_size;
  check(o, cache, batch, prompt.time);
  Chooser chooser(o, hooks, prompt, vocab);
  std::vector<std::vector<int64_t>> made;
  std::vector<float> logits(size_t(batch * vocab));
  std::vector<int64_t> ids(static_cast<size_t>(batch)), positions(static_cast<size_t>(batch));
  std::vector<char> finished(size_t(batch), 0);
  for (int64_t b = 0; prompt.positions && b < batch; ++b)
    positions[size_t(b)] = prompt.positions[b * prompt.time + prompt.time - 1];
  std::vector<uint8_t> mask;
  int64_t width = cache.length() + prompt.time;  // of the mask

  Tokens tokens = prompt;
  for (int64_t step = 0; step < o.max_new_tokens; ++step) {
    forward(model, cache, tokens, 1, logits.data());
    StepRecord record = hooks.record ? hooks.record() : StepRecord{};
    if (record.logits) std::memcpy(record.logits, logits.data(), logits.size() * sizeof(float));
    chooser.choose(logits.data(), record.scores, step, &ids);
    for (int64_t b = 0; b < batch; ++b) {
      if (finished[size_t(b)] && o.pad >= 0)
        ids[size_t(b)] = o.pad;
      else if (std::find(o.stop.begin(), o.stop.end(), ids[size_t(b)]) != o.stop.end())
        finished[size_t(b)] = 1;
    }
    made.push_back(ids);
    chooser.append(ids);
    bool stops = hooks.on_tokens && hooks.on_tokens(ids, finished);
    if (stops || std::find(finished.begin(), finished.end(), 0) == finished.end()) break;

    tokens = {ids.data(), nullptr, nullptr, batch, 1};
    if (prompt.positions) {
      for (int64_t& position : positions) ++position;
      tokens.positions = positions.data();
    }
    if (prompt.mask) {
      std::vector<uint8_t> wider(size_t(batch * (width + 1)), 1);
      const uint8_t* before = mask.empty() ? prompt.mask : mask.data();
      for (int64_t b = 0; b < batch; ++b)
        std::copy(before + b * width, before + (b + 1) * width, wider.begin() + b * (width + 1));
      mask = std::move(wider);
      ++width;
      tokens.mask = mask.data();
    }
  }
  return made;
}

}  // namespace honed::engine
