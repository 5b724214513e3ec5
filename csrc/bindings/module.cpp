// honed._core: binds every op of ops.def. Never edited for an op.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/native.h"
#include "core/check.h"
#include "core/env.h"
#include "core/parallel.h"
#include "core/rng.h"
#include "cpu/dispatch.h"

namespace honed::bindings {

namespace py = pybind11;

#define HONED_OP(name, Args) void bind_##name(py::module_& m);
#define HONED_COMPOSED(name) void bind_##name(py::module_& m);
#define HONED_KERNEL(name, Args)
#include "ops.def"
#undef HONED_OP
void bind_engine(py::module_& m);
void bind_graph(py::module_& m);
void bind_torch_library(py::module_& m);

PYBIND11_MODULE(_core, m) {
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const ValueError& e) {
      py::set_error(PyExc_ValueError, e.what());
    } catch (const TypeError& e) {
      py::set_error(PyExc_TypeError, e.what());
    }
  });
  m.def("level", &cpu::level, "Name of the CPU level in use.");
  m.def("compiled_levels", &cpu::compiled_levels, "CPU levels in this binary.");
  m.def("usable_levels", &cpu::usable_levels, "CPU levels that this machine runs.");
  m.def("set_level", &cpu::set_level, "Switches the CPU level; '' chooses the best.",
        py::arg("name"));
  m.def("num_threads", &num_threads, "Threads that a call made now would use.");
  m.def("set_num_threads", &set_num_threads, "0 follows torch.", py::arg("n"));
  m.def("num_cpus", &num_cpus, "CPUs of the affinity mask and the cgroup quota.");
  m.def("attach_openmp", &attach_openmp,
        "Shares torch's OpenMP team; returns the runtime's file or None.");
  m.def("random_uniform", &random_uniform, "The counter-based generator.", py::arg("seed"),
        py::arg("counter"));
  m.def("verbose", &env::verbose, "HONED_VERBOSE=1.");
  bind_native(m);
#define HONED_OP(name, Args) bind_##name(m);
#define HONED_COMPOSED(name) bind_##name(m);
#include "ops.def"
#undef HONED_OP
#undef HONED_KERNEL
  bind_engine(m);
  bind_graph(m);
  bind_torch_library(m);
  cpu::level();  // a bad HONED_ISA fails here, at import
}

}  // namespace honed::bindings
