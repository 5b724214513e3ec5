// Hidden states out of a forward pass: what the stream holds between layers.
#pragma once
#include "engine/crew.h"
#include "engine/model.h"

namespace honed::engine {

// Which states a forward pass writes. State 0 is the embeddings, state i what layer i - 1 left,
// state num_layers the last one after the final norm.
struct HiddenStates {
  const int64_t* states;
  int64_t count;
  int64_t keep;  // last positions of the call
  float* out;    // (count, B, keep, C)

  void check(const Description& description, int64_t time) const;  // throws ValueError
};

// Writes state `state`, where it is asked for, of a chunk: x (B, time, C), whose position t is the
// kept position start + t (below 0: not kept). Rows are split over the threads; no barrier.
void take_hidden(const HiddenStates& asked, const Model& model, const Crew& crew, int64_t state,
                 const float* x, int64_t batch, int64_t time, int64_t start);

}  // namespace honed::engine
