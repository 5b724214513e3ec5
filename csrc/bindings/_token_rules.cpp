// honed._core.TokenRules, and the reader of rules.
#include "bindings/_token_rules.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "bindings/caster.h"
#include "core/check.h"

namespace honed::bindings {

namespace {

constexpr int64_t kForever = std::numeric_limits<int64_t>::max();

std::string type_of(const py::handle& object) {
  return py::str(py::type::handle_of(object).attr("__name__"));
}

// One dict of options. What is None or missing is off.
class Options {
 public:
  explicit Options(const py::dict& dict) : dict_(dict) {}

  py::object object(const char* name) {
    known_.insert(name);
    PyObject* value = PyDict_GetItemString(dict_.ptr(), name);
    return value ? py::reinterpret_borrow<py::object>(value) : py::none();
  }
  template <class T>
  T get(const char* name, T otherwise) {
    py::object value = object(name);
    return value.is_none() ? otherwise : cast<T>(value, name);
  }
  TokenIds tokens(const char* name) {
    py::object value = object(name);
    if (value.is_none()) return {};
    if (PyLong_Check(value.ptr())) return {cast<int64_t>(value, name)};
    return cast<TokenIds>(value, name);
  }
  template <class T>
  static T cast(const py::handle& value, const char* name) {
    try {
      return value.cast<T>();
    } catch (const py::cast_error&) {
      raise<TypeError>("sample: ", name, " is or holds a ", type_of(value),
                       ", expected numbers as transformers' option of that name takes");
    }
  }
  void check_all_known() const {
    for (const auto& [key, value] : dict_) {
      std::string name = py::str(key);
      HONED_CHECK(known_.count(name), "sample: there is no rule named '", name, "'");
    }
  }

