// One token a row of logits: what the options of the row keep, one of it drawn.
//
//   y = logits, edited tokens having their other logit, tokens that are not allowed -infinity
//   x = y / temperature     weight = e^(x - max x)     p = weight / sum of the kept weights
//   out = the first kept token, in vocabulary order, at which the running sum of the kept weights
//         exceeds random_uniform(seed, counter) * (sum of all kept weights)
//
// Kept: the filters in this order, each judging what the one before left. `floor` is
// min_tokens_to_keep. "Largest first" and "smallest first" order equal x by their index:
// of equal x the one with the lower index is the smaller.
//   dynatemp     temperature is max(0, temperature - range) + (what is left to temperature + range)
//                * (H / log n)^exponent, H the entropy of softmax(y), n the tokens above -infinity
//   top_n_sigma  x >= max x - top_n_sigma * (standard deviation of the x above -infinity)
//   top_h        of the 100 largest, largest first: those up to which the sum of -p log p is at most
//                top_h of it all; the largest always
//   top_k        x >= the max(top_k, floor)-th largest x: ties with it are all kept
//   top_p        smallest first, tokens are dropped while their p sum to at most 1 - top_p; the
//                `floor` largest are kept
//   min_p        p >= min_p * the largest p, and the `floor` largest
//   typical_p    the least |-log p - H| first: tokens until their p sum to typical_p, and ties with
//                the last of them; the first `floor` are kept (of equals: lower index first)
//   epsilon      p >= epsilon_cutoff, and x >= the floor-th largest x
//   eta          p >= min(eta, sqrt(eta) e^-H), and x >= the floor-th largest x
//   xtc          with a probability of xtc_probability (a uniform number of its own): of the tokens
//                of p >= xtc_threshold all but the smallest are dropped, if `floor` tokens stay
//   mirostat     replaces all filters. 1: the k largest, k from tau's estimate of the Zipf exponent
//                of the 100 largest; 2: -log2 p <= mu; the largest always. Then
//                mu -= mirostat_eta * (-log2 of the drawn token's kept p - mirostat_tau)
//
// Weights and sums are f64, computed the same way at every CPU level: the token is the same too.
// Sums of f32 weights answer where their error, which is bounded, cannot change the token.
// do_sample false, or temperature 0: the first largest y; no filter is read. A row with +infinity
// gives the first of them; one whose x all are -infinity (y are finite) the first largest y. Parallel
// over rows.
#pragma once
#include "core/tensor_view.h"

namespace honed {

// Of one row; as initialised everything is off.
struct SampleOptions {
  bool do_sample = true;
  float temperature = 1.0f, dynatemp_range = 0.0f, dynatemp_exponent = 1.0f;
  double top_n_sigma = 0.0;                          // 0: off
  double top_h = 0.0;                                // 0: off
  double top_p = 1.0, min_p = 0.0, typical_p = 1.0;  // 1, 0, 1: off
  double epsilon_cutoff = 0.0, eta_cutoff = 0.0;     // 0: off
  double xtc_probability = 0.0, xtc_threshold = 0.1;
  int64_t top_k = 0;  // 0: off
  int64_t min_tokens_to_keep = 1;
  int mirostat = 0;  // 0: off
  double mirostat_tau = 5.0, mirostat_eta = 0.1;
};

// The logit a token has instead of its own.
struct LogitEdit {
  int32_t token;
  float logit;
};

// A row, beside its logits.
struct SampleRow {
  SampleOptions options;
  const LogitEdit* edits = nullptr;  // tokens in rising order, each once
  int64_t edit_count = 0;
  const uint32_t* allowed = nullptr;  // bit token % 32 of word token / 32; null: all are
  uint64_t seed = 0, counter = 0;     // read where something is drawn
  double* mirostat_mu = nullptr;      // read and written by mirostat; begins as 2 tau
};

struct SampleArgs {
  const void* logits;  // f32, f16 or bf16, unit stride along V
  int64_t rows, vocab, stride;
  DType dtype;
  const SampleRow* row;           // one a row
  int64_t* out;                   // one a row
  float* logprob = nullptr;       // of out, one a row; null: not asked for
  bool logprob_of_drawn = false;  // log p of what was kept; else log_softmax of the logits given
                                  // within 3e-7 of itself, or 1e-12
  int64_t top_n = 0;              // likeliest tokens, by the same log-probabilities,
  int64_t* top_ids = nullptr;     // (rows, top_n), equal ones by index; -1 where fewer are kept
  float* top_logprobs = nullptr;  // (rows, top_n); -infinity there
  float* scores = nullptr;        // (rows, V): x where kept, -infinity elsewhere; or null
  float* scratch = nullptr;       // sample_scratch_floats(), 64-byte aligned: one a kernel call
  int32_t* status = nullptr;      // a SampleStatus a row
};

// A row that has no token. Of kNan, out is the index of the first NaN.
enum SampleStatus : int32_t { kSampled = 0, kNan = 1, kNothingToSample = 2 };

int64_t sample_scratch_floats(int64_t vocab);

// Throws ValueError that names the option and its row.
void check_sample_options(const SampleRow* row, int64_t rows);

// Draws every row on the threads; scratch and status are its own. Throws ValueError that names the
// first row whose status is not kSampled. Options and edits have been checked.
void sample(SampleArgs args);

// args.logits and so on from a (B,V) view; refuses other shapes and types.
void set_logits(SampleArgs* args, const TensorView& logits);

}  // namespace honed
