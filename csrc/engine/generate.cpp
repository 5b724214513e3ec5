// forward, sample, stop; again.
#include "engine/generate.h"

#include <algorithm>

#include "core/check.h"
#include "ops/sample.h"

namespace honed::engine {

namespace {

void check(const GenerateOptions& o, const Cache& cache, int64_t batch, int64_t prompt) {
  HONED_CHECK(prompt > 0, "generate: the prompt is empty, expected at least one token");
  HONED_CHECK(o.max_new_tokens >= 0, "generate: max_new_tokens is ", o.max_new_tokens,
              ", expected 0 or more");
  HONED_CHECK(!o.do_sample || int64_t(o.seeds.size()) == batch, "generate: ", o.seeds.size(),
              " seeds, expected one for each of ", batch, " rows");
  HONED_CHECK(
      cache.length() + prompt + std::max<int64_t>(o.max_new_tokens - 1, 0) <= cache.max_length(),
      "generate: a prompt of ", prompt, " tokens after ", cache.length(), " and ", o.max_new_tokens,
      " new ones, expected at most ", cache.max_length(), " together (the model's positions)");
}

}  // namespace

std::vector<std::vector<int64_t>> generate(const Model& model, Cache& cache, const Tokens& prompt,
                                           const GenerateOptions& o, const OnTokens& on_tokens) {
  int64_t batch = prompt.batch, vocab = model.description.vocab_size;
  check(o, cache, batch, prompt.time);
  std::vector<std::vector<int64_t>> made;
  std::vector<float> logits(size_t(batch * vocab));
  std::vector<int64_t> ids(static_cast<size_t>(batch)), positions(static_cast<size_t>(batch));
  std::vector<char> finished(size_t(batch), 0);
  for (int64_t b = 0; prompt.positions && b < batch; ++b)
    positions[size_t(b)] = prompt.positions[b * prompt.time + prompt.time - 1];
  std::vector<uint8_t> mask;
  int64_t width = cache.length() + prompt.time;  // of the mask
  TensorView view;
  view.data = logits.data();
  view.ndim = 2;
  view.shape[0] = batch;
  view.shape[1] = view.strides[0] = vocab;
  view.strides[1] = 1;
  std::vector<SampleRow> rows(static_cast<size_t>(batch));
  for (size_t b = 0; b < rows.size(); ++b) {
    SampleOptions& row = rows[b].options;
    row.do_sample = o.do_sample;
    row.temperature = o.temperature;
    row.top_k = o.top_k;
    row.top_p = o.top_p;
    row.min_p = o.min_p;
    if (o.do_sample) rows[b].seed = o.seeds[b];
  }
  check_sample_options(rows.data(), batch);
  SampleArgs drawn{};
  set_logits(&drawn, view);
  drawn.row = rows.data();
  drawn.out = ids.data();

  Tokens tokens = prompt;
  for (int64_t step = 0; step < o.max_new_tokens; ++step) {
    forward(model, cache, tokens, 1, logits.data());
    for (SampleRow& row : rows) row.counter = uint64_t(step);
    sample(drawn);
    bool all = true;
    for (int64_t b = 0; b < batch; ++b) {
      if (finished[size_t(b)])
        ids[size_t(b)] = o.pad;
      else if (std::find(o.stop.begin(), o.stop.end(), ids[size_t(b)]) != o.stop.end())
        finished[size_t(b)] = 1;
      all = all && finished[size_t(b)];
    }
    made.push_back(ids);
    if ((on_tokens && on_tokens(ids)) || all) break;

    tokens = {ids.data(), nullptr, nullptr, batch, 1};
    if (prompt.positions) {
      for (int64_t& position : positions) ++position;
      tokens.positions = positions.data();
    }
    if (prompt.mask) {
      std::vector<uint8_t> wider(size_t(batch * (width + 1)), 1);
      const uint8_t* before = mask.empty() ? prompt.mask : mask.data();
      for (int64_t b = 0; b < batch; ++b)
        std::copy(before + b * width, before + (b + 1) * width, wider.begin() + b * (width + 1));
      mask = std::move(wider);
      ++width;
      tokens.mask = mask.data();
    }
  }
  return made;
}

}  // namespace honed::engine
