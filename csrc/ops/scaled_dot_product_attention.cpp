// scaled_dot_product_attention: the choice of path, and the sizes that kernels and callers agree on.
#include "ops/scaled_dot_product_attention.h"

#include <algorithm>
#include <atomic>

#include "core/arena.h"
#include "cpu/dispatch.h"
#include "ops/_attention_call.h"
#include "ops/_product_rate.h"
#include "ops/_sizes.h"

namespace honed {

namespace {

// Items to whoever is free: sequences of different lengths, windows and masks make them unequal.
void take_turns(cpu::Kernel<AttentionArgs> kernel, const AttentionArgs& args, int64_t items,
                const Team& team, std::atomic<int64_t>& next) {
  int64_t piece = std::max<int64_t>(1, items / (16 * team.size));
  for (int64_t at; (at = next.fetch_add(piece)) < items;)
    kernel(args, at, std::min(at + piece, items));
}

void run(const AttentionArgs& args, cpu::Kernel<AttentionArgs> kernel, int64_t operations) {
  int64_t items = attention_items(args), combined = attention_combine_items(args);
  std::atomic<int64_t> next{0};
  run_team(cpu::threads_for(operations), [&](const Team& team) {
    take_turns(kernel, args, items, team, next);
    if (combined == 0) return;
    team.barrier();
    cpu::kernels().attention_combine(args, team.begin(combined), team.end(combined));
  });
}

}  // namespace

bool attention_splits(const AttentionArgs& args) {
  if (args.dtype == DType::f64 || args.dropout != 0.0f) return false;
  return args.q_len <= kDecodeQueries || args.q_len * args.heads <= kDecodeRows * args.kv_heads;
}

int64_t attention_block_rows(const AttentionArgs& args) {
  int64_t size = std::max(args.head_dim, args.value_dim);
  return size <= 128 ? 64 : size <= 256 ? 32 : 16;
}

int64_t attention_chunks(const AttentionArgs& args) {
  return std::max<int64_t>(1, ceil_div(args.kv_len, kDecodeKeys));
}

int64_t attention_items(const AttentionArgs& args) {
  if (args.batch * args.heads * args.q_len == 0) return 0;
  if (args.dtype == DType::f64) return args.batch * args.heads * args.q_len;
  int64_t groups = args.batch * args.kv_heads, rows = args.heads / args.kv_heads * args.q_len;
  return groups * (attention_splits(args) ? attention_chunks(args)
                                          : ceil_div(rows, attention_block_rows(args)));
}

int64_t attention_combine_items(const AttentionArgs& args) {
  bool combines = attention_splits(args) && attention_chunks(args) > 1;
  return combines ? args.batch * args.heads * args.q_len : 0;
}

int64_t attention_partial_floats(const AttentionArgs& args) {
  return attention_combine_items(args) * attention_chunks(args) * (args.value_dim + 2);
}

void scaled_dot_product_attention(const AttentionInputs& inputs) {
  AttentionCall call(inputs);
  AttentionArgs& args = call.args;
  if (args.batch * args.heads * args.q_len == 0) return;
  args.dots = args.dtype == DType::bf16 && args.kv_dtype == DType::bf16 &&
              way_of_bf16(attention_block_rows(args)) != Way::plain;
  const cpu::KernelTable& table = cpu::kernels();
  auto kernel = args.dtype == DType::f64 ? table.attention_f64
                : attention_splits(args) ? table.attention_decode
                                         : table.scaled_dot_product_attention;
  Scratch partial(attention_partial_floats(args) * int64_t(sizeof(float)));
  args.partial = partial.as<float>();
  run(args, kernel,
      args.batch * args.heads * args.q_len * args.kv_len * (args.head_dim + args.value_dim) / 4);
}

}  // namespace honed
