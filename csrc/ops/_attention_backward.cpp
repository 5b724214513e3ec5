// The backward of scaled_dot_product_attention: its plan and its scratch memory.
#include "ops/_attention_backward.h"

#include <algorithm>

#include "core/arena.h"
#include "cpu/dispatch.h"

namespace honed {

namespace {

// Keys, values and the sums of their gradients for a chunk fill half of a 1 MB second-level cache.
constexpr int64_t kChunkFloats = 128 << 10;
constexpr int64_t kItems = 8;  // at least, where there are so many blocks

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t blocks_of(const AttentionArgs& a) {
  return a.heads / a.kv_heads * ceil_div(a.q_len, kBackwardRows);
}

}  // namespace

int64_t attention_backward_padded(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

int64_t attention_backward_floats(const AttentionBackwardArgs& args) {
  const AttentionArgs& a = args.forward;
  int64_t dims = attention_backward_padded(a.head_dim) + attention_backward_padded(a.value_dim);
  int64_t blocks = a.kv_len > args.chunk ? ceil_div(blocks_of(a), args.parts) : 1;
  return 2 * (args.chunk + kBackwardRows) * dims + 3 * kBackwardRows * kBackwardRows +
         blocks * kBackwardRows * attention_backward_padded(a.head_dim);
}

void attention_backward(AttentionBackwardArgs args) {
  const AttentionArgs& a = args.forward;
  if (a.batch * a.heads == 0) return;
  int64_t head_dim = attention_backward_padded(a.head_dim),
          dims = head_dim + attention_backward_padded(a.value_dim);
  int64_t most = kChunkFloats / (2 * std::max<int64_t>(dims, 1)) / kBackwardRows * kBackwardRows;
  args.chunk = std::clamp(ceil_div(a.kv_len, kBackwardRows) * kBackwardRows, kBackwardRows,
                          std::max(most, kBackwardRows));
  int64_t groups = a.batch * a.kv_heads;
  args.parts = std::clamp<int64_t>(ceil_div(kItems, groups), 1, std::max<int64_t>(blocks_of(a), 1));
  const cpu::KernelTable& table = cpu::kernels();

  int64_t rows = a.batch * a.heads * a.q_len;
  Scratch delta(rows * int64_t(sizeof(float)));
  args.delta = delta.as<float>();
  cpu::run(table.attention_backward_delta, args, rows, cpu::grain_for(a.value_dim / 4));

  int64_t items = groups * args.parts;
  int64_t each = 5 * a.q_len * a.kv_len * dims / 16 * (a.heads / a.kv_heads) / args.parts;
  int threads = int(std::min<int64_t>(cpu::threads_for(items * each), items));
  int64_t floats = attention_backward_floats(args);
  Scratch scratch(threads * floats * int64_t(sizeof(float)));
  Scratch partial((args.parts > 1 ? items * a.kv_len * dims : 0) * int64_t(sizeof(float)));
  args.partial = partial.as<float>();
  run_team(threads, [&](const Team& team) {
    AttentionBackwardArgs own = args;
    own.scratch = scratch.as<float>() + team.rank * floats;
    table.attention_backward(own, team.begin(items), team.end(items));
  });
  if (args.parts > 1)
    cpu::run(table.attention_backward_combine, args, groups * a.kv_len,
             cpu::grain_for(args.parts * dims / 4));
}

}  // namespace honed
