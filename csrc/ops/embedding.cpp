// embedding: checks, the ids among them, then the CPU table.
#include "ops/embedding.h"

#include <cstring>

#include "core/arena.h"
#include "core/check.h"
#include "core/parallel.h"
#include "cpu/dispatch.h"

namespace honed {

namespace {

template <class Id>
void check_ids(const char* op, const Id* ids, int64_t count, int64_t rows) {
  for (int64_t i = 0; i < count; ++i)
    if (ids[i] < 0 || int64_t(ids[i]) >= rows)
      raise<std::out_of_range>(op, ": id ", int64_t(ids[i]), " at position ", i,
                               " is out of range, expected at least 0 and less than ", rows);
}

void check_ids(const char* op, const TensorView& ids, int64_t rows) {
  HONED_CHECK_TYPE(ids.dtype == DType::i64 || ids.dtype == DType::i32, op, ": input is ",
                   name_of(ids.dtype), ", expected int64 or int32");
  if (ids.dtype == DType::i64)
    check_ids(op, ids.as<int64_t>(), ids.numel(), rows);
  else
    check_ids(op, ids.as<int32_t>(), ids.numel(), rows);
}

// The places of every row's ids, in their order: those of row v from first[v] on.
template <class Id>
void sort_ids(const Id* ids, int64_t count, int64_t rows, int64_t* first, int64_t* places) {
  std::memset(first, 0, size_t(rows + 1) * 8);
  for (int64_t i = 0; i < count; ++i) ++first[ids[i] + 1];
  for (int64_t v = 0; v < rows; ++v) first[v + 1] += first[v];
  for (int64_t i = 0; i < count; ++i) places[first[ids[i]]++] = i;
  for (int64_t v = rows; v > 0; --v) first[v] = first[v - 1];  // each has moved to the next
  first[0] = 0;
}

}  // namespace

void embedding(const TensorView& out, const TensorView& ids, const TensorView& weight) {
  HONED_CHECK_TYPE(is_real(weight.dtype), "embedding: weight is ", name_of(weight.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  HONED_CHECK_TYPE(out.dtype == weight.dtype, "embedding: out is ", name_of(out.dtype),
                   ", expected weight's type, ", name_of(weight.dtype));
  check_ids("embedding", ids, weight.size(0));
  EmbeddingArgs args{ids.data,       ids.dtype,        weight.data,   out.data,     ids.numel(),
                     weight.size(1), weight.stride(0), out.stride(0), weight.dtype, out.dtype};
  cpu::run(cpu::kernels().embedding, args, args.count, cpu::grain_for(args.cols / 4));
}

void embedding_backward(const TensorView& dw, const TensorView& g, const TensorView& ids,
                        int64_t padding, bool scale_by_frequency) {
  HONED_CHECK_TYPE(is_real(g.dtype), "embedding_backward: grad is ", name_of(g.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  int64_t rows = dw.size(0), count = ids.numel(), bytes = dw.size(1) * size_of(dw.dtype);
  check_ids("embedding_backward", ids, rows);
  Scratch memory((rows + 1 + 2 * count) * 8);
  int64_t *first = memory.as<int64_t>(), *places = first + rows + 1, *row = places + count;
  if (ids.dtype == DType::i64)
    sort_ids(ids.as<int64_t>(), count, rows, first, places);
  else
    sort_ids(ids.as<int32_t>(), count, rows, first, places);
  auto is_named = [&](int64_t v) { return first[v] < first[v + 1] && v != padding; };
  int64_t named = 0;
  for (int64_t v = 0; v < rows; ++v)
    if (is_named(v)) row[named++] = v;
  parallel_for(rows, cpu::grain_for(bytes / 16), [&](int64_t begin, int64_t end) {
    while (begin < end) {
      int64_t next = begin;
      while (next < end && !is_named(next)) ++next;
      std::memset(dw.as<char>() + begin * bytes, 0, size_t((next - begin) * bytes));
      begin = next + 1;
    }
  });
  EmbeddingBackwardArgs args{
      g.data,  dw.data, row, first, places, named, dw.size(1), g.stride(0), scale_by_frequency,
      dw.dtype};
  int64_t blocks = (args.cols + kEmbeddingColumns - 1) / kEmbeddingColumns;
  cpu::run(cpu::kernels().embedding_backward, args, named * blocks,
           cpu::grain_for(kEmbeddingColumns / 4));
}

}  // namespace honed
