// The rules one after the other, over a sparse row: the logits as given, and the edits so far.
#include "ops/_token_rules.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/check.h"

namespace honed {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float logit_of(const RuleInput& in, int64_t token) {
  switch (in.dtype) {
    case DType::f16:
      return to_float(static_cast<const f16*>(in.logits)[token]);
    case DType::bf16:
      return to_float(static_cast<const bf16*>(in.logits)[token]);
    default:
      return static_cast<const float*>(in.logits)[token];
  }
}

bool has(const std::vector<uint32_t>& mask, int64_t token) {
  return mask[size_t(token >> 5)] >> (token & 31) & 1;
}

bool in_order(const LogitEdit& a, const LogitEdit& b) { return a.token < b.token; }

// Blocks of the row that hold a NaN or an infinity, by their exponents.
template <class Bits>
bool all_finite(const Bits* bits, int64_t count, Bits exponent) {
  Bits odd = 0;
  for (int64_t i = 0; i < count; ++i) odd |= Bits((bits[i] & exponent) == exponent);
  return odd == 0;
}

bool all_finite(const RuleInput& in, int64_t begin, int64_t end) {
  if (in.dtype == DType::f32)
    return all_finite(static_cast<const uint32_t*>(in.logits) + begin, end - begin, 0x7f800000u);
  return all_finite(static_cast<const uint16_t*>(in.logits) + begin, end - begin,
                    uint16_t(in.dtype == DType::f16 ? 0x7c00 : 0x7f80));
}

void check_tokens(const TokenIds& tokens, int64_t vocab, const char* what) {
  for (int64_t token : tokens)
    HONED_CHECK(token >= 0 && token < vocab, "sample: ", what, " names token ", token,
                ", expected one of the vocabulary's ", vocab);
}

struct CheckRule {
  int64_t vocab;
  void operator()(const Bias& rule) const {
    for (const auto& each : rule.singles) check_tokens({each.token}, vocab, "a bias");
    for (const auto& each : rule.sequences) {
      check_tokens({each.token}, vocab, "a sequence with a bias");
      check_tokens(each.before, vocab, "a sequence with a bias");
    }
  }
  void operator()(const Force& rule) const { check_tokens(rule.tokens, vocab, "a forced token"); }
  void operator()(const Decay& rule) const {
    check_tokens(rule.tokens, vocab, "exponential_decay_length_penalty");
  }
  template <class Other>
  void operator()(const Other&) const {}
};

}  // namespace

// One application: rules by std::visit.
struct RuleWork {
  RuleState& state;
  const RuleInput& in;
  RuleScratch& scratch;
  size_t index = 0;  // of the rule

  bool inside(int64_t token) const { return token >= 0 && token < in.vocab; }

  // The row's logit of the token as it is by now, to be changed.
  float& at(int64_t token) {
    int32_t& slot = scratch.slot[size_t(token)];
    if (slot < 0) {
      state.edits_.push_back({int32_t(token), now(token)});
      slot = int32_t(state.edits_.size() - 1);
    }
    return state.edits_[size_t(slot)].logit;
  }
  float now(int64_t token) const {
    if (state.masked_ && !has(state.mask_, token)) return -kInfinity;
    int32_t slot = scratch.slot[size_t(token)];
    return slot < 0 ? logit_of(in, token) : state.edits_[size_t(slot)].logit;
  }
  void forbid(int64_t token) {
    if (inside(token)) at(token) = -kInfinity;
  }

  void operator()(const Bias& rule) {
    // Of a token with several biases, transformers adds these up first, its own bias before the others.
    std::vector<Bias::Single> sums;
    for (const Bias::Sequence& each : rule.sequences) {
      if (!ends_with(each.before)) continue;
      auto sum = std::find_if(sums.begin(), sums.end(),
                              [&](const Bias::Single& s) { return s.token == each.token; });
      if (sum == sums.end()) {
        auto own =
            std::lower_bound(rule.singles.begin(), rule.singles.end(), each.token,
                             [](const Bias::Single& s, int64_t token) { return s.token < token; });
        bool found = own != rule.singles.end() && own->token == each.token;
        sum = sums.insert(sums.end(), {each.token, found ? own->bias : 0.0f});
      }
      sum->bias += each.bias;
    }
    for (const Bias::Single& each : rule.singles) {
      bool summed = std::any_of(sums.begin(), sums.end(),
                                [&](const Bias::Single& s) { return s.token == each.token; });
      if (!summed) at(each.token) += each.bias;
    }
    for (const Bias::Single& sum : sums) at(sum.token) += sum.bias;
  }

