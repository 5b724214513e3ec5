// honed._core.Sampler: the options and rules of every row, and what they remember between steps.
#include "ops/sample.h"

#include <pybind11/stl.h>

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "bindings/_sample_options.h"
#include "bindings/_token_rules.h"
#include "bindings/caster.h"
#include "bindings/native.h"
#include "bindings/unit_stride.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

// Fewer logits than this keep Python's lock: giving it up and taking it again costs more.
constexpr int64_t kWithLock = 4096;

// The tokens so far of every row: (B,T) int64, or a list of B lists.
class History {
 public:
  History(const py::object& given, int64_t rows) {
    if (given.is_none()) return;
    if (PyList_Check(given.ptr()) || PyTuple_Check(given.ptr())) {
      for (const py::handle& row : given) {
        if (!PySequence_Check(row.ptr()))
          raise<TypeError>("sample: history holds a ", Py_TYPE(row.ptr())->tp_name,
                           ", expected a list of tokens for each row");
        lists_.push_back(row.cast<TokenIds>());
      }
      HONED_CHECK(int64_t(lists_.size()) == rows, "sample: history of ", lists_.size(),
                  " rows, expected ", rows);
      return;
    }
    HONED_CHECK_TYPE(tensor_.borrow(given.ptr()), "sample: history is a ",
                     Py_TYPE(given.ptr())->tp_name, ", expected a tensor or lists of tokens");
    require_cpu("sample", {&tensor_});
    HONED_CHECK(tensor_->dtype == DType::i64 && tensor_->ndim == 2 && tensor_->size(0) == rows,
                "sample: history is ", name_of(tensor_->dtype), " of shape ",
                shape_of(tensor_.view()), ", expected int64 [", rows, ", T]");
    dense_.emplace(tensor_.view());
  }
  void give(size_t row, RuleInput* input) const {
    if (dense_) {
      input->count = dense_->view()->size(1);
      input->tokens = dense_->view()->as<int64_t>() + int64_t(row) * input->count;
    } else if (!lists_.empty()) {
      input->count = int64_t(lists_[row].size());
      input->tokens = lists_[row].data();
    }
  }

 private:
  Tensor tensor_;
  std::optional<Dense> dense_;
  std::vector<TokenIds> lists_;
};

// The int32 words of `allowed`, (B, words); null where there are none.
const uint32_t* words_of(const OptionalTensor& given, const Dense& dense, int64_t rows,
                         int64_t words) {
  if (!given) return nullptr;
  const TensorView& view = given->view();
  require_cpu("sample", {&*given});
  HONED_CHECK(
      view.dtype == DType::i32 && view.ndim == 2 && view.size(0) == rows && view.size(1) == words,
      "sample: allowed is ", name_of(view.dtype), " of shape ", shape_of(view),
      ", expected int32 [", rows, ", ", words, "]");
  return dense.view()->as<uint32_t>();
}

double* mu_of(const OptionalTensor& given, int64_t rows) {
  if (!given) return nullptr;
  const TensorView& view = given->view();
  require_cpu("sample", {&*given});
  HONED_CHECK(view.dtype == DType::f64 && view.ndim == 1 && view.size(0) == rows &&
                  !view.readonly && (rows == 1 || view.stride(0) == 1),
              "sample: mirostat_mu is ", name_of(view.dtype), " of shape ", shape_of(view),
              ", expected writable contiguous float64 [", rows, "]");
  return view.as<double>();
}

class Sampler {
 public:
  // One dict for all rows, or one a row.
  Sampler(const py::object& options, const py::object& rules) {
    if (PyDict_Check(options.ptr())) {
      options_.push_back(read_sample_options(py::reinterpret_borrow<py::dict>(options)));
    } else {
      one_for_all_ = false;
      for (const py::handle& each : options) {
        HONED_CHECK_TYPE(PyDict_Check(each.ptr()), "sample: options hold a ",
                         Py_TYPE(each.ptr())->tp_name, ", expected dicts");
        options_.push_back(read_sample_options(py::reinterpret_borrow<py::dict>(each)));
      }
    }
    std::vector<SampleRow> rows(options_.size());
    double some = 0.0;
    for (size_t b = 0; b < rows.size(); ++b) {
      rows[b].options = options_[b];
      rows[b].mirostat_mu = &some;
    }
    check_sample_options(rows.data(), int64_t(rows.size()));
    auto add = [this](const py::handle& given) {
      rules_.push_back(std::make_shared<const TokenRules>(read_token_rules(given)));
    };
    one_rule_ = rules.is_none() || PyDict_Check(rules.ptr());
    if (PyDict_Check(rules.ptr())) add(rules);
    if (!one_rule_)
      for (const py::handle& each : rules) add(each);
  }

