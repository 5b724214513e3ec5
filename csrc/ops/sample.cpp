// sample: checks, scratch memory for each thread, refusal of rows without a token.
#include "ops/sample.h"

#include <cmath>
#include <vector>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

int64_t sample_scratch_floats(const SampleArgs& args) {
  constexpr int64_t kBlock = 32, kBins = 2048;  // as in the kernel
  int64_t blocks = (args.vocab + kBlock - 1) / kBlock;
  // two lists of 8-byte entries, block sums and bins in f64, x, block maxima
  return blocks * kBlock * 5 + blocks * 3 + kBins * 2;
}

void check_sampled(const SampleArgs& args) {
  for (int64_t row = 0; row < args.rows; ++row) {
    HONED_CHECK(args.status[row] != kNan, "sample: logits[", row, ", ", args.out[row],
                "] is NaN, expected numbers");
    HONED_CHECK(args.status[row] != kNothingToSample, "sample: every logit of row ", row,
                " is -inf, expected at least one token that may be chosen");
  }
}

void sample(int64_t* out, const TensorView& logits, float temperature, int64_t top_k, double top_p,
            double min_p, bool do_sample, const uint64_t* seeds, uint64_t counter) {
  HONED_CHECK_TYPE(is_float(logits.dtype), "sample: logits are ", name_of(logits.dtype),
                   ", expected float32, float16 or bfloat16");
  HONED_CHECK(
      logits.ndim == 2 && logits.size(1) > 0 && (logits.stride(1) == 1 || logits.size(1) == 1),
      "sample: logits have shape ", shape_of(logits),
      ", expected (B,V), V > 0, with unit stride along V");
  HONED_CHECK(std::isfinite(temperature) && temperature >= 0.0f, "sample: temperature is ",
              temperature, ", expected a finite number of at least 0");
  HONED_CHECK(top_k >= 0, "sample: top_k is ", top_k, ", expected at least 0 (0: off)");
  HONED_CHECK(top_p > 0.0 && top_p <= 1.0, "sample: top_p is ", top_p,
              ", expected a number in (0, 1]");
  HONED_CHECK(min_p >= 0.0 && min_p <= 1.0, "sample: min_p is ", min_p,
              ", expected a number in [0, 1]");
  std::vector<int32_t> status(size_t(logits.size(0)));
  SampleArgs args{logits.data, logits.size(0), logits.size(1), logits.stride(0), logits.dtype,
                  out,         seeds,          counter,        temperature,      top_p,
                  min_p,       top_k,          do_sample,      nullptr,          status.data()};
  parallel_for(args.rows, cpu::grain_for(args.vocab), [&](int64_t begin, int64_t end) {
    Scratch scratch(sample_scratch_floats(args) * int64_t(sizeof(float)));
    SampleArgs mine = args;
    mine.scratch = scratch.as<float>();
    cpu::kernels().sample(mine, begin, end);
  });
  check_sampled(args);
}

}  // namespace honed