  bool ends_with(const TokenIds& before) const {
    int64_t size = int64_t(before.size());
    return size <= in.count && std::equal(before.rbegin(), before.rend(),
                                          std::make_reverse_iterator(in.tokens + in.count));
  }

  const TokenCounts& counts() const { return state.counts_[index]; }

  void operator()(const Repetition& rule) {
    for (const TokenCounts::Entry& entry : counts().entries) {
      float& x = at(entry.token);
      x = x < 0.0f ? x * rule.penalty : x / rule.penalty;
    }
  }

  void operator()(const Frequency& rule) {
    for (const TokenCounts::Entry& entry : counts().entries)
      at(entry.token) -= float(entry.count) * rule.frequency + rule.presence;
  }

  void operator()(const NoRepeat& rule) {
    const TokenIds& encoder = state.rules_->encoder;
    const int64_t* tokens = rule.encoder ? encoder.data() : in.tokens;
    int64_t count = rule.encoder ? int64_t(encoder.size()) : in.count, before = rule.size - 1;
    if (in.count < before || count < rule.size) return;
    const int64_t* end = in.tokens + in.count - before;
    for (int64_t i = 0; i + before < count; ++i) {
      if (before > 0 && tokens[i + before - 1] != end[before - 1]) continue;
      if (std::equal(end, end + before, tokens + i)) forbid(tokens[i + before]);
    }
  }

  void operator()(const Dry& rule) {
    int64_t ignored = std::min(state.rules_->ignored, in.count);
    for (const Repeat& repeat :
         repeats_of(rule, in.tokens + ignored, in.count - ignored, scratch.matches)) {
      bool breaker =
          std::any_of(rule.breakers.begin(), rule.breakers.end(),
                      [&](const TokenIds& b) { return b.size() == 1 && b[0] == repeat.token; });
      if (breaker || !inside(repeat.token)) continue;
      double penalty =
          rule.multiplier * std::pow(rule.base, double(repeat.length - rule.allowed_length));
      at(repeat.token) -= float(std::min<double>(penalty, std::numeric_limits<float>::max()));
    }
  }

  void operator()(const Forbid& rule) {
    if (in.count < rule.from || in.count >= rule.to) return;
    for (int64_t token : rule.tokens) forbid(token);
  }

  // Leaves what both the mask so far and `other` have.
  void mask_with(const uint32_t* other) {
    for (size_t w = 0; w < state.mask_.size(); ++w)
      state.mask_[w] = state.masked_ ? state.mask_[w] & other[w] : other[w];
    if (in.vocab % 32) state.mask_.back() &= (uint32_t(1) << in.vocab % 32) - 1;
    state.masked_ = true;
  }
  template <class Visit>  // of every token of the mask, until one says true
  bool any_of_mask(const Visit& visit) const {
    for (size_t w = 0; w < state.mask_.size(); ++w)
      for (uint32_t bits = state.mask_[w]; bits; bits &= bits - 1)
        if (visit(int64_t(w) * 32 + std::countr_zero(bits))) return true;
    return false;
  }

  void operator()(const Allow&) {
    if (!in.allowed) return;
    mask_with(in.allowed);
    HONED_CHECK(
        any_of_mask([](int64_t) { return true; }),
        "sample: no token is allowed, expected at least one (the constraint cannot be met)");
    if (any_of_mask([&](int64_t token) { return !(now(token) == -kInfinity); })) return;
    any_of_mask([&](int64_t token) {
      at(token) = 0.0f;
      return false;
    });
  }

  void operator()(const Force& rule) {
    if (in.count != rule.length) return;
    state.mask_.assign(state.mask_.size(), 0);
    for (int64_t token : rule.tokens) state.mask_[size_t(token >> 5)] |= 1u << (token & 31);
    state.masked_ = true;
    for (int64_t token : rule.tokens) at(token) = 0.0f;
  }

  void operator()(const Finite&) {
    constexpr float kLargest = std::numeric_limits<float>::max();
    auto mend = [](float x) {
      if (std::isnan(x)) return 0.0f;
      return std::isinf(x) ? std::copysign(kLargest, x) : x;
    };
    constexpr int64_t kBlock = 64;
    for (int64_t begin = 0; begin < in.vocab; begin += kBlock) {
      int64_t end = std::min(begin + kBlock, in.vocab);
      if (!state.masked_ && all_finite(in, begin, end)) continue;
      for (int64_t token = begin; token < end; ++token)
        if (float x = now(token); !std::isfinite(x)) at(token) = mend(x);
    }
    // What a rule made infinite in a block without infinities; what is not allowed has been made finite.
    for (LogitEdit& edit : state.edits_)
      edit.logit = mend(state.masked_ && !has(state.mask_, edit.token) ? -kInfinity : edit.logit);
    state.masked_ = false;
  }

