// Refusals. Every message begins with the op's name and gives what was got and what was expected.
#pragma once
#include <sstream>
#include <stdexcept>

namespace honed {

struct ValueError : std::runtime_error {  // Python ValueError
  using std::runtime_error::runtime_error;
};
struct TypeError : std::runtime_error {  // Python TypeError
  using std::runtime_error::runtime_error;
};

template <class Exception, class... Parts>
[[noreturn]] void raise(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw Exception(text.str());
}

}  // namespace honed

// HONED_CHECK(w.size(0) == n, "rms_norm: weight has ", w.size(0), " elements, expected ", n)
#define HONED_CHECK(condition, ...) \
  if (!(condition)) ::honed::raise<::honed::ValueError>(__VA_ARGS__)
#define HONED_CHECK_TYPE(condition, ...) \
  if (!(condition)) ::honed::raise<::honed::TypeError>(__VA_ARGS__)
