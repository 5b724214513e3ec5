// sample: checks, scratch memory for each thread, refusal of rows without a token.
#include "ops/sample.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

namespace {
// Refuses a number outside of [low, high]; (low, high] where `open`.
void check_number(int64_t row, const char* name, double value, double low, double high, bool open) {
  bool above = open ? value > low : value >= low;
  HONED_CHECK(above && value <= high && std::isfinite(value), "sample: ", name, " of row ", row,
              " is ", value, ", expected a ", std::isfinite(high) ? "number" : "finite number",
              open ? " above " : " of at least ", low,
              std::isfinite(high) ? " and at most " + std::to_string(int(high)) : "");
}
}  // namespace

int64_t sample_scratch_floats(int64_t vocab) {
  constexpr int64_t kBlock = 32;  // as in the kernel
  auto padded = [](int64_t n) { return (n + kBlock - 1) / kBlock * kBlock; };
  int64_t blocks = padded(padded(vocab) / kBlock);
  // block maxima and first edits; weights, keys and their weights (8 bytes), x, indices; rough sums
  return 2 * blocks + 8 * (padded(vocab) + kBlock) + 2 * blocks / kBlock;
}

void check_sample_options(const SampleRow* row, int64_t rows) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < rows; ++i) {
    const SampleOptions& o = row[i].options;
    check_number(i, "temperature", o.temperature, 0, kInfinity, false);
    check_number(i, "dynatemp_range", o.dynatemp_range, 0, kInfinity, false);
    check_number(i, "temperature + dynatemp_range", o.temperature + o.dynatemp_range, 0, kInfinity,
                 false);
    check_number(i, "dynatemp_exponent", o.dynatemp_exponent, 0, kInfinity, false);
    check_number(i, "top_n_sigma", o.top_n_sigma, 0, kInfinity, false);
    check_number(i, "top_h", o.top_h, 0, 1, false);
    HONED_CHECK(o.top_k >= 0, "sample: top_k of row ", i, " is ", o.top_k,
                ", expected at least 0 (0: off)");
    check_number(i, "top_p", o.top_p, 0, 1, true);
    check_number(i, "min_p", o.min_p, 0, 1, false);
    check_number(i, "typical_p", o.typical_p, 0, 1, true);
    check_number(i, "epsilon_cutoff", o.epsilon_cutoff, 0, 1, false);
    check_number(i, "eta_cutoff", o.eta_cutoff, 0, 1, false);
    check_number(i, "xtc_probability", o.xtc_probability, 0, 1, false);
    check_number(i, "xtc_threshold", o.xtc_threshold, 0, 1, false);
    HONED_CHECK(o.min_tokens_to_keep >= 1, "sample: min_tokens_to_keep of row ", i, " is ",
                o.min_tokens_to_keep, ", expected at least 1");
    HONED_CHECK(o.mirostat >= 0 && o.mirostat <= 2, "sample: mirostat of row ", i, " is ",
                o.mirostat, ", expected 0 (off), 1 or 2");
    HONED_CHECK(o.mirostat == 0 || row[i].mirostat_mu, "sample: row ", i,
                " has mirostat and no mu, expected one");
    check_number(i, "mirostat_tau", o.mirostat_tau, 0, kInfinity, false);
    check_number(i, "mirostat_eta", o.mirostat_eta, 0, kInfinity, false);
  }
}

void set_logits(SampleArgs* args, const TensorView& logits) {
  HONED_CHECK_TYPE(is_float(logits.dtype), "sample: logits are ", name_of(logits.dtype),
                   ", expected float32, float16 or bfloat16");
  HONED_CHECK(
      logits.ndim == 2 && logits.size(1) > 0 && (logits.stride(1) == 1 || logits.size(1) == 1),
      "sample: logits have shape ", shape_of(logits),
      ", expected (B,V), V > 0, with unit stride along V");
  args->logits = logits.data;
  args->rows = logits.size(0);
  args->vocab = logits.size(1);
  args->stride = logits.stride(0);
  args->dtype = logits.dtype;
}

void sample(SampleArgs args) {
  std::vector<int32_t> status(size_t(args.rows));
  args.status = status.data();
  parallel_for(args.rows, cpu::grain_for(args.vocab), [&](int64_t begin, int64_t end) {
    Scratch scratch(sample_scratch_floats(args.vocab) * int64_t(sizeof(float)));
    SampleArgs mine = args;
    mine.scratch = scratch.as<float>();
    cpu::kernels().sample(mine, begin, end);
  });
  for (int64_t row = 0; row < args.rows; ++row) {
    HONED_CHECK(status[size_t(row)] != kNan, "sample: logits[", row, ", ", args.out[row],
                "] is NaN, expected numbers");
    HONED_CHECK(status[size_t(row)] != kNothingToSample, "sample: every logit of row ", row,
                " is -inf, expected at least one token that may be chosen");
  }
}

}  // namespace honed
