// Hidden states out of a forward pass: what the stream holds between layers.
#pragma once
#include "engine/crew.h"
#include "engine/model.h"

namespace honed::engine {

// Which states a forward pass writes. State 0 is the embeddings, state i what layer i - 1 left,
// state num_layers the last one after the final norm.
struct HiddenStates {
  const int64_t* states = nullptr;
  int64_t count = 0;
  int64_t keep = 0;      // last positions of the call
  float* out = nullptr;  // (count, B, keep, C)
  int64_t start = 0;     // of a chunk: position t of it is the kept one start + t, below 0 none

  void check(const Description& description, int64_t time) const;  // throws ValueError
};

// Writes state `state`, where it is asked for, of a chunk: x (B, time, C). Rows are split over the
// threads; no barrier.
void take_hidden(const HiddenStates& asked, const Model& model, const Crew& crew, int64_t state,
                 const float* x, int64_t batch, int64_t time);

}  // namespace honed::engine
