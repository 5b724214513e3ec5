// honed._core: Engine, Cache
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "bindings/_sample_options.h"
#include "bindings/_token_rules.h"
#include "bindings/activation.h"
#include "bindings/caster.h"
#include "core/check.h"
#include "engine/generate.h"

namespace honed::bindings {

namespace {

using engine::Cache;
using engine::Description;
using engine::Layer;
using engine::Model;
using engine::NormWeight;
using engine::Tokens;

// Reads a dict, naming what is missing or of a wrong type.
class Reader {
 public:
  Reader(const py::dict& dict, std::string where) : dict_(dict), where_(std::move(where)) {}

  template <class T>
  T get(const char* key) const {
    HONED_CHECK(dict_.contains(key), "Engine: ", where_, " has no '", key, "'");
    try {
      return dict_[key].cast<T>();
    } catch (const py::cast_error&) {
      raise<TypeError>("Engine: ", where_, "'s '", key, "' is a ",
                       std::string(py::str(py::type::of(dict_[key]).attr("__name__"))));
    }
  }
  bool has(const char* key) const { return dict_.contains(key) && !dict_[key].is_none(); }
  py::object object(const char* key) const {
    return py::reinterpret_borrow<py::object>(dict_[key]);
  }
  py::object optional(const char* key) const { return has(key) ? object(key) : py::none(); }

  template <class Choice>
  Choice choose(const char* key,
                std::initializer_list<std::pair<const char*, Choice>> choices) const {
    std::string name = get<std::string>(key), all;
    for (const auto& [known, value] : choices) {
      if (name == known) return value;
      all += std::string(all.empty() ? "" : ", ") + known;
    }
    raise<ValueError>("Engine: ", where_, "'s '", key, "' is '", name, "', expected one of ", all);
  }

 private:
  const py::dict& dict_;
  std::string where_;
};

Description read_description(const py::dict& dict) {
  Reader r(dict, "the description");
  Description d{};
  d.vocab_size = r.get<int64_t>("vocab_size");
  d.hidden_size = r.get<int64_t>("hidden_size");
  d.num_layers = r.get<int64_t>("num_layers");
  d.num_heads = r.get<int64_t>("num_heads");
  d.num_kv_heads = r.get<int64_t>("num_kv_heads");
  d.head_dim = r.get<int64_t>("head_dim");
  d.intermediate_size = r.get<int64_t>("intermediate_size");
  d.max_positions = r.get<int64_t>("max_positions");
  d.norm = r.choose<engine::Norm>(
      "norm", {{"rms_norm", engine::Norm::rms_norm}, {"layer_norm", engine::Norm::layer_norm}});
  d.norm_eps = r.get<float>("norm_eps");
  d.position = r.choose<engine::Position>("position", {{"rope", engine::Position::rope},
                                                       {"learned", engine::Position::learned},
                                                       {"none", engine::Position::none}});
  d.position_offset = r.get<int64_t>("position_offset");
  d.rope_interleaved = r.get<bool>("rope_interleaved");
  d.activation = activation_of(r.get<std::string>("activation"));
  d.gated = r.get<bool>("gated");
  d.parallel_residual = r.get<bool>("parallel_residual");
  d.attention_scale = r.get<float>("attention_scale");
  d.attention_softcap = r.get<float>("attention_softcap");
  d.logit_softcap = r.get<float>("logit_softcap");
  d.embedding_scale = r.get<float>("embedding_scale");
  return d;
}

std::vector<float> read_vector(const Reader& r, const char* key) {
  if (!r.has(key)) return {};
  Tensor tensor = r.get<Tensor>(key);
  HONED_CHECK_TYPE(is_float(tensor->dtype), "Engine: '", key, "' is ", name_of(tensor->dtype),
                   ", expected float32, float16 or bfloat16");
  Dense dense(tensor.view());
  std::vector<float> out(size_t(tensor->numel()));
  for (size_t i = 0; i < out.size(); ++i) out[i] = element(*dense.view(), int64_t(i));
  return out;
}

// A model and the Python tensors it borrows.
struct Engine {
  Model model;
  std::vector<py::object> borrowed;

  TensorView borrow(const Reader& r, const char* key) {
    if (!r.has(key)) return {};
    TensorView view = r.get<Tensor>(key).view();
    borrowed.push_back(r.object(key));
    return view;
  }

