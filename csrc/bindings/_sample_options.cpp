#include "bindings/_sample_options.h"

#include <string>

#include "core/check.h"

namespace honed::bindings {

namespace py = pybind11;

SampleOptions read_sample_options(const py::dict& given) {
  SampleOptions o;
  for (const auto& [key, value] : given) {
    if (value.is_none()) continue;
    std::string name = py::str(key);
    auto read = [&, &value = value](auto* to) {
      try {
        *to = value.template cast<std::remove_pointer_t<decltype(to)>>();
      } catch (const py::cast_error&) {
        raise<TypeError>("sample: ", name, " is a ",
                         std::string(py::str(py::type::handle_of(value).attr("__name__"))),
                         ", expected a number");
      }
    };
    if (name == "do_sample")
      read(&o.do_sample);
    else if (name == "temperature")
      read(&o.temperature);
    else if (name == "dynatemp_range")
      read(&o.dynatemp_range);
    else if (name == "dynatemp_exponent")
      read(&o.dynatemp_exponent);
    else if (name == "top_n_sigma")
      read(&o.top_n_sigma);
    else if (name == "top_h")
      read(&o.top_h);
    else if (name == "top_k")
      read(&o.top_k);
    else if (name == "top_p")
      read(&o.top_p);
    else if (name == "min_p")
      read(&o.min_p);
    else if (name == "typical_p")
      read(&o.typical_p);
    else if (name == "epsilon_cutoff")
      read(&o.epsilon_cutoff);
    else if (name == "eta_cutoff")
      read(&o.eta_cutoff);
    else if (name == "xtc_probability")
      read(&o.xtc_probability);
    else if (name == "xtc_threshold")
      read(&o.xtc_threshold);
    else if (name == "mirostat")
      read(&o.mirostat);
    else if (name == "mirostat_tau")
      read(&o.mirostat_tau);
    else if (name == "mirostat_eta")
      read(&o.mirostat_eta);
    else if (name == "min_tokens_to_keep")
      read(&o.min_tokens_to_keep);
    else
      raise<ValueError>("sample: there is no option named '", name, "'");
  }
  return o;
}

}  // namespace honed::bindings
