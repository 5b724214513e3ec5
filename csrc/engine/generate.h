// The decoding loop: prompt in, tokens out, one at a time.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/step.h"
#include "ops/_token_rules.h"

namespace honed::engine {

struct GenerateOptions {
  int64_t max_new_tokens;
  std::vector<int64_t> stop;  // a row that makes one of them is finished
  int64_t pad;                // what a finished row goes on with; -1: with tokens of its own
  std::vector<SampleOptions> rows;
  std::vector<uint64_t> seeds;
  std::vector<RuleState> rules;
};

// (B,V) each, written where not null: the model's logits, and what the rules and filters left of
// them.
struct StepRecord {
  float *logits, *scores;
};

// What the caller does between the steps; any may be absent.
struct GenerateHooks {
  // The tokens that may be chosen, (B, ceil(V / 32)) words, a bit a token. Asked where a row's rules
  // want it.
  std::function<const uint32_t*()> allowed;
  std::function<StepRecord()> record;
  // Each step's tokens, one a row; it may set rows finished. True stops.
  std::function<bool(const std::vector<int64_t>& tokens, std::vector<char>& finished)> on_tokens;
};

// New tokens, one vector a step. The prompt's positions (where given) are continued by counting on
// from each row's last one; new tokens are never padding.
std::vector<std::vector<int64_t>> generate(const Model& model, Cache& cache, const Tokens& prompt,
                                           GenerateOptions& options, const GenerateHooks& hooks);

}  // namespace honed::engine
