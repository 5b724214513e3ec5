// honed._core: packed weights to and from a file, and what the memory of originals needs
#include "bindings/_packed_file.h"

#include <malloc.h>
#include <pybind11/stl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/caster.h"
#include "core/check.h"
#include "core/hash.h"
#include "ops/quantize_weight.h"

namespace honed::bindings {

namespace {

constexpr int64_t kAlign = 64;
constexpr int64_t kMostRows = int64_t{1} << 31;

using Extent = std::pair<int64_t, int64_t>;  // begin and end in the buffer

py::memoryview bytes_at(const void* data, int64_t bytes) {
  return py::memoryview::from_memory(data, py::ssize_t(bytes));
}

py::dict memory_of(const PackedWeight& weight) {
  const PackedView& v = weight.view();
  py::dict out;
  out["data"] = bytes_at(v.data, v.panels * v.panel_bytes);
  if (v.scales) out["scales"] = bytes_at(v.scales, v.panels * kPanel * 4);
  if (v.bias) out["bias"] = bytes_at(v.bias, v.panels * kPanel * 4);
  return out;
}

// Keeps a Python buffer exported; released under the GIL, by whatever thread drops the last weight.
std::shared_ptr<const void> keep(std::shared_ptr<py::buffer_info> info) {
  const void* at = info->ptr;
  return {at, [held = std::move(info)](const void*) mutable {
            if (!Py_IsInitialized()) {
              new std::shared_ptr<py::buffer_info>(std::move(held));  // the memory ends with us
              return;
            }
            py::gil_scoped_acquire acquired;
            held.reset();
          }};
}

std::shared_ptr<PackedWeight> map_packed(const py::buffer& buffer, const std::string& kind,
                                         const std::optional<int>& group, bool gated,
                                         const std::string& rows, int64_t n, int64_t k,
                                         const Extent& data, const std::optional<Extent>& scales,
                                         const std::optional<Extent>& bias) {
  auto info = std::make_shared<py::buffer_info>(buffer.request());
  HONED_CHECK(info->ndim == 1 && info->itemsize == 1, "map_packed: expected a buffer of bytes");
  HONED_CHECK(n > 0 && n < kMostRows && k > 0 && k < kMostRows, "map_packed: a weight of shape [",
              n, ", ", k, "], expected sizes from 1 to ", kMostRows - 1);
  std::optional<WeightKind> found = weight_kind_of(kind);
  HONED_CHECK(found, "map_packed: kind is exact, expected the kind that it was");
  WeightOptions options;
  options.group = group.value_or(kWholeRow);
  options.gated = gated;
  options.float_rows = rows == "float";
  PackedView view = packed_layout(*found, options, n, k);
  HONED_CHECK(view.panel_bytes <= info->size / view.panels, "map_packed: a weight of shape [", n,
              ", ", k, "], expected one that fits ", info->size, " bytes");
  HONED_CHECK(view.group == group.value_or(kLongestGroup), "map_packed: group is ",
              group.value_or(kWholeRow), ", expected ", view.group, " for ", kind);
  // int8 weights without scales have scales of 1, int4 weights need none within f16's range.
  HONED_CHECK(!scales || view.kind == WeightKind::int8 || view.kind == WeightKind::int4,
              "map_packed: ", kind, " has scales, expected none");
  const uint8_t* base = static_cast<const uint8_t*>(info->ptr);
  auto at = [&](const char* name, const Extent& extent, int64_t bytes) {
    auto [begin, end] = extent;
    HONED_CHECK(begin >= 0 && begin <= end && end <= info->size && end - begin == bytes,
                "map_packed: ", name, " at bytes ", begin, " to ", end, " of ", info->size,
                ", expected ", bytes, " bytes");
    HONED_CHECK(reinterpret_cast<uintptr_t>(base + begin) % kAlign == 0, "map_packed: ", name,
                " begins at byte ", begin, ", expected a multiple of ", kAlign);
    return base + begin;
  };
  int64_t row = view.panels * kPanel * 4;
  view.data = at("data", data, view.panels * view.panel_bytes);
  if (scales) view.scales = reinterpret_cast<const float*>(at("scales", *scales, row));
  if (bias) view.bias = reinterpret_cast<const float*>(at("bias", *bias, row));
  return std::make_shared<PackedWeight>(view, keep(std::move(info)));
}

uint64_t hash_of(const Tensor& tensor) {
  require_cpu("hash_bytes", {&tensor});
  HONED_CHECK(tensor->contiguous(), "hash_bytes: a tensor with strides, expected a contiguous one");
  TensorView view = tensor.view();
  py::gil_scoped_release released;
  return hash_bytes(view.data, view.numel() * int64_t(size_of(view.dtype)));
}

// Whole pages of a contiguous tensor are read from their file again when next touched. The caller
// knows that they are a private map of a file, without changes.
void drop_pages(const Tensor& tensor) {
  uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));
  uintptr_t begin = reinterpret_cast<uintptr_t>(tensor->data);
  uintptr_t end = begin + uintptr_t(tensor->numel()) * size_of(tensor->dtype);
  begin = (begin + page - 1) / page * page;
  end = end / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace

void bind_packed_file(py::module_& m) {
  m.attr("packed_layout") = kPackedLayout;
  m.def("memory_of", &memory_of, "Where a packed weight lies; valid while it lives.",
        py::arg("weight"));
  m.def("map_packed", &map_packed, "A packed weight in a buffer, which it keeps.",
        py::arg("buffer"), py::arg("kind"), py::arg("group"), py::arg("gated"), py::arg("rows"),
        py::arg("n"), py::arg("k"), py::arg("data"), py::arg("scales"), py::arg("bias"));
  m.def("hash_bytes", &hash_of, "64 bits of every byte of a contiguous tensor.", py::arg("tensor"));
  m.def("drop_pages", &drop_pages, "Forgets the pages of an unchanged private map of a file.",
        py::arg("tensor"));
  m.def("trim_heap", [] { malloc_trim(0); }, "Gives memory that was freed back to the system.");
}

}  // namespace honed::bindings
