// ratplus bench generate: prompts and steps of inference, beside floors that are measured in the same run.
#include "apps/bench_generate.h"

#include <fmt/core.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <charconv>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/device_options.h"
#include "apps/format.h"
#include "apps/model_options.h"
#include "apps/output_file.h"
#include "apps/progress_line.h"
#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/units.h"
#include "lib/bench/generate_bench.h"
#include "lib/config/job.h"
#include "lib/report/batch_chart.h"
#include "lib/report/table.h"

namespace ratplus::apps {
namespace {

using Json = nlohmann::ordered_json;

std::int64_t parse_count(const char* option, const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > 1'000'000'000)
    throw boost::program_options::error(fmt::format("{} {}: is no number from 1 to 1e9", option, text));
  return value;
}

std::vector<std::int64_t> parse_lengths(const BenchGenerateArguments& args) {
  std::vector<std::int64_t> lengths;
  for (const auto& text : args.lengths) lengths.push_back(parse_count("--lengths", text));
  return lengths;
}

std::vector<std::int64_t> parse_batches(const BenchGenerateArguments& args) {
  std::vector<std::int64_t> batches;
  for (const auto& text : args.batches) batches.push_back(text == "max" ? 0 : parse_count("--batches", text));
  return batches;
}

/// The model that a job file describes, or the one that weights have.
infer::ResolvedModel model_of(const BenchGenerateArguments& args) {
  infer::ModelRequest request{.threads = args.threads};
  if (!args.device.empty()) request.device = parse_device(args.device);
  if (!args.precision.empty()) request.precision = parse_precision(args.precision);
  if (!args.model.ends_with(".toml")) return infer::resolve(request, args.model);
  const auto job = config::load_job(args.model, args.overrides);
  infer::ResolvedModel model;
  model.config = job.model, model.plan = job.job.pattern;
  model.trained_tokens = model.tokens = job.data.sequence_length;
  model.device = request.device.value_or(job.job.device);
  model.precision = request.precision.value_or(job.job.precision);
  model.cpu_weights = request.precision.value_or(DType::f32);
  model.threads = args.threads > 0 ? args.threads : job.job.threads;
  return model;
}

std::vector<std::string> row_of(const bench::GenerateTime& time) {
  const auto what = time.batch == 0
                        ? std::string("prompt")
                        : fmt::format("{}{}", counted(time.batch, "sequence"), time.largest ? " (most)" : "");
  return {time.pattern,
          fmt::format("{}", time.length),
          what,
          format_interval(time.seconds),
          format_interval(time.floor),
          fmt::format("{:.0f} %", 100 * time.floor / time.seconds),
          format_fixed(time.tokens_per_second(), 0),
          format_bytes(static_cast<std::int64_t>(time.cache_bytes))};
}

void write_picture(const std::string& file, const bench::GenerateTimes& times, const std::string& model) {
  std::vector<report::BatchLine> lines;
  for (const auto& time : times.times) {
    if (time.batch == 0) continue;
    const auto name = fmt::format("{}, {}", time.pattern, time.length);
    auto found = std::ranges::find(lines, name, &report::BatchLine::name);
    if (found == lines.end()) {
      lines.push_back({.name = name, .measured = {}, .floor = {}});
      found = lines.end() - 1;
    }
    const auto batch = static_cast<double>(time.batch);
    found->measured.push_back({batch, time.tokens_per_second()});
    found->floor.push_back({batch, batch / time.floor});
  }
  for (auto& line : lines) {
    std::ranges::sort(line.measured, {}, &report::Point::x);
    std::ranges::sort(line.floor, {}, &report::Point::x);
  }
  if (lines.empty()) fail("--picture {}: no batch was timed", file);
  write_whole_file(file, report::draw_batch_chart(lines, fmt::format("{} on {}", model, times.device)));
}

Json generate_json(const bench::GenerateTimes& times) {
  Json all = {
      {"device", times.device},
      {"compute_type", to_string(times.compute_type)},
      {"weight_type", to_string(times.weight_type)},
      {"weight_bytes", times.weight_bytes},
      {"ceilings", {{"product_rate", times.ceilings.product_rate}, {"bandwidth", times.ceilings.bandwidth}}},
      {"times", Json::array()}};
  for (const auto& time : times.times) {
    all["times"].push_back({{"pattern", time.pattern},
                            {"length", time.length},
                            {"kind", time.batch == 0 ? "prompt" : "step"},
                            {"sequences", time.batch == 0 ? 1 : time.batch},
                            {"largest", time.largest},
                            {"seconds", time.seconds},
                            {"processor_seconds", time.processor_seconds},
                            {"floor_seconds", time.floor},
                            {"tokens_per_second", time.tokens_per_second()},
                            {"cache_bytes", time.cache_bytes}});
  }
  return all;
}

}  // namespace

void check_bench_generate(const BenchGenerateArguments& args) {
  parse_lengths(args), parse_batches(args);
  if (args.steps < 1) throw boost::program_options::error("--steps is at least 1");
}

int bench_generate(const BenchGenerateArguments& args, const parallel::World& world) {
  if (world.size() > 1) fail("bench generate: one rank times one device; start it without mpirun");
  auto model = model_of(args);
  bench::GenerateBenchSettings settings{.patterns = generation_patterns(args.patterns, model.config),
                                        .lengths = parse_lengths(args),
                                        .batches = parse_batches(args),
                                        .steps = args.steps};
  std::ranges::sort(settings.batches, {}, [](std::int64_t batch) { return batch == 0 ? INT64_MAX : batch; });
  infer::Inference inference(model, infer::EngineRequest{.slots = 1, .rows = infer::prompt_cut}, world);
  if (model.source) {
    inference.load();
  } else {
    inference.set_initial(1);
  }
  fmt::print("{}: {}, width {}, weights {} ({}), on {}\n\n", args.model,
             counted(model.config.layers, "layer"), model.config.width,
             format_bytes(inference.weight_bytes()), to_string(inference.weight_type()),
             inference.ops().device_name());
  std::fflush(stdout);
  std::vector<std::vector<std::string>> rows = {
      {"pattern", "length", "what", "time", "floor", "of it", "tokens/s", "cache a sequence"}};
  const auto in_all = settings.lengths.size() * settings.patterns.size() * (settings.batches.size() + 1);
  ProgressLine progress;
  const auto times = bench::time_generation(inference, settings, [&](const bench::GenerateTime& time) {
    rows.push_back(row_of(time));
    progress.update(fmt::format("{} of {}, {} measured", rows.size() - 1, in_all, time.pattern));
  });
  progress.finish();
  fmt::print("ceilings: products {}, copies {}\n\n{}", format_rate(times.ceilings.product_rate, "FLOP/s"),
             format_rate(times.ceilings.bandwidth, "B/s"), report::format_table(rows, 1));
  write_json_output(args.json, generate_json(times));
  if (!args.picture.empty()) write_picture(args.picture, times, args.model);
  return 0;
}

}  // namespace ratplus::apps
