// The whole decoder, one team of threads through all layers.
#include "engine/step.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/arena.h"
#include "core/check.h"
#include "cpu/dispatch.h"
#include "engine/crew.h"
#include "ops/embedding.h"
#include "ops/layer_norm.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "ops/scaled_dot_product_attention.h"

namespace honed::engine {

namespace {

// Rows of a long prompt that go through the layers together: enough to reuse the weights, few
// enough to keep activations in the caches.
constexpr int64_t kChunkRows = 512;
// With few rows every thread norms and rounds all of them itself: cheaper than a barrier.
constexpr int64_t kOwnRows = 2;

// Buffers of one chunk of M = B * T rows, all f32.
struct Buffers {
  float *x, *h, *qkv, *attention, *mlp, *partial;
  void* rows;
};

// What the threads of a step share.
struct Step {
  const Model& model;
  Cache& cache;
  Tokens tokens;  // of this chunk
  int64_t mask_stride;
  int64_t keep;  // last positions to make logits for
  float* logits;
  int64_t logits_stride;  // of a batch row, in positions
  HiddenStates hidden;
  Buffers buffers;
  Cursors cursors;

  int64_t rows() const { return tokens.batch * tokens.time; }
};

const cpu::KernelTable& table() { return cpu::kernels(); }

// Norm (where given) of M rows and their rounding for the weight that multiplies them next. The
// result is in `block`, a thread's own for few rows, else the shared one.
void prepare(Crew& crew, const Description& d, const NormWeight* norm, const PackedView& w,
             const float* x, int64_t x_stride, int64_t m, float* h, void* block, LinearRows* rows) {
  const bool rounds = rounds_rows(w);
  LinearRowsArgs round{};
  if (rounds) round = linear_rows_args(w, m, block, rows);
  auto some = [&](int64_t begin, int64_t end) {
    const float* from = x;
    int64_t stride = x_stride;
    if (norm) {
      const float* bias = norm->bias.empty() ? nullptr : norm->bias.data();
      if (d.norm == Norm::rms_norm)
        table().rms_norm(
            {x, norm->weight.data(), nullptr, h, m, w.k, x_stride, w.k, d.norm_eps, DType::f32},
            begin, end);
      else
        table().layer_norm(
            {x, norm->weight.data(), bias, h, m, w.k, x_stride, w.k, d.norm_eps, DType::f32}, begin,
            end);
      from = h;
      stride = w.k;
    }
    if (rounds) {
      round.x = from;
      round.x_stride = stride;
      round.dtype = DType::f32;
      table().linear_rows(round, begin, end);
    } else {
      *rows = {from, stride};
    }
  };
  if (m <= kOwnRows) {
    some(0, m);
  } else {
    some(crew.begin(m), crew.end(m));
    if (norm || rounds) crew.barrier();
  }
}

void multiply(Crew& crew, const PackedView& w, const LinearRows& rows, int64_t m,
              Activation activation, const float* residual, float* y, int64_t y_stride) {
  Destination to{y, y_stride, 1, DType::f32, activation};
  to.bias = w.bias;
  to.residual = residual;
  to.residual_row = y_stride;
  to.residual_col = 1;
  crew.run(table().linear, {w, rows, m, to}, linear_items(w, m));
}

// q and k normed and turned, k and v into the cache. Rows are split over the threads.
void place(Crew& crew, Step& s, const Layer& layer, int64_t index) {
  const Description& d = s.model.description;
  float* qkv = s.buffers.qkv;
  int64_t width = d.q_size() + 2 * d.kv_size(), batch = s.tokens.batch, time = s.tokens.time;
  int64_t begin = crew.begin(s.rows()), end = crew.end(s.rows());
  if (begin < end) {
    for (int64_t r = begin; r < end; ++r) {
      float *q = qkv + r * width, *k = q + d.q_size();
      if (!layer.q_norm.empty())
        table().rms_norm({q, layer.q_norm.data(), nullptr, q, d.num_heads, d.head_dim, d.head_dim,
                          d.head_dim, d.norm_eps, DType::f32},
                         0, d.num_heads);
      if (!layer.k_norm.empty())
        table().rms_norm({k, layer.k_norm.data(), nullptr, k, d.num_kv_heads, d.head_dim,
                          d.head_dim, d.head_dim, d.norm_eps, DType::f32},
                         0, d.num_kv_heads);
    }
    if (d.position == Position::rope) {
      RopeArgs rope{};
      rope.x = rope.y = qkv;
      for (int64_t* stride : {rope.x_stride, rope.y_stride}) {
        stride[0] = time * width;
        stride[1] = width;
        stride[2] = d.head_dim;
      }
      rope.cos = s.model.rope_cos.as<float>();
      rope.sin = s.model.rope_sin.as<float>();
      rope.table_stride = s.model.rope_cos.stride(0);
      rope.positions = s.tokens.positions;
      rope.positions_stride = time;
      rope.first_position = s.cache.length();
      rope.batch = batch;
      rope.time = time;
      rope.heads = d.num_heads + d.num_kv_heads;  // q and k lie side by side
      rope.head_dim = d.head_dim;
      rope.rotary_dim = 2 * s.model.rope_cos.size(1);
      rope.interleaved = d.rope_interleaved;
      rope.dtype = DType::f32;
      table().rope(rope, begin, end);
    }
    CacheAppendArgs append{qkv + d.q_size(),
                           batch,
                           time,
                           d.num_kv_heads,
                           d.head_dim,
                           width,
                           s.cache.keys(index),
                           s.cache.table(),
                           s.cache.table_stride(),
                           Cache::kPage,
                           s.cache.page_stride(),
                           s.cache.head_stride(),
                           s.cache.length(),
                           s.cache.dtype()};
    table().cache_append(append, begin, end);
    append.from = qkv + d.q_size() + d.kv_size();
    append.to = s.cache.values(index);
    table().cache_append(append, begin, end);
  }
  crew.barrier();
}

AttentionArgs attention_args(const Step& s, int64_t index) {
  const Description& d = s.model.description;
  int64_t width = d.q_size() + 2 * d.kv_size(), time = s.tokens.time;
  AttentionArgs a{};
  a.q = s.buffers.qkv;
  a.k = s.cache.keys(index);
  a.v = s.cache.values(index);
  a.out = s.buffers.attention;
  int64_t q[3] = {time * width, d.head_dim, width};
  int64_t kv[3] = {s.cache.page_stride(), s.cache.head_stride(), d.head_dim};
  int64_t out[3] = {time * d.q_size(), d.head_dim, d.q_size()};
  std::copy(q, q + 3, a.q_stride);
  std::copy(kv, kv + 3, a.k_stride);
  std::copy(kv, kv + 3, a.v_stride);
  std::copy(out, out + 3, a.out_stride);
  a.batch = s.tokens.batch;
  a.heads = d.num_heads;
  a.kv_heads = d.num_kv_heads;
  a.q_len = time;
  a.kv_len = s.cache.length() + time;
  a.head_dim = a.value_dim = d.head_dim;
  a.dtype = DType::f32;
  a.kv_dtype = s.cache.dtype();
  a.scale = d.attention_scale;
  a.softcap = d.attention_softcap;
  a.window_left = kNoWindow;
  a.offset = s.cache.length();
  a.block_table = s.cache.table();
  a.block_table_stride = s.cache.table_stride();
  a.page = Cache::kPage;
  a.key_mask = s.tokens.mask;
  a.key_mask_stride = s.mask_stride;
  a.partial = s.buffers.partial;
  return a;
}

void attend(Crew& crew, Step& s, const Layer& layer, int64_t index) {
  place(crew, s, layer, index);
  AttentionArgs args = attention_args(s, index);
  bool splits = attention_splits(args);
  crew.run(splits ? table().attention_decode : table().scaled_dot_product_attention, args,
           attention_items(args), 1);
  if (splits && attention_combine_items(args) > 0)
    crew.run(table().attention_combine, args, attention_combine_items(args));
}

void embed(Crew& crew, Step& s) {
  const Description& d = s.model.description;
  const TensorView& table_view = s.model.embedding;
  int64_t c = d.hidden_size, m = s.rows();
  int64_t begin = crew.begin(m), end = crew.end(m);
  EmbeddingArgs args{s.tokens.ids,         DType::i64, table_view.data,  s.buffers.x, m, c,
                     table_view.stride(0), c,          table_view.dtype, DType::f32};
  table().embedding(args, begin, end);
  for (int64_t r = begin; r < end; ++r) {
    float* x = s.buffers.x + r * c;
    if (d.embedding_scale != 1.0f)
      for (int64_t i = 0; i < c; ++i) x[i] *= d.embedding_scale;
    if (d.position != Position::learned) continue;
    const TensorView& positions = s.model.position_embedding;
    int64_t at = s.tokens.positions ? s.tokens.positions[r] : s.cache.length() + r % s.tokens.time;
    at += d.position_offset;
    table().embedding({&at, DType::i64, positions.data, s.buffers.h + r * c, 1, c,
                       positions.stride(0), c, positions.dtype, DType::f32},
                      0, 1);
    for (int64_t i = 0; i < c; ++i) x[i] += s.buffers.h[r * c + i];
  }
  crew.barrier();
}

// Logits of `rows` rows of x, x_stride apart, to rows y_stride apart.
void make_logits(Crew& crew, Step& s, const float* x, int64_t x_stride, int64_t rows, float* logits,
                 int64_t y_stride, void* own_rows, float* own_h) {
  const Description& d = s.model.description;
  const PackedView& head = s.model.head->view();
  bool own = rows <= kOwnRows;
  LinearRows ready;
  prepare(crew, d, &s.model.final_norm, head, x, x_stride, rows, own ? own_h : s.buffers.h,
          own ? own_rows : s.buffers.rows, &ready);
  multiply(crew, head, ready, rows, Activation::none, nullptr, logits, y_stride);
  if (d.logit_softcap <= 0) return;
  for (int64_t r = crew.rank(); r < rows; r += crew.size())
    for (int64_t i = 0; i < d.vocab_size; ++i) {
      float& logit = logits[r * y_stride + i];
      logit = d.logit_softcap * std::tanh(logit / d.logit_softcap);
    }
  crew.barrier();
}

void finish(Crew& crew, Step& s, void* own_rows, float* own_h) {
  int64_t c = s.model.description.hidden_size, v = s.model.description.vocab_size;
  int64_t batch = s.tokens.batch, time = s.tokens.time;
  const float* x = s.buffers.x;
  if (s.keep == time && (batch == 1 || s.logits_stride == time)) {  // every row
    make_logits(crew, s, x, c, batch * time, s.logits, v, own_rows, own_h);
  } else if (s.keep == 1) {  // the last row of each batch row
    make_logits(crew, s, x + (time - 1) * c, time * c, batch, s.logits, s.logits_stride * v,
                own_rows, own_h);
  } else {
    for (int64_t b = 0; b < batch; ++b)
      make_logits(crew, s, x + (b * time + time - s.keep) * c, c, s.keep,
                  s.logits + b * s.logits_stride * v, v, own_rows, own_h);
  }
}

void mlp(Crew& crew, Step& s, const Layer& layer, const NormWeight& norm, void* rows, float* h) {
  const Description& d = s.model.description;
  LinearRows ready;
  prepare(crew, d, &norm, layer.up->view(), s.buffers.x, d.hidden_size, s.rows(), h, rows, &ready);
  multiply(crew, layer.up->view(), ready, s.rows(), d.activation, nullptr, s.buffers.mlp,
           d.intermediate_size);
}

// x += w (from), rounded as w takes it
void add(Crew& crew, Step& s, const PackedView& w, const float* from, void* rows) {
  const Description& d = s.model.description;
  LinearRows ready;
  prepare(crew, d, nullptr, w, from, w.k, s.rows(), nullptr, rows, &ready);
  multiply(crew, w, ready, s.rows(), Activation::none, s.buffers.x, s.buffers.x, d.hidden_size);
}

void layers(Crew& crew, Step& s, void* own_rows, float* own_h) {
  const Description& d = s.model.description;
  bool own = s.rows() <= kOwnRows;
  void* rows = own ? own_rows : s.buffers.rows;
  float* h = own ? own_h : s.buffers.h;
  embed(crew, s);
  take_hidden(s.hidden, s.model, crew, 0, s.buffers.x, s.tokens.batch, s.tokens.time);
  for (int64_t index = 0; index < d.num_layers; ++index) {
    const Layer& layer = s.model.layers[size_t(index)];
    const NormWeight& second =
        layer.mlp_norm.weight.empty() ? layer.attention_norm : layer.mlp_norm;
    if (d.parallel_residual) mlp(crew, s, layer, second, rows, h);  // before x changes
    LinearRows ready;
    prepare(crew, d, &layer.attention_norm, layer.qkv->view(), s.buffers.x, d.hidden_size, s.rows(),
            h, rows, &ready);
    multiply(crew, layer.qkv->view(), ready, s.rows(), Activation::none, nullptr, s.buffers.qkv,
             layer.qkv->view().n);
    attend(crew, s, layer, index);
    add(crew, s, layer.attention_out->view(), s.buffers.attention, rows);
    if (!d.parallel_residual) mlp(crew, s, layer, second, rows, h);
    add(crew, s, layer.down->view(), s.buffers.mlp, rows);
    take_hidden(s.hidden, s.model, crew, index + 1, s.buffers.x, s.tokens.batch, s.tokens.time);
  }
  if (s.keep > 0) finish(crew, s, own_rows, own_h);
}

int64_t rows_bytes(const Model& model, int64_t m) {
  int64_t most = linear_rows_bytes(model.head->view(), m);
  for (const Layer& layer : model.layers)
    for (const Weight& w : {layer.qkv, layer.attention_out, layer.up, layer.down})
      most = std::max(most, linear_rows_bytes(w->view(), m));
  return most;
}

void run_chunk(Step& s) {
  const Description& d = s.model.description;
  int64_t m = s.rows(), width = d.q_size() + 2 * d.kv_size();
  AttentionArgs attention = attention_args(s, 0);
  Scratch floats(4 * (m * (2 * d.hidden_size + width + d.q_size() + d.intermediate_size) +
                      attention_partial_floats(attention)));
  Scratch rows(rows_bytes(s.model, m));
  Buffers& b = s.buffers;
  b.x = floats.as<float>();
  b.h = b.x + m * d.hidden_size;
  b.qkv = b.h + m * d.hidden_size;
  b.attention = b.qkv + m * width;
  b.mlp = b.attention + m * d.q_size();
  b.partial = b.mlp + m * d.intermediate_size;
  b.rows = rows.as<void>();
  int64_t own_bytes = rows_bytes(s.model, kOwnRows);
  run_team(0, [&](const Team& team) {
    Crew crew(team, s.cursors);
    Scratch own_rows(own_bytes), own_h(kOwnRows * d.hidden_size * 4);
    layers(crew, s, own_rows.as<void>(), own_h.as<float>());
  });
  s.cache.append(s.tokens.time);
}

void check(const Model& model, const Cache& cache, const Tokens& tokens, int64_t keep) {
  const Description& d = model.description;
  HONED_CHECK(cache.fits(d),
              "Engine: the cache was made for a model of other sizes, expected one of this engine");
  HONED_CHECK(tokens.batch == cache.batch(), "Engine: ids have ", tokens.batch,
              " rows, expected the cache's ", cache.batch());
  HONED_CHECK(tokens.time > 0, "Engine: ids are empty, expected at least one token");
  HONED_CHECK(keep >= 0 && keep <= tokens.time, "Engine: keep is ", keep, ", expected 0 to ",
              tokens.time);
  int64_t length = cache.length() + tokens.time;
  HONED_CHECK(length <= d.max_positions, "Engine: ", length, " tokens, expected at most ",
              d.max_positions, " (the model's positions)");
  for (int64_t i = 0; i < tokens.batch * tokens.time; ++i) {
    HONED_CHECK(tokens.ids[i] >= 0 && tokens.ids[i] < d.vocab_size, "Engine: token id ",
                tokens.ids[i], ", expected 0 to ", d.vocab_size - 1);
    if (tokens.positions)
      HONED_CHECK(tokens.positions[i] >= 0 && tokens.positions[i] < d.max_positions,
                  "Engine: position ", tokens.positions[i], ", expected 0 to ",
                  d.max_positions - 1);
  }
}

}  // namespace

void forward(const Model& model, Cache& cache, const Tokens& tokens, int64_t keep, float* logits,
             HiddenStates hidden) {
  check(model, cache, tokens, keep);
  int64_t vocab = model.description.vocab_size;
  int64_t step = std::max<int64_t>(1, kChunkRows / tokens.batch), before = cache.length();
  int64_t first_kept = tokens.time - keep;
  cache.open(tokens.time);
  std::vector<int64_t> ids, positions;
  for (int64_t t = 0; t < tokens.time; t += step) {
    int64_t time = std::min(step, tokens.time - t);
    Tokens chunk{tokens.ids, tokens.positions, tokens.mask, tokens.batch, time};
    if (time < tokens.time) {  // the chunk's columns, one batch row after the other
      auto slice = [&](const int64_t* from, std::vector<int64_t>& to) -> const int64_t* {
        if (!from) return nullptr;
        to.clear();
        for (int64_t b = 0; b < tokens.batch; ++b)
          to.insert(to.end(), from + b * tokens.time + t, from + b * tokens.time + t + time);
        return to.data();
      };
      chunk.ids = slice(tokens.ids, ids);
      chunk.positions = slice(tokens.positions, positions);
    }
    int64_t kept = std::clamp<int64_t>(t + time - first_kept, 0, time);
    float* to = kept ? logits + (t + time - kept - first_kept) * vocab : nullptr;
    hidden.start = t - (tokens.time - hidden.keep);
    Step s{model, cache, chunk, before + tokens.time, kept, to, keep, hidden, {}, {}};
    run_chunk(s);
  }
}

}  // namespace honed::engine
