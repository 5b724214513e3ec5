// embedding: checks, the ids among them, then the CPU table.
#include "ops/embedding.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

namespace {

template <class Id>
void check_ids(const Id* ids, int64_t count, int64_t rows) {
  for (int64_t i = 0; i < count; ++i)
    if (ids[i] < 0 || int64_t(ids[i]) >= rows)
      raise<std::out_of_range>("embedding: id ", int64_t(ids[i]), " at position ", i,
                               " is out of range, expected at least 0 and less than ", rows);
}

}  // namespace

void embedding(const TensorView& out, const TensorView& ids, const TensorView& weight) {
  HONED_CHECK_TYPE(ids.dtype == DType::i64 || ids.dtype == DType::i32, "embedding: input is ",
                   name_of(ids.dtype), ", expected int64 or int32");
  for (const TensorView* t : {&weight, &out})
    HONED_CHECK_TYPE(is_float(t->dtype), "embedding: weight is ", name_of(t->dtype),
                     ", expected float32, float16 or bfloat16");
  EmbeddingArgs args{ids.data,       ids.dtype,        weight.data,   out.data,     ids.numel(),
                     weight.size(1), weight.stride(0), out.stride(0), weight.dtype, out.dtype};
  if (ids.dtype == DType::i64)
    check_ids(ids.as<int64_t>(), args.count, weight.size(0));
  else
    check_ids(ids.as<int32_t>(), args.count, weight.size(0));
  cpu::run(cpu::kernels().embedding, args, args.count, cpu::grain_for(args.cols / 4));
}

}  // namespace honed
