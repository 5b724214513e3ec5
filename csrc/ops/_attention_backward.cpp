// The backward of scaled_dot_product_attention: its plan and its scratch memory.
#include "ops/_attention_backward.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "core/arena.h"
#include "cpu/dispatch.h"
#include "ops/_sizes.h"

namespace honed {

namespace {

// Keys, values and the sums of their gradients for a chunk fill half of a 1 MB second-level cache.
constexpr int64_t kChunkFloats = 128 << 10;
constexpr int64_t kItems = 8;  // at least, where there are so many blocks

// Blocks of query rows of a key head, of the longest sequence.
int64_t blocks_of(const AttentionArgs& a) {
  return ceil_div(a.heads / a.kv_heads * a.q_len, kBackwardRows);
}

int64_t padded(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }  // vectors of every level

// Runs a kernel with scratch memory of its own for every thread.
void run(cpu::Kernel<AttentionBackwardArgs> kernel, const AttentionBackwardArgs& args,
         int64_t items, int64_t operations, int64_t floats) {
  const int threads = int(std::min<int64_t>(cpu::threads_for(operations), items));
  if (threads == 0) return;
  Scratch scratch(threads * floats * int64_t(sizeof(float)));
  std::atomic<int64_t> next{0};
  run_team(threads, [&](const Team& team) {
    AttentionBackwardArgs own = args;
    own.scratch = scratch.as<float>() + team.rank * floats;
    // Items to whoever is free: sequences of different lengths and masks make them unequal.
    for (int64_t at; (at = next.fetch_add(1)) < items;) kernel(own, at, at + 1);
  });
}

void add_sinks(const AttentionBackwardArgs& args, int64_t rows) {
  const AttentionArgs& a = args.forward;
  const int64_t each = a.q_starts ? rows / a.heads : a.q_len;
  for (int64_t h = 0; h < a.heads; ++h) {
    double sum = 0;
    for (int64_t first = h * each; first < rows; first += a.heads * each)
      for (int64_t i = first; i < first + each; ++i)
        if (a.lse[i] != -INFINITY)
          sum -= std::exp(double(a.sinks[h]) - double(a.lse[i])) * double(args.delta[i]);
    static_cast<float*>(args.dsinks)[h] = float(sum);
  }
}

int64_t bias_items(const AttentionBackwardArgs& args) {
  const AttentionArgs& a = args.forward;
  return (args.dbias_stride[0] ? a.batch : 1) * (args.dbias_stride[1] ? a.heads : 1) *
         (args.dbias_stride[2] ? ceil_div(a.q_len, kBackwardRows) : 1);
}

}  // namespace

void attention_backward(AttentionBackwardArgs args) {
  const AttentionArgs& a = args.forward;
  if (a.batch * a.heads == 0) return;
  const cpu::KernelTable& table = cpu::kernels();
  if (a.dtype == DType::f64) {
    const int64_t items = a.batch * a.kv_heads;
    cpu::run(table.attention_backward_f64, args, items, args.dbias || args.dsinks ? items : 1);
    return;
  }
  const int64_t dim = padded(a.head_dim), dims = dim + padded(a.value_dim);
  const int64_t groups = a.batch * a.kv_heads, keys = ceil_div(a.kv_len, kBackwardRows);
  const int64_t most = kChunkFloats / (2 * std::max<int64_t>(dims, 1)) / kBackwardRows;
  args.chunk = kBackwardRows * std::clamp<int64_t>(keys, 1, std::max<int64_t>(most, 1));
  args.parts = std::clamp<int64_t>(ceil_div(kItems, groups), 1, std::max<int64_t>(blocks_of(a), 1));
  args.block_floats = kBackwardRows * (2 * dims + 3 * kBackwardRows);
  const int64_t kept_blocks = a.kv_len > args.chunk ? ceil_div(blocks_of(a), args.parts) : 1;
  const int64_t floats =
      args.block_floats + 2 * args.chunk * dims + kept_blocks * kBackwardRows * dim;

  const int64_t rows = a.heads * (a.q_starts ? a.q_starts[a.batch] : a.batch * a.q_len);
  Scratch delta(rows * int64_t(sizeof(float)));
  args.delta = delta.as<float>();
  cpu::run(table.attention_backward_delta, args, rows, cpu::grain_for(a.value_dim / 4));

  const int64_t items = groups * args.parts;
  const int64_t product = a.batch * a.heads * a.q_len * a.kv_len * dims / 16;
  Scratch partial((args.parts > 1 ? items * a.kv_len * dims : 0) * int64_t(sizeof(float)));
  args.partial = partial.as<float>();
  if (args.dq || args.dk || args.dv) {
    run(table.attention_backward, args, items, 3 * product, floats);
    if (args.parts > 1)
      cpu::run(table.attention_backward_combine, args, groups * a.kv_len,
               cpu::grain_for(args.parts * dims / 4));
  }
  if (args.dbias)
    run(table.attention_backward_bias, args, bias_items(args), product,
        args.block_floats + kBackwardRows * dims);
  if (args.dsinks) add_sinks(args, rows);
}

}  // namespace honed
