// The decoding loop: prompt in, tokens out, one at a time.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/step.h"

namespace honed::engine {

struct GenerateOptions {
  int64_t max_new_tokens;
  std::vector<int64_t> stop;  // a row that makes one of them is finished
  int64_t pad;                // what a finished row goes on with
  bool do_sample;
  float temperature;
  int64_t top_k;
  double top_p, min_p;
  std::vector<uint64_t> seeds;  // one a row; read where do_sample
};

// Called with each step's tokens, one a row; true stops.
using OnTokens = std::function<bool(const std::vector<int64_t>&)>;

// New tokens, one vector a step. The prompt's positions (where given) are continued by counting on
// from each row's last one; new tokens are never padding.
std::vector<std::vector<int64_t>> generate(const Model& model, Cache& cache, const Tokens& prompt,
                                           const GenerateOptions& options,
                                           const OnTokens& on_tokens);

}  // namespace honed::engine
