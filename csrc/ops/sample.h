// One token a row of logits: out[b] = the first kept token, in vocabulary order, at which the
// running sum of the kept weights exceeds u * (sum of all kept weights).      logits: (B,V), out:
// (B,)
//
//   x = logits / temperature     weight = e^(x - max x)     u = random_uniform(seeds[b], counter)
//
// Kept, each step judging what the one before left (transformers' order and meaning):
//   top_k   x >= the top_k-th largest x: ties with it are all kept
//   top_p   the smallest weights are dropped while their sum is at most (1 - top_p) of all; of
//   equal
//           weights the one with the lower index goes first; the largest is always kept
//   min_p   weight >= min_p * the largest weight
//
// Weights and sums are f64, computed the same way at every CPU level: the token is the same too.
// do_sample false, or temperature 0: the first largest logit. A row with +infinity gives the first
// of them. Parallel over rows.
#pragma once
#include "core/tensor_view.h"

namespace honed {

struct SampleArgs {
  const void* logits;  // f32, f16 or bf16, unit stride along V
  int64_t rows, vocab, stride;
  DType dtype;
  int64_t* out;
  const uint64_t* seeds;  // one a row
  uint64_t counter;
  float temperature;
  double top_p, min_p;  // 1 and 0: off
  int64_t top_k;        // 0: off
  bool do_sample;
  float* scratch;   // sample_scratch_floats(), 64-byte aligned, for one row at a time: one a kernel
                    // call
  int32_t* status;  // a SampleStatus a row
};

// A row that has no token. Of kNan, out is the index of the first NaN.
enum SampleStatus : int32_t { kSampled = 0, kNan = 1, kNothingToSample = 2 };

int64_t sample_scratch_floats(const SampleArgs& args);

// Throws ValueError that names the first row whose status is not kSampled.
void check_sampled(const SampleArgs& args);

// logits is (B,V); out holds B; seeds B, unused (and may be null) where nothing is drawn.
void sample(int64_t* out, const TensorView& logits, float temperature, int64_t top_k, double top_p,
            double min_p, bool do_sample, const uint64_t* seeds, uint64_t counter);

}  // namespace honed
