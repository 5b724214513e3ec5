// What generation's rules change of a row of logits, given the tokens so far: the few logits that
// get another value, and the set of tokens that may be chosen. No rule but `Finite` passes over the
// vocabulary. Rules are done in the order in which they stand; the values are those of transformers'
// LogitsProcessors, computed in float32 as there.
#pragma once
#include <memory>
#include <variant>
#include <vector>

#include "core/dtype.h"
#include "ops/sample.h"

namespace honed {

using TokenIds = std::vector<int64_t>;

// x + the sum of its biases: of the token alone, and of the sequences that it would complete.
struct Bias {
  struct Single {
    int64_t token;
    float bias;
  };
  struct Sequence {
    TokenIds before;  // what the tokens so far end with
    int64_t token;
    float bias;
  };
  std::vector<Single> singles;  // sorted by token, each once
  std::vector<Sequence> sequences;
};

// x < 0 ? x * penalty : x / penalty, once for every token that stands so far (or in the encoder's
// input).
struct Repetition {
  float penalty;
  bool encoder;
};

// x - presence - frequency * n, of tokens that stand n > 0 times among the last `window` (0: all).
struct Frequency {
  float presence, frequency;
  int64_t window;
};

// -inf for what would complete a sequence of `size` tokens that stands so far (or in the encoder's
// input).
struct NoRepeat {
  int64_t size;
  bool encoder;
};

// DRY: x - multiplier * base^(n - allowed_length) for a token that would lengthen a repetition of n >=
// allowed_length tokens: the tokens so far end with n tokens that stood before, followed by it (the
// longest such n). Only the last `window` tokens (0: all) and those behind the last breaker count;
// a breaker of one token is never penalised.
struct Dry {
  double multiplier, base;
  int64_t allowed_length, window;
  std::vector<TokenIds> breakers;  // token sequences, none empty
};

// -inf while from <= tokens so far < to. Tokens beyond the vocabulary are passed over.
struct Forbid {
  TokenIds tokens;
  int64_t from, to;
};

// -inf outside of the call's set of allowed tokens. Where all of the set have -inf, they get 0.
struct Allow {};

// After `length` tokens: 0 for these, -inf for all others.
struct Force {
  TokenIds tokens;
  int64_t length;
};

// NaN becomes 0, infinities the largest and smallest float32. Reads the whole row.
struct Finite {};

// Of finite x, after n > start tokens: x + |x| * (factor^(n - start) - 1).
struct Decay {
  TokenIds tokens;
  int64_t start;
  double factor;
};

using TokenRule =
    std::variant<Bias, Repetition, Frequency, NoRepeat, Dry, Forbid, Allow, Force, Finite, Decay>;

struct TokenRules {
  std::vector<TokenRule> rules;
  TokenIds encoder;     // of the encoder's input, for the rules that read it
  int64_t ignored = 0;  // leading tokens that Repetition, Frequency and Dry pass over: padding
};

struct RuleInput {
  const void* logits;  // one row, unit stride
  DType dtype;         // f32, f16 or bf16
  int64_t vocab;
  const int64_t* tokens;  // all so far, the prompt's too
  int64_t count;
  const uint32_t* allowed;  // a bit a token, for Allow; null: all
};

// How often every token of a stretch of the history stands in it, sorted by token.
struct TokenCounts {
  struct Entry {
    int32_t token, count;
  };
  std::vector<Entry> entries;
  int64_t begin = 0, end = 0;

  // `tokens` is the same history as before, and may have grown.
  void move_to(const int64_t* tokens, int64_t begin, int64_t end, int64_t vocab);
};

// Working memory, one a thread.
struct RuleScratch {
  std::vector<int32_t> slot;  // of a token among the edits, -1: none
  std::vector<LogitEdit> merged;
  std::vector<int32_t> matches;
};

// One row's rules and what they remember of its history from step to step. The history may be any:
// what is remembered is used as far as it fits.
class RuleState {
 public:
  explicit RuleState(std::shared_ptr<const TokenRules> rules);

  bool empty() const { return rules_->rules.empty(); }
  bool wants_allowed() const;  // has Allow among its rules

  // Sets edits() and allowed() for these logits. Throws ValueError where a rule names a token beyond
  // the vocabulary or the set of allowed tokens is empty.
  void apply(const RuleInput& input, RuleScratch& scratch);

  const std::vector<LogitEdit>& edits() const { return edits_; }  // sorted, each token once
  const uint32_t* allowed() const { return masked_ ? mask_.data() : nullptr; }  // null: all
  void write(float* row, int64_t vocab) const;  // both into the row: a token not allowed gets -inf

 private:
  friend struct RuleWork;
  void follow(const RuleInput& input);

  std::shared_ptr<const TokenRules> rules_;
  TokenIds seen_;                    // the history that the counts stand for
  std::vector<TokenCounts> counts_;  // one a rule, used by those that count
  std::vector<LogitEdit> edits_;
  std::vector<uint32_t> mask_;
  bool masked_ = false;
  int64_t checked_vocab_ = -1;
};

// For Dry: (token, length) of every repetition of at least `allowed_length` that the token would
// lengthen, sorted by token, the longest only. Linear in the window.
struct Repeat {
  int64_t token;  // any that stands in the history
  int32_t length;
};
std::vector<Repeat> repeats_of(const Dry& rule, const int64_t* tokens, int64_t count,
                               std::vector<int32_t>& matches);

}  // namespace honed