 private:
  const py::dict& dict_;
  std::set<std::string> known_;
};

float positive(Options& options, const char* name) {
  double value = options.get<double>(name, 1.0);
  HONED_CHECK(value > 0.0 && std::isnormal(float(value)), "sample: ", name, " is ", value,
              ", expected a number above 0 (in float32)");
  return float(value);
}

// Of two token counts, one of them at least 0.
int64_t sum_of(int64_t a, int64_t b) { return a > 0 && b > kForever - a ? kForever : a + b; }

int64_t at_least(Options& options, const char* name, int64_t least, int64_t otherwise) {
  int64_t value = options.get<int64_t>(name, otherwise);
  HONED_CHECK(value >= least, "sample: ", name, " is ", value, ", expected at least ", least);
  return value;
}

double finite(Options& options, const char* name, double otherwise) {
  double value = options.get<double>(name, otherwise);
  HONED_CHECK(std::isfinite(value), "sample: ", name, " is ", value, ", expected a finite number");
  return value;
}

void add_bias(Bias* bias, TokenIds tokens, float value, const char* name) {
  HONED_CHECK(!tokens.empty(), "sample: ", name, " holds an empty sequence");
  int64_t last = tokens.back();
  tokens.pop_back();
  if (tokens.empty())
    bias->singles.push_back({last, value});
  else
    bias->sequences.push_back({std::move(tokens), last, value});
}

void add(TokenRules* rules, Bias bias) {
  if (bias.singles.empty() && bias.sequences.empty()) return;
  std::stable_sort(bias.singles.begin(), bias.singles.end(),
                   [](const auto& a, const auto& b) { return a.token < b.token; });
  // Of one token twice, the later counts.
  std::vector<Bias::Single> once;
  for (const Bias::Single& each : bias.singles) {
    if (!once.empty() && once.back().token == each.token) once.pop_back();
    once.push_back(each);
  }
  bias.singles = std::move(once);
  // Sums are formed in transformers' order: by the sequences' lengths, as these first appear.
  std::vector<size_t> lengths;
  auto place = [&](const Bias::Sequence& s) {
    return std::find(lengths.begin(), lengths.end(), s.before.size()) - lengths.begin();
  };
  for (const Bias::Sequence& each : bias.sequences)
    if (place(each) == int64_t(lengths.size())) lengths.push_back(each.before.size());
  std::stable_sort(bias.sequences.begin(), bias.sequences.end(),
                   [&](const auto& a, const auto& b) { return place(a) < place(b); });
  rules->rules.push_back(std::move(bias));
}

void read_biases(TokenRules* rules, Options& options) {
  py::object given = options.object("sequence_bias");
  if (!given.is_none()) {
    Bias bias;
    if (PyDict_Check(given.ptr())) given = given.attr("items")();
    for (const py::handle& item : given) {
      auto [tokens, value] = Options::cast<std::pair<TokenIds, float>>(item, "sequence_bias");
      add_bias(&bias, std::move(tokens), value, "sequence_bias");
    }
    add(rules, std::move(bias));
  }
  given = options.object("logit_bias");
  if (!given.is_none()) {
    Bias bias;
    if (PyDict_Check(given.ptr())) given = given.attr("items")();
    for (const py::handle& item : given) {
      auto [token, value] = Options::cast<std::pair<int64_t, float>>(item, "logit_bias");
      bias.singles.push_back({token, value});
    }
    add(rules, std::move(bias));
  }
}

void read_bad_words(TokenRules* rules, Options& options, const TokenIds& eos) {
  Bias bias;
  py::object given = options.object("bad_words_ids");
  if (given.is_none()) return;
  std::set<TokenIds> once;
  for (TokenIds& word : Options::cast<std::vector<TokenIds>>(given, "bad_words_ids")) {
    bool end = word.size() == 1 && std::find(eos.begin(), eos.end(), word[0]) != eos.end();
    if (!end && once.insert(word).second)
      add_bias(&bias, std::move(word), -std::numeric_limits<float>::infinity(), "bad_words_ids");
  }
  add(rules, std::move(bias));
}

// Penalties and repetitions, in their order.
void read_history_rules(TokenRules* rules, Options& options) {
  float encoder = float(1.0 / options.get<double>("encoder_repetition_penalty", 1.0));
  if (positive(options, "encoder_repetition_penalty") != 1.0f)
    rules->rules.push_back(Repetition{encoder, true});
  float penalty = positive(options, "repetition_penalty");
  if (penalty != 1.0f) rules->rules.push_back(Repetition{penalty, false});
  Frequency frequency{float(finite(options, "presence_penalty", 0.0)),
                      float(finite(options, "frequency_penalty", 0.0)),
                      at_least(options, "penalty_window", 0, 0)};
  if (frequency.presence != 0.0f || frequency.frequency != 0.0f) rules->rules.push_back(frequency);
  for (bool of_encoder : {false, true}) {
    const char* name = of_encoder ? "encoder_no_repeat_ngram_size" : "no_repeat_ngram_size";
    int64_t size = at_least(options, name, 0, 0);
    if (size > 0) rules->rules.push_back(NoRepeat{size, of_encoder});
  }
  Dry dry{finite(options, "dry_multiplier", 0.0),
          finite(options, "dry_base", 1.75),
          at_least(options, "dry_allowed_length", 1, 2),
          at_least(options, "dry_window", 0, 0),
          {}};
  HONED_CHECK(dry.multiplier >= 0.0, "sample: dry_multiplier is ", dry.multiplier,
              ", expected at least 0 (0: off)");
  HONED_CHECK(dry.base >= 1.0, "sample: dry_base is ", dry.base, ", expected at least 1");
  py::object breakers = options.object("dry_sequence_breakers");
  if (!breakers.is_none()) {
    for (const py::handle& each : breakers) {
      bool one = PyLong_Check(each.ptr());
      dry.breakers.push_back(
          one ? TokenIds{Options::cast<int64_t>(each, "dry_sequence_breakers")}
              : Options::cast<TokenIds>(each, "dry_sequence_breakers (as tokens, not text)"));
      HONED_CHECK(!dry.breakers.back().empty(),
                  "sample: dry_sequence_breakers holds an empty sequence");
    }
  }
  if (dry.multiplier != 0.0) rules->rules.push_back(std::move(dry));
}

void read_ends(TokenRules* rules, Options& options, const TokenIds& eos, int64_t prompt) {
  auto& list = rules->rules;
  int64_t length = at_least(options, "min_length", 0, 0);
  if (length > 0 && !eos.empty()) list.push_back(Forbid{eos, 0, length});
  length = at_least(options, "min_new_tokens", 0, 0);
  if (length > 0 && !eos.empty()) list.push_back(Forbid{eos, 0, sum_of(prompt, length)});
  if (options.get<bool>("constrained", false)) list.push_back(Allow{});
  TokenIds first = options.tokens("forced_bos_token_id");
  if (!first.empty()) list.push_back(Force{first, 1});
  TokenIds last = options.tokens("forced_eos_token_id");
  int64_t max_length = options.get<int64_t>("max_length", 0);
  HONED_CHECK(last.empty() || max_length > 0,
              "sample: forced_eos_token_id without max_length, expected both");
  if (!last.empty()) list.push_back(Force{last, max_length - 1});
  if (options.get<bool>("remove_invalid_values", false)) list.push_back(Finite{});
  py::object decay = options.object("exponential_decay_length_penalty");
  if (!decay.is_none()) {
    auto [start, factor] =
        Options::cast<std::pair<int64_t, double>>(decay, "exponential_decay_length_penalty");
    HONED_CHECK(!eos.empty(),
                "sample: exponential_decay_length_penalty without eos_token_id, expected both");
    TokenIds once = eos;
    std::sort(once.begin(), once.end());
    once.erase(std::unique(once.begin(), once.end()), once.end());
    list.push_back(Decay{std::move(once), sum_of(prompt, start), factor});
  }
  TokenIds suppressed = options.tokens("suppress_tokens");
  if (!suppressed.empty()) list.push_back(Forbid{std::move(suppressed), 0, kForever});
  suppressed = options.tokens("begin_suppress_tokens");
  int64_t otherwise = prompt > 1 || first.empty() ? prompt : sum_of(prompt, 1);
  int64_t begin = options.get<int64_t>("begin_index", otherwise);
  if (!suppressed.empty()) list.push_back(Forbid{std::move(suppressed), begin, sum_of(begin, 1)});
}

void read_dict(TokenRules* rules, const py::dict& dict) {
  Options options(dict);
  TokenIds eos = options.tokens("eos_token_id");
  int64_t prompt = at_least(options, "prompt_length", 0, 0);
  rules->ignored = std::max(rules->ignored, at_least(options, "prompt_ignore_length", 0, 0));
  if (TokenIds encoder = options.tokens("encoder_input_ids"); !encoder.empty())
    rules->encoder = std::move(encoder);
  read_biases(rules, options);
  read_history_rules(rules, options);
  read_bad_words(rules, options, eos);
  read_ends(rules, options, eos, prompt);
  options.check_all_known();
}

// (B,V) of the logits after the rules, in f32.
struct BoundRules {
  std::vector<RuleState> states;
  RuleScratch scratch;