  py::object draw(const Tensor& logits, const py::object& history,
                  const std::vector<uint64_t>& seeds, const std::vector<uint64_t>& counters,
                  const OptionalTensor& allowed, const OptionalTensor& mu, bool logprobs,
                  bool of_drawn, int64_t top_n, bool scores) {
    require_cpu("sample", {&logits});
    HONED_CHECK(logits->ndim == 2, "sample: logits have shape ", shape_of(logits.view()),
                ", expected (B,V)");
    HONED_CHECK(top_n >= 0 && top_n <= logits->size(1), "sample: top_logprobs is ", top_n,
                ", expected 0 to ", logits->size(1));
    UnitStride unit(logits.view());
    SampleArgs args{};
    set_logits(&args, unit.view());
    int64_t rows = args.rows;
    History tokens(history, rows);
    Dense dense_allowed(allowed);
    const uint32_t* mask = words_of(allowed, dense_allowed, rows, (args.vocab + 31) / 32);
    double* surprise = mu_of(mu, rows);

    NewTensor out = empty(logits, {&rows, 1}, DType::i64);
    NewTensor logprob, ids, values, kept;
    args.out = out.view.as<int64_t>();
    args.logprob_of_drawn = of_drawn;
    if (logprobs) {
      logprob = empty(logits, {&rows, 1}, DType::f32);
      args.logprob = logprob.view.as<float>();
    }
    if (top_n > 0) {
      int64_t shape[2] = {rows, top_n};
      ids = empty(logits, shape, DType::i64);
      values = empty(logits, shape, DType::f32);
      args.top_n = top_n;
      args.top_ids = ids.view.as<int64_t>();
      args.top_logprobs = values.view.as<float>();
    }
    if (scores) {
      kept = empty(logits, {logits->shape, 2}, DType::f32);
      args.scores = kept.view.as<float>();
    }
    {
      Unlocked unlocked(rows * args.vocab > kWithLock);
      std::lock_guard<std::mutex> guard(mutex_);
      fit(rows, surprise, seeds, counters);
      apply(args, tokens, mask);
      args.row = rows_.data();
      sample(args);
    }
    if (!logprobs && top_n == 0 && !scores) return out.object;
    auto given = [](NewTensor& made) { return made.object ? made.object : py::none(); };
    return py::make_tuple(out.object, given(logprob), given(ids), given(values), given(kept));
  }

 private:
  // One SampleRow a row, with its own numbers.
  void fit(int64_t rows, double* mu, const std::vector<uint64_t>& seeds,
           const std::vector<uint64_t>& counters) {
    HONED_CHECK(one_for_all_ || int64_t(options_.size()) == rows, "sample: options of ",
                options_.size(), " rows, expected ", rows);
    HONED_CHECK(one_rule_ || int64_t(rules_.size()) == rows, "sample: rules of ", rules_.size(),
                " rows, expected ", rows);
    for (size_t b = states_.size(); !rules_.empty() && b < size_t(rows); ++b)
      states_.emplace_back(rules_[one_rule_ ? 0 : b]);
    HONED_CHECK(counters.size() == 1 || int64_t(counters.size()) == rows,
                "sample: ", counters.size(), " counters, expected one or one for each of ", rows,
                " rows");
    for (int64_t b = int64_t(mu_.size()); !mu && b < rows; ++b)
      mu_.push_back(2.0 * of(b).mirostat_tau);
    rows_.resize(size_t(rows));
    for (int64_t b = 0; b < rows; ++b) {
      SampleRow& row = rows_[size_t(b)];
      row.options = of(b);
      row.mirostat_mu = mu ? mu + b : &mu_[size_t(b)];
      bool draws = row.options.do_sample;
      HONED_CHECK(!draws || int64_t(seeds.size()) == rows, "sample: ", seeds.size(),
                  " seeds, expected one for each of ", rows, " rows");
      if (draws) row.seed = seeds[size_t(b)];
      row.counter = counters[counters.size() == 1 ? 0 : size_t(b)];
    }
  }

  // What the rules change of every row.
  void apply(const SampleArgs& args, const History& tokens, const uint32_t* mask) {
    int64_t words = (args.vocab + 31) / 32;
    for (size_t b = 0; b < rows_.size(); ++b) {
      rows_[b].allowed = mask ? mask + int64_t(b) * words : nullptr;
      if (rules_.empty()) continue;
      RuleInput input{};
      input.logits =
          static_cast<const char*>(args.logits) + int64_t(b) * args.stride * size_of(args.dtype);
      input.dtype = args.dtype;
      input.vocab = args.vocab;
      input.allowed = rows_[b].allowed;
      tokens.give(b, &input);
      RuleState& state = states_[b];
      state.apply(input, scratch_);
      rows_[b].edits = state.edits().data();
      rows_[b].edit_count = int64_t(state.edits().size());
      if (state.allowed()) rows_[b].allowed = state.allowed();
    }
  }

  const SampleOptions& of(int64_t row) const { return options_[one_for_all_ ? 0 : size_t(row)]; }

  std::vector<std::shared_ptr<const TokenRules>> rules_;  // none, one for all rows, or one a row
  std::vector<SampleOptions> options_;
  bool one_for_all_ = true, one_rule_ = true;
  std::mutex mutex_;  // of what follows
  std::vector<SampleRow> rows_;
  std::vector<RuleState> states_;
  RuleScratch scratch_;
  std::vector<double> mu_;
};

}  // namespace

void bind_sample(py::module_& m) {
  bind_token_rules(m);
  py::classh<Sampler>(m, "Sampler",
                      "Options (a dict, or one a row) and rules (None, a dict, or one a row) of a "
                      "batch; see honed.ops.sample for the names.")
      .def(py::init<const py::object&, const py::object&>(), py::arg("options"),
           py::arg("rules") = py::none())
      .def("__call__", &Sampler::draw,
           "Token ids, or (ids, log-probabilities, likeliest ids, their log-probabilities, scores) "
           "where any of these is asked for.",
           py::arg("logits"), py::arg("history"), py::arg("seeds"), py::arg("counters"),
           py::arg("allowed") = py::none(), py::arg("mirostat_mu") = py::none(),
           py::arg("logprobs") = false, py::arg("of_drawn") = false, py::arg("top_n") = 0,
           py::arg("scores") = false);
}

}  // namespace honed::bindings
