// honed._core.sample
#include "ops/sample.h"

#include <pybind11/stl.h>

#include "bindings/_token_rules.h"
#include "bindings/caster.h"
#include "core/check.h"

namespace honed::bindings {

void bind_sample(py::module_& m) {
  bind_token_rules(m);
  m.def(
      "sample",
      [](const Tensor& logits, float temperature, int64_t top_k, double top_p, double min_p,
         bool do_sample, const std::vector<uint64_t>& seeds, uint64_t counter) {
        require_cpu("sample", {&logits});
        HONED_CHECK(logits->ndim == 2, "sample: logits have shape ", shape_of(logits.view()),
                    ", expected (B,V)");
        HONED_CHECK(!do_sample || temperature == 0.0f || int64_t(seeds.size()) == logits->size(0),
                    "sample: ", seeds.size(), " seeds, expected one for each of ", logits->size(0),
                    " rows");
        Rows rows(logits.view());
        int64_t count = logits->size(0);
        NewTensor out = empty(logits, {&count, 1}, DType::i64);
        {
          py::gil_scoped_release released;
          std::vector<SampleRow> row(static_cast<size_t>(count));
          for (size_t b = 0; b < row.size(); ++b) {
            SampleOptions& o = row[b].options;
            o.do_sample = do_sample;
            o.temperature = temperature;
            o.top_k = top_k;
            o.top_p = top_p;
            o.min_p = min_p;
            row[b].seed = seeds.empty() ? 0 : seeds[b];
            row[b].counter = counter;
          }
          check_sample_options(row.data(), count);
          SampleArgs args{};
          set_logits(&args, rows.view());
          args.row = row.data();
          args.out = out.view.as<int64_t>();
          sample(args);
        }
        return out.object;
      },
      "One token a row of logits.", py::arg("logits"), py::arg("temperature"), py::arg("top_k"),
      py::arg("top_p"), py::arg("min_p"), py::arg("do_sample"), py::arg("seeds"),
      py::arg("counter"));
}

}  // namespace honed::bindings