  explicit BoundRules(const py::sequence& rows)
      : states(read_rule_states(rows, int64_t(rows.size()))) {}

  py::object apply(const Tensor& logits, const Tensor& history, const OptionalTensor& allowed) {
    require_cpu("TokenRules", {&logits, &history, allowed ? &*allowed : nullptr});
    SampleArgs args{};
    Rows rows(logits.view());
    set_logits(&args, rows.view());
    HONED_CHECK(args.rows == int64_t(states.size()), "TokenRules: logits have ", args.rows,
                " rows, expected ", states.size());
    HONED_CHECK(history->ndim == 2 && history->dtype == DType::i64 && history->size(0) == args.rows,
                "TokenRules: history is ", name_of(history->dtype), " of shape ",
                shape_of(history.view()), ", expected int64 [", args.rows, ", T]");
    int64_t words = (args.vocab + 31) / 32;
    HONED_CHECK(!allowed || ((*allowed)->ndim == 2 && (*allowed)->dtype == DType::i32 &&
                             (*allowed)->size(0) == args.rows && (*allowed)->size(1) == words),
                "TokenRules: allowed is ", allowed ? name_of((*allowed)->dtype) : "", " of shape ",
                allowed ? shape_of(allowed->view()) : "", ", expected int32 [", args.rows, ", ",
                words, "]");
    Dense tokens(history.view()), mask(allowed);
    NewTensor out = empty(logits, {rows.view().shape, 2}, DType::f32);
    for (int64_t b = 0; b < args.rows; ++b) {
      RuleInput in{static_cast<const char*>(args.logits) + b * args.stride * size_of(args.dtype),
                   args.dtype,
                   args.vocab,
                   tokens.view()->as<int64_t>() + b * history->size(1),
                   history->size(1),
                   allowed ? mask.view()->as<uint32_t>() + b * words : nullptr};
      states[size_t(b)].apply(in, scratch);
      float* row = out.view.as<float>() + b * args.vocab;
      for (int64_t v = 0; v < args.vocab; ++v) row[v] = element(rows.view(), b * args.stride + v);
      states[size_t(b)].write(row, args.vocab);
    }
    return out.object;
  }
};

}  // namespace

TokenRules read_token_rules(const py::handle& given) {
  TokenRules rules;
  if (given.is_none()) return rules;
  if (PyDict_Check(given.ptr())) {
    read_dict(&rules, py::reinterpret_borrow<py::dict>(given));
    return rules;
  }
  HONED_CHECK_TYPE(PyList_Check(given.ptr()) || PyTuple_Check(given.ptr()), "sample: rules are a ",
                   type_of(given), ", expected a dict or a list of dicts");
  for (const py::handle& each : given) {
    HONED_CHECK_TYPE(PyDict_Check(each.ptr()), "sample: rules hold a ", type_of(each),
                     ", expected dicts");
    read_dict(&rules, py::reinterpret_borrow<py::dict>(each));
  }
  return rules;
}

std::vector<RuleState> read_rule_states(const py::handle& given, int64_t rows) {
  std::vector<RuleState> states;
  if (given.is_none() || PyDict_Check(given.ptr())) {
    auto shared = std::make_shared<const TokenRules>(read_token_rules(given));
    for (int64_t b = 0; b < rows; ++b) states.emplace_back(shared);
    return states;
  }
  HONED_CHECK_TYPE(PySequence_Check(given.ptr()), "sample: rules are a ", type_of(given),
                   ", expected a dict, or one for each row");
  HONED_CHECK(int64_t(py::len(given)) == rows, "sample: rules for ", py::len(given),
              " rows, expected ", rows);
  for (const py::handle& each : given)
    states.emplace_back(std::make_shared<const TokenRules>(read_token_rules(each)));
  return states;
}

void bind_token_rules(py::module_& m) {
  py::classh<BoundRules>(m, "TokenRules",
                         "Rules of generation, a dict (or a list of dicts) a row; see "
                         "honed.ops.sample for the names.")
      .def(py::init<const py::sequence&>(), py::arg("rows"))
      .def("__call__", &BoundRules::apply, "The (B,V) logits after the rules, in float32.",
           py::arg("logits"), py::arg("history"), py::arg("allowed") = py::none());
}

}  // namespace honed::bindings
