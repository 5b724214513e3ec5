// rope: checks, the positions among them, then the CPU table.
#include "ops/rope.h"

#include "core/check.h"
#include "cpu/dispatch.h"

namespace honed {

namespace {

void check_table(const char* what, const TensorView& t, const TensorView& x) {
  HONED_CHECK_TYPE(t.dtype == DType::f32 || (t.dtype == DType::f64 && x.dtype == DType::f64),
                   "rope: ", what, " is ", name_of(t.dtype),
                   ", expected float32, or float64 beside an x of float64");
  HONED_CHECK(t.ndim == 2 && 2 * t.size(1) <= x.size(3), "rope: ", what, " has shape ", shape_of(t),
              ", expected [positions, at most ", x.size(3) / 2, "]");
  HONED_CHECK(t.size(1) < 2 || t.stride(1) == 1, "rope: ", what, "'s last dimension has stride ",
              t.stride(1), ", expected 1");
}

void check_positions(const TensorView& p, const TensorView& x, int64_t length) {
  HONED_CHECK_TYPE(p.dtype == DType::i64, "rope: positions is ", name_of(p.dtype),
                   ", expected int64");
  HONED_CHECK((p.ndim == 1 || (p.ndim == 2 && p.size(0) == x.size(0))) && p.size(-1) == x.size(1) &&
                  p.contiguous(),
              "rope: positions has shape ", shape_of(p), ", expected a contiguous [", x.size(1),
              "] or [", x.size(0), ", ", x.size(1), "]");
  const int64_t* values = p.as<int64_t>();
  for (int64_t i = 0; i < p.numel(); ++i)
    if (values[i] < 0 || values[i] >= length)
      raise<std::out_of_range>("rope: position ", values[i],
                               " is out of range, expected at least 0 and less than ", length,
                               ", the tables' length");
}

}  // namespace

void rope(const TensorView& y, const TensorView& x, const TensorView& cos, const TensorView& sin,
          const TensorView* positions, bool interleaved, bool inverse) {
  HONED_CHECK_TYPE(is_real(x.dtype), "rope: x is ", name_of(x.dtype),
                   ", expected float64, float32, float16 or bfloat16");
  HONED_CHECK(x.ndim == 4, "rope: x has shape ", shape_of(x),
              ", expected [batch, time, heads, size]");
  HONED_CHECK(x.size(3) < 2 || x.stride(3) == 1, "rope: x's last dimension has stride ",
              x.stride(3), ", expected 1");
  check_table("cos", cos, x);
  check_table("sin", sin, x);
  HONED_CHECK(same_shape(cos, sin) && cos.dtype == sin.dtype &&
                  (cos.size(0) < 2 || cos.stride(0) == sin.stride(0)),
              "rope: sin has shape ", shape_of(sin), ", expected cos's shape ", shape_of(cos),
              ", type and strides");
  if (positions)
    check_positions(*positions, x, cos.size(0));
  else if (x.size(1) > cos.size(0))
    raise<std::out_of_range>("rope: x has ", x.size(1), " positions, expected at most ",
                             cos.size(0), ", the tables' length");
  RopeArgs args{};
  args.x = x.data;
  args.y = y.data;
  for (int i = 0; i < 3; ++i) {
    args.x_stride[i] = x.stride(i);
    args.y_stride[i] = y.stride(i);
  }
  args.cos = cos.data;
  args.sin = sin.data;
  args.table_stride = cos.stride(0);
  if (positions) {
    args.positions = positions->as<int64_t>();
    args.positions_stride = positions->ndim == 2 ? x.size(1) : 0;
  }
  args.batch = x.size(0);
  args.time = x.size(1);
  args.heads = x.size(2);
  args.head_dim = x.size(3);
  args.rotary_dim = 2 * cos.size(1);
  args.interleaved = interleaved;
  args.inverse = inverse;
  args.wide_tables = cos.dtype == DType::f64;
  args.dtype = x.dtype;
  cpu::run(cpu::kernels().rope, args, args.batch * args.time,
           cpu::grain_for(args.heads * args.head_dim / 2));
}

}  // namespace honed