  void operator()(const Decay& rule) {
    if (in.count <= rule.start) return;
    float factor = float(std::pow(rule.factor, double(in.count - rule.start)) - 1.0);
    for (int64_t token : rule.tokens) {
      float& x = at(token);
      if (std::isfinite(x)) x += std::fabs(x) * factor;
    }
  }
};

RuleState::RuleState(std::shared_ptr<const TokenRules> rules)
    : rules_(std::move(rules)), counts_(rules_->rules.size()) {}

bool RuleState::wants_allowed() const {
  return std::any_of(rules_->rules.begin(), rules_->rules.end(),
                     [](const TokenRule& rule) { return std::holds_alternative<Allow>(rule); });
}

// Counts what is new since the last call.
void RuleState::follow(const RuleInput& in) {
  int64_t known = int64_t(seen_.size());
  bool same = known <= in.count && std::equal(seen_.begin(), seen_.end(), in.tokens);
  if (!same) seen_.clear();
  seen_.insert(seen_.end(), in.tokens + seen_.size(), in.tokens + in.count);
  int64_t first = std::min(rules_->ignored, in.count);
  for (size_t i = 0; i < counts_.size(); ++i) {
    TokenCounts& counts = counts_[i];
    const auto* frequency = std::get_if<Frequency>(&rules_->rules[i]);
    const auto* repetition = std::get_if<Repetition>(&rules_->rules[i]);
    if (repetition && repetition->encoder) {
      int64_t size = int64_t(rules_->encoder.size());
      if (counts.end < size || in.vocab != checked_vocab_)
        counts = {}, counts.move_to(rules_->encoder.data(), 0, size, in.vocab);
    } else if (repetition || frequency) {
      if (!same || in.vocab != checked_vocab_) counts = {};
      int64_t window = frequency ? frequency->window : 0;
      int64_t begin = window > 0 ? std::max(first, in.count - window) : first;
      counts.move_to(in.tokens, begin, in.count, in.vocab);
    }
  }
}

void RuleState::apply(const RuleInput& in, RuleScratch& scratch) {
  edits_.clear();
  masked_ = false;
  if (empty()) return;
  follow(in);
  if (checked_vocab_ != in.vocab) {
    for (const TokenRule& rule : rules_->rules) std::visit(CheckRule{in.vocab}, rule);
    checked_vocab_ = in.vocab;
  }
  if (int64_t(scratch.slot.size()) < in.vocab) scratch.slot.assign(size_t(in.vocab), -1);
  mask_.resize(size_t((in.vocab + 31) / 32));
  RuleWork work{*this, in, scratch};
  // However a rule ends, the slots are as they were.
  struct Clean {
    RuleState& state;
    RuleScratch& scratch;
    ~Clean() {
      for (const LogitEdit& edit : state.edits_) scratch.slot[size_t(edit.token)] = -1;
    }
  } clean{*this, scratch};
  // The longest list first, which is in order: little is left to sort.
  const TokenCounts* most = nullptr;
  for (const TokenCounts& counts : counts_)
    if (!most || counts.entries.size() > most->entries.size()) most = &counts;
  if (most)
    for (const TokenCounts::Entry& entry : most->entries) work.at(entry.token);
  for (const TokenRule& rule : rules_->rules) {
    std::visit(work, rule);
    ++work.index;
  }
  auto tail = std::is_sorted_until(edits_.begin(), edits_.end(), in_order);
  if (tail == edits_.end()) return;
  std::sort(tail, edits_.end(), in_order);
  scratch.merged.resize(edits_.size());
  std::merge(edits_.begin(), tail, tail, edits_.end(), scratch.merged.begin(), in_order);
  edits_.swap(scratch.merged);
}

void RuleState::write(float* row, int64_t vocab) const {
  for (const LogitEdit& edit : edits_) row[edit.token] = edit.logit;
  if (!masked_) return;
  for (int64_t v = 0; v < vocab; ++v)
    if (!has(mask_, v)) row[v] = -kInfinity;
}

}  // namespace honed