  Engine(const py::dict& description, const py::dict& weights) {
    model.description = read_description(description);
    Reader r(weights, "the weights");
    model.embedding = borrow(r, "embedding");
    model.position_embedding = borrow(r, "position_embedding");
    model.rope_cos = borrow(r, "rope_cos");
    model.rope_sin = borrow(r, "rope_sin");
    model.final_norm = {read_vector(r, "final_norm"), read_vector(r, "final_norm_bias")};
    model.head = r.get<std::shared_ptr<PackedWeight>>("head");
    py::list layers = r.get<py::list>("layers");
    for (size_t i = 0; i < layers.size(); ++i) {
      py::dict dict = layers[i].cast<py::dict>();
      Reader l(dict, "layer " + std::to_string(i));
      Layer layer;
      layer.attention_norm = {read_vector(l, "attention_norm"),
                              read_vector(l, "attention_norm_bias")};
      layer.mlp_norm = {read_vector(l, "mlp_norm"), read_vector(l, "mlp_norm_bias")};
      layer.q_norm = read_vector(l, "q_norm");
      layer.k_norm = read_vector(l, "k_norm");
      layer.qkv = l.get<std::shared_ptr<PackedWeight>>("qkv");
      layer.attention_out = l.get<std::shared_ptr<PackedWeight>>("attention_out");
      layer.up = l.get<std::shared_ptr<PackedWeight>>("up");
      layer.down = l.get<std::shared_ptr<PackedWeight>>("down");
      model.layers.push_back(std::move(layer));
    }
    model.check();
  }
};

// The token arguments of forward and generate, checked and dense.
struct Prompt {
  Dense ids, positions, mask;
  Tokens tokens;

  Prompt(const Cache& cache, const Tensor& i, const OptionalTensor& p, const OptionalTensor& m)
      : ids(i.view()), positions(p), mask(m) {
    require_cpu("Engine", {&i, p ? &*p : nullptr, m ? &*m : nullptr});
    HONED_CHECK(i->ndim == 2 && i->dtype == DType::i64, "Engine: ids are ", name_of(i->dtype),
                " of shape ", shape_of(i.view()), ", expected int64 (B, T)");
    HONED_CHECK(!p || ((*p)->dtype == DType::i64 && same_shape(p->view(), i.view())),
                "Engine: positions are ", p ? name_of((*p)->dtype) : "", " of shape ",
                p ? shape_of(p->view()) : "", ", expected int64 ", shape_of(i.view()));
    int64_t width = cache.length() + i->size(1);
    HONED_CHECK(!m || ((*m)->ndim == 2 && (*m)->size(0) == i->size(0) && (*m)->size(1) == width &&
                       size_of((*m)->dtype) == 1),
                "Engine: mask is ", m ? name_of((*m)->dtype) : "", " of shape ",
                m ? shape_of(m->view()) : "", ", expected bool [", i->size(0), ", ", width, "]");
    tokens = {ids.view()->as<int64_t>(), p ? positions.view()->as<int64_t>() : nullptr,
              m ? mask.view()->as<uint8_t>() : nullptr, i->size(0), i->size(1)};
  }
};

py::object forward(const Engine& engine, Cache& cache, const Tensor& ids,
                   const OptionalTensor& positions, const OptionalTensor& mask, int64_t keep,
                   const std::vector<int64_t>& states, int64_t hidden_keep) {
  engine::CacheUse use(cache);
  Prompt prompt(cache, ids, positions, mask);
  if (keep <= 0 || keep > prompt.tokens.time) keep = prompt.tokens.time;
  int64_t shape[] = {prompt.tokens.batch, keep, engine.model.description.vocab_size};
  NewTensor logits = empty(ids, shape, DType::f32);
  auto run = [&](const engine::HiddenStates& hidden) {
    py::gil_scoped_release released;
    engine::forward(engine.model, cache, prompt.tokens, keep, logits.view.as<float>(), hidden);
  };
  if (states.empty()) {
    run({});
    return logits.object;
  }
  if (hidden_keep <= 0 || hidden_keep > prompt.tokens.time) hidden_keep = prompt.tokens.time;
  int64_t count = int64_t(states.size());
  int64_t hidden_shape[] = {count, prompt.tokens.batch, hidden_keep,
                            engine.model.description.hidden_size};
  NewTensor hidden = empty(ids, hidden_shape, DType::f32);
  engine::HiddenStates asked{states.data(), count, hidden_keep, hidden.view.as<float>()};
  asked.check(engine.model.description, prompt.tokens.time);
  run(asked);
  return py::make_tuple(logits.object, hidden.object);
}

// Every row's sampling options: one dict for all, or one a row.
std::vector<SampleOptions> sampling_of(const py::object& given, int64_t rows) {
  std::vector<SampleOptions> out;
  if (PyDict_Check(given.ptr())) {
    out.assign(size_t(rows), read_sample_options(given.cast<py::dict>()));
  } else {
    for (const py::handle& each : given) out.push_back(read_sample_options(each.cast<py::dict>()));
  }
  return out;
}

// What generate() calls between the steps, in Python.
class Hooks {
 public:
  Hooks(const Tensor& ids, int64_t vocab, const Reader& options, const py::object& callback)
      : ids_(ids),
        vocab_(vocab),
        scores_(options.optional("scores")),
        logits_(options.optional("logits")),
        allowed_(options.optional("allowed")),
        callback_(callback) {}

