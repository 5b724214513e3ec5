// One forward pass of a decoder: tokens in, logits out, keys and values appended to the cache.
#pragma once
#include "engine/cache.h"
#include "engine/hidden.h"
#include "engine/model.h"

namespace honed::engine {

struct Tokens {
  const int64_t* ids;        // (B,T)
  const int64_t* positions;  // (B,T); nullptr: the cache's length + t
  const uint8_t* mask;       // (B, cache length + T), 0: padding; nullptr: none is
  int64_t batch, time;
};

// logits: (B, keep, V) of the last `keep` positions. `hidden`, checked, is written too. Checks
// ids, positions and lengths; throws ValueError before anything is changed.
void forward(const Model& model, Cache& cache, const Tokens& tokens, int64_t keep, float* logits,
             HiddenStates hidden = {});

}  // namespace honed::engine
