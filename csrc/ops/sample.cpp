// sample: checks, scratch memory for each thread, refusal of rows without a token.
#include "ops/sample.h"

#include <cmath>
#include <vector>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

int64_t sample_scratch_floats(int64_t vocab) {
  constexpr int64_t kBlock = 32, kBins = 2048;  // as in the kernel
  int64_t blocks = (vocab + kBlock - 1) / kBlock;
  // two lists of 8-byte entries, block sums and bins in f64, x, block maxima
  return blocks * kBlock * 5 + blocks * 3 + kBins * 2;
}

void check_sample_options(const SampleRow* row, int64_t rows) {
  for (int64_t i = 0; i < rows; ++i) {
    const SampleOptions& o = row[i].options;
    HONED_CHECK(std::isfinite(o.temperature) && o.temperature >= 0.0f, "sample: temperature is ",
                o.temperature, ", expected a finite number of at least 0");
    HONED_CHECK(o.top_k >= 0, "sample: top_k is ", o.top_k, ", expected at least 0 (0: off)");
    HONED_CHECK(o.top_p > 0.0 && o.top_p <= 1.0, "sample: top_p is ", o.top_p,
                ", expected a number in (0, 1]");
    HONED_CHECK(o.min_p >= 0.0 && o.min_p <= 1.0, "sample: min_p is ", o.min_p,
                ", expected a number in [0, 1]");
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