  engine::GenerateHooks functions() {
    engine::GenerateHooks hooks;
    if (!allowed_.is_none()) hooks.allowed = [this] { return masks(); };
    if (!scores_.is_none() || !logits_.is_none()) hooks.record = [this] { return record(); };
    hooks.on_tokens = [this](const std::vector<int64_t>& tokens, std::vector<char>& finished) {
      return on_tokens(tokens, finished);
    };
    return hooks;
  }

 private:
  const uint32_t* masks() {
    py::gil_scoped_acquire acquired;
    held_ = allowed_();
    if (held_.is_none()) return nullptr;
    mask_.reset();
    given_ = Tensor();
    int64_t batch = ids_->size(0), words = (vocab_ + 31) / 32;
    HONED_CHECK_TYPE(given_.borrow(held_.ptr()), "generate: the allowed tokens are no tensor");
    require_cpu("generate", {&given_});
    HONED_CHECK(given_->ndim == 2 && given_->dtype == DType::i32 && given_->size(0) == batch &&
                    given_->size(1) == words,
                "generate: the allowed tokens are ", name_of(given_->dtype), " of shape ",
                shape_of(given_.view()), ", expected int32 [", batch, ", ", words, "]");
    mask_.emplace(given_.view());
    return mask_->view()->as<uint32_t>();
  }

  engine::StepRecord record() {
    py::gil_scoped_acquire acquired;
    recorded_.clear();
    auto add = [this](const py::object& list) -> float* {
      if (list.is_none()) return nullptr;
      NewTensor made = empty(ids_, {std::array{ids_->size(0), vocab_}}, DType::f32);
      list.attr("append")(made.object);
      recorded_.push_back(made.object);  // written to after this
      return made.view.as<float>();
    };
    return {add(logits_), add(scores_)};
  }

  // Between tokens: the caller's callback, and a look for Ctrl-C.
  bool on_tokens(const std::vector<int64_t>& tokens, std::vector<char>& finished) {
    py::gil_scoped_acquire acquired;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (callback_.is_none()) return false;
    py::object answer = callback_(tokens);
    if (!PyList_Check(answer.ptr())) return answer.cast<bool>();
    auto ended = answer.cast<std::vector<bool>>();
    HONED_CHECK(ended.size() == finished.size(), "generate: the callback ended ", ended.size(),
                " rows, expected ", finished.size());
    for (size_t b = 0; b < ended.size(); ++b) finished[b] = char(finished[b] || ended[b]);
    return false;
  }

