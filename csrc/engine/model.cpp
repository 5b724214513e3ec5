// Every weight against the description, once, so that a step needs no checks.
#include "engine/model.h"

#include <set>
#include <string>

#include "core/check.h"

namespace honed::engine {

namespace {

void expect(bool condition, const std::string& name, int64_t got, int64_t expected) {
  HONED_CHECK(condition, "Engine: ", name, " is ", got, ", expected ", expected);
}

void check_norm(const std::string& name, const NormWeight& norm, int64_t size) {
  expect(int64_t(norm.weight.size()) == size, name + "'s size", int64_t(norm.weight.size()), size);
  if (!norm.bias.empty())
    expect(int64_t(norm.bias.size()) == size, name + "'s bias size", int64_t(norm.bias.size()),
           size);
}

void check_weight(const std::string& name, const Weight& w, int64_t n, int64_t k, bool gated) {
  HONED_CHECK(w != nullptr, "Engine: ", name, " is missing");
  expect(w->view().n == n, name + "'s number of outputs", w->view().n, n);
  expect(w->view().k == k, name + "'s number of inputs", w->view().k, k);
  HONED_CHECK(w->view().gated == gated, "Engine: ", name, " is ", gated ? "not " : "",
              "packed as gate and up");
}

void check_table(const std::string& name, const TensorView& t, int64_t rows, int64_t cols) {
  HONED_CHECK(
      t.ndim == 2 && t.size(0) >= rows && (cols == 0 || t.size(1) == cols) && t.stride(1) == 1,
      "Engine: ", name, " has shape ", shape_of(t), ", expected at least [", rows, ", ", cols,
      "] with unit stride");
  HONED_CHECK(t.device == Device::cpu, "Engine: ", name, " is not on the CPU");
  HONED_CHECK_TYPE(is_float(t.dtype), "Engine: ", name, " is ", name_of(t.dtype),
                   ", expected float32, float16 or bfloat16");
}

}  // namespace

void Model::check() const {
  const Description& d = description;
  for (auto [name, value] : {std::pair{"vocab_size", d.vocab_size},
                             {"hidden_size", d.hidden_size},
                             {"num_heads", d.num_heads},
                             {"num_kv_heads", d.num_kv_heads},
                             {"head_dim", d.head_dim},
                             {"intermediate_size", d.intermediate_size},
                             {"max_positions", d.max_positions}})
    HONED_CHECK(value > 0, "Engine: ", name, " is ", value, ", expected a positive number");
  HONED_CHECK(d.num_heads % d.num_kv_heads == 0, "Engine: ", d.num_heads, " heads over ",
              d.num_kv_heads, " key-value heads, expected a multiple");
  HONED_CHECK(d.head_dim <= 256, "Engine: head_dim is ", d.head_dim, ", expected at most 256");
  expect(int64_t(layers.size()) == d.num_layers, "number of layers", int64_t(layers.size()),
         d.num_layers);
  check_table("embedding", embedding, d.vocab_size, d.hidden_size);
  if (d.position == Position::learned)
    check_table("position_embedding", position_embedding, d.max_positions + d.position_offset,
                d.hidden_size);
  if (d.position == Position::rope) {
    check_table("rope_cos", rope_cos, d.max_positions, 0);
    check_table("rope_sin", rope_sin, d.max_positions, rope_cos.size(1));
    HONED_CHECK(rope_cos.dtype == DType::f32 && rope_sin.dtype == DType::f32 &&
                    rope_cos.stride(0) == rope_sin.stride(0) && 2 * rope_cos.size(1) <= d.head_dim,
                "Engine: rope tables are ", shape_of(rope_cos), ", expected float32 with at most ",
                d.head_dim / 2, " columns");
  }
  check_norm("final_norm", final_norm, d.hidden_size);
  check_weight("head", head, d.vocab_size, d.hidden_size, false);
  for (size_t i = 0; i < layers.size(); ++i) {
    const Layer& layer = layers[i];
    std::string at = "layer " + std::to_string(i) + " ";
    check_norm(at + "attention_norm", layer.attention_norm, d.hidden_size);
    if (!layer.mlp_norm.weight.empty() || !d.parallel_residual)
      check_norm(at + "mlp_norm", layer.mlp_norm, d.hidden_size);
    for (const auto* norm : {&layer.q_norm, &layer.k_norm})
      if (!norm->empty())
        expect(int64_t(norm->size()) == d.head_dim, at + "q or k norm's size",
               int64_t(norm->size()), d.head_dim);
    check_weight(at + "qkv", layer.qkv, d.q_size() + 2 * d.kv_size(), d.hidden_size, false);
    check_weight(at + "attention_out", layer.attention_out, d.hidden_size, d.q_size(), false);
    check_weight(at + "up", layer.up, d.intermediate_size, d.hidden_size, d.gated);
    check_weight(at + "down", layer.down, d.hidden_size, d.intermediate_size, false);
  }
}

int64_t Model::bytes() const {
  std::set<const PackedWeight*> all{head.get()};
  for (const Layer& layer : layers)
    for (const Weight& w : {layer.qkv, layer.attention_out, layer.up, layer.down})
      all.insert(w.get());
  int64_t total = 0;
  for (const PackedWeight* w : all) total += w->bytes();
  return total;
}

}  // namespace honed::engine
