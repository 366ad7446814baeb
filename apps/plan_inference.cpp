// ratplus plan --inference: memory, largest batch, step and tokens/s of generation on a GPU.
#include "apps/plan_inference.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "apps/format.h"
#include "apps/model_options.h"
#include "apps/output_file.h"
#include "base/error.h"
#include "base/units.h"
#include "lib/plan/inference_plan.h"
#include "lib/report/table.h"

namespace ratplus::apps {

int plan_inference_command(const PlanInferenceArguments& args, const config::JobConfig& job,
                           const plan::Gpu& gpu, const std::string& json) {
  using Json = nlohmann::ordered_json;
  auto lengths = args.lengths;
  if (lengths.empty()) lengths.push_back(job.data.sequence_length);
  std::vector<std::vector<std::string>> rows = {
      {"pattern", "length", "cache a sequence", "sequences", "step", "floor", "tokens/s"}};
  Json all = Json::array();
  bool any = false;
  std::int64_t weight_bytes = 0, available = 0;
  const auto patterns = generation_patterns(args.patterns, job.model);
  for (const auto length : lengths) {
    for (const auto& pattern : patterns) {
      const auto plan =
          plan::plan_inference(job.model, pattern, length, args.batches, gpu, args.prefix_bytes);
      any = any || plan.largest > 0;
      weight_bytes = plan.weight_bytes, available = plan.available;
      const auto begin = [&](const std::string& what) {
        return std::vector<std::string>{pattern.describe(), fmt::format("{}", length),
                                        format_bytes(plan.sequence_bytes), what};
      };
      auto prompt = begin("prompt");
      prompt.insert(prompt.end(), {format_interval(plan.prompt_seconds), format_interval(plan.prompt_floor),
                                   format_fixed(static_cast<double>(length) / plan.prompt_seconds, 0)});
      rows.push_back(prompt);
      Json steps = Json::array();
      for (const auto& step : plan.steps) {
        const bool largest = &step == &plan.steps.back() && plan.largest > 0;
        auto row = begin(fmt::format("{}{}", step.batch, largest ? " (most)" : ""));
        const auto rate = static_cast<double>(step.batch) / step.seconds;
        if (step.fits) {
          row.insert(row.end(),
                     {format_interval(step.seconds), format_interval(step.floor), format_fixed(rate, 0)});
        } else {
          row.insert(row.end(), {"does not fit", format_interval(step.floor), ""});
        }
        rows.push_back(row);
        steps.push_back({{"sequences", step.batch},
                         {"fits", step.fits},
                         {"seconds", step.fits ? Json(step.seconds) : Json()},
                         {"floor_seconds", step.floor},
                         {"tokens_per_second", step.fits ? Json(rate) : Json()}});
      }
      all.push_back({{"pattern", pattern.describe()},
                     {"length", length},
                     {"weight_bytes", plan.weight_bytes},
                     {"sequence_bytes", plan.sequence_bytes},
                     {"other_bytes", plan.other_bytes},
                     {"prefix_bytes", args.prefix_bytes},
                     {"available_bytes", plan.available},
                     {"largest_batch", plan.largest},
                     {"prompt_seconds", plan.prompt_seconds},
                     {"prompt_floor_seconds", plan.prompt_floor},
                     {"steps", steps}});
    }
  }
  fmt::print("{}, {}: weights {} of {}\n\n{}\n", job.source, gpu.title, format_bytes(weight_bytes),
             format_bytes(available), report::format_table(rows, 1));
  if (gpu.own_products) {
    fmt::print(
        "Steps of 1b were measured on an H100 and an H200, of 7b on an H200: within 10 % of these, of many "
        "short caches 13 % "
        "longer;\nprompts on an H200 from 6 % shorter to 15 % longer. The host's part of a step is not in "
        "them.\n");
  } else {
    fmt::print("On this kind of GPU {}.\n", gpu.evidence);
  }
  write_json_output(json, all);
  return any ? 0 : 1;
}

}  // namespace ratplus::apps