  const Tensor& ids_;
  int64_t vocab_;
  py::object scores_, logits_, allowed_, callback_, held_ = py::none();
  std::vector<py::object> recorded_;  // of this step
  Tensor given_;
  std::optional<Dense> mask_;
};

py::object generate(const Engine& engine, Cache& cache, const Tensor& ids,
                    const OptionalTensor& positions, const OptionalTensor& mask,
                    int64_t max_new_tokens, const std::vector<int64_t>& stop, int64_t pad,
                    const py::dict& options, const py::object& callback) {
  engine::CacheUse use(cache);
  Prompt prompt(cache, ids, positions, mask);
  Reader r(options, "the options");
  int64_t rows = prompt.tokens.batch;
  engine::GenerateOptions o{max_new_tokens,
                            stop,
                            pad,
                            sampling_of(r.get<py::object>("sampling"), rows),
                            r.get<std::vector<uint64_t>>("seeds"),
                            read_rule_states(r.optional("rules"), rows)};
  Hooks hooks(ids, engine.model.description.vocab_size, r, callback);
  engine::GenerateHooks functions = hooks.functions();
  std::vector<std::vector<int64_t>> made;
  {
    py::gil_scoped_release released;
    made = engine::generate(engine.model, cache, prompt.tokens, o, functions);
  }
  int64_t batch = prompt.tokens.batch, time = prompt.tokens.time, count = int64_t(made.size());
  int64_t shape[] = {batch, time + count};
  NewTensor out = empty(ids, shape, DType::i64);
  int64_t* to = out.view.as<int64_t>();
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t t = 0; t < time; ++t) *to++ = prompt.tokens.ids[b * time + t];
    for (int64_t t = 0; t < count; ++t) *to++ = made[size_t(t)][size_t(b)];
  }
  return out.object;
}

DType cache_dtype_of(const std::string& name) {
  for (auto [known, dtype] :
       {std::pair{"f32", DType::f32}, {"f16", DType::f16}, {"bf16", DType::bf16}})
    if (name == known) return dtype;
  raise<ValueError>("Cache: dtype is '", name, "', expected f32, f16 or bf16");
}

// A method of a cache that no other call uses meanwhile.
auto alone(void (Cache::*method)(int64_t)) {
  return [method](Cache& cache, int64_t length) {
    engine::CacheUse use(cache);
    (cache.*method)(length);
  };
}

}  // namespace

void bind_engine(py::module_& m) {
  py::classh<Cache>(m, "Cache", "Keys and values of every layer.")
      .def(py::init(
               [](const Engine& engine, int64_t batch, int64_t capacity, const std::string& dtype) {
                 return std::make_unique<Cache>(engine.model.description, batch, capacity,
                                                cache_dtype_of(dtype));
               }),
           py::arg("engine"), py::arg("batch"), py::arg("capacity"), py::arg("dtype"))
      .def_property_readonly("batch", &Cache::batch)
      .def_property_readonly("length", &Cache::length)
      .def_property_readonly("capacity", &Cache::capacity)
      .def_property_readonly("nbytes", &Cache::bytes)
      .def("reserve", alone(&Cache::reserve), py::arg("capacity"))
      .def("crop", alone(&Cache::crop), py::arg("length"))
      .def("reset", [](Cache& cache) { alone (&Cache::crop)(cache, 0); })
      .def(
          "reorder",
          [](Cache& cache, const Tensor& rows) {
            engine::CacheUse use(cache);
            require_cpu("Cache", {&rows});
            HONED_CHECK(rows->ndim == 1 && rows->dtype == DType::i64, "Cache: rows are ",
                        name_of(rows->dtype), " of shape ", shape_of(rows.view()),
                        ", expected int64 (B,)");
            Dense dense(rows.view());
            cache.reorder(dense.view()->as<int64_t>(), rows->size(0));
          },
          py::arg("rows"));
  py::classh<Engine>(m, "Engine", "A decoder-only transformer.")
      .def(py::init<const py::dict&, const py::dict&>(), py::arg("description"), py::arg("weights"))
      .def_property_readonly("nbytes", [](const Engine& engine) { return engine.model.bytes(); })
      .def(
          "forward", &forward,
          "Logits of the last `keep` positions (0: all); with `hidden` also those hidden states of "
          "the last `hidden_keep` positions.",
          py::arg("cache"), py::arg("ids"), py::arg("positions"), py::arg("mask"), py::arg("keep"),
          py::arg("hidden") = std::vector<int64_t>(), py::arg("hidden_keep") = 0)
      .def("generate", &generate, "Prompt and new tokens.", py::arg("cache"), py::arg("ids"),
           py::arg("positions"), py::arg("mask"), py::arg("max_new_tokens"), py::arg("stop"),
           py::arg("pad"), py::arg("options"), py::arg("callback"));
}

}  // namespace honed::bindings
