// The only getenv of the project.
#include "core/env.h"

#include <cstdlib>

#include "core/check.h"

namespace honed::env {

namespace {
std::string read(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}
}  // namespace

std::string isa() { return read("HONED_ISA"); }

int num_threads() {
  std::string text = read("HONED_NUM_THREADS");
  if (text.empty()) return 0;
  char* end = nullptr;
  long n = std::strtol(text.c_str(), &end, 10);
  HONED_CHECK(*end == '\0' && n > 0 && n <= 4096, "HONED_NUM_THREADS is '", text,
              "', expected a whole number from 1 to 4096");
  return int(n);
}

std::string cuda_lib() { return read("HONED_CUDA_LIB"); }
bool verbose() { return read("HONED_VERBOSE") == "1"; }

}  // namespace honed::env
