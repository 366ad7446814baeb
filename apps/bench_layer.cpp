#include "apps/bench_layer.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "apps/bench_times.h"
#include "apps/command_line.h"
#include "apps/format.h"
#include "apps/output_file.h"
#include "base/error.h"
#include "base/units.h"
#include "lib/bench/layer_bench.h"
#include "lib/report/table.h"
#include "lib/session/device.h"
#include "lib/session/settings_of_job.h"
#include "lib/session/start_defaults.h"

namespace ratplus::apps {
namespace {

using Json = nlohmann::ordered_json;

/// The tokens for which the authors of RAT report a layer's latency, in sequences of any length.
constexpr double reported_tokens = 262144;

config::JobConfig load(const BenchLayerArguments& args) {
  auto overrides = args.overrides;
  if (!args.device.empty()) overrides.push_back("job.device=" + args.device);
  if (!args.precision.empty()) overrides.push_back("job.precision=" + args.precision);
  if (args.any_order) overrides.push_back("job.deterministic=false");
  if (args.threads > 0) overrides.push_back(fmt::format("job.threads={}", args.threads));
  auto job = config::load_job(args.job, overrides, session::start_defaults);
  constexpr double most_rows = 0x1p32;
  const auto rows = static_cast<double>(job.data.micro_batch) * static_cast<double>(job.data.sequence_length);
  if (rows > most_rows) {
    fail(
        "{}: data.micro_batch {} x data.sequence_length {} are {:.2g} tokens, more than a layer is timed "
        "with; give fewer",
        args.job, job.data.micro_batch, job.data.sequence_length, rows);
  }
  return job;
}

std::vector<std::string> total_row(const std::string& name, double forward, double backward, double floor) {
  return {name, format_interval(forward), format_interval(backward), format_interval(floor),
          format_fixed((forward + backward) / floor, 2)};
}

void add_total(Rows& rows, const std::string& name, double forward, double backward, double floor,
               double scale) {
  rows.push_back(total_row(name, forward, backward, floor));
  rows.push_back(total_row(
      fmt::format("  for {:.0f} tokens: {}", reported_tokens, format_interval((forward + backward) * scale)),
      forward * scale, backward * scale, floor * scale));
}

void print_layer(const bench::LayerTimes& times, const bench::Ceilings& ceilings, double tokens) {
  const auto &mixer = times.of_mixer, &feed_forward = times.of_feed_forward;
  fmt::print("\n{}{}\n", times.mixer, times.pattern.empty() ? "" : ", pattern " + times.pattern);
  std::vector<std::string> memory;
  for (const auto& entry : times.memory)
    memory.push_back(fmt::format("{} {}", entry.category, format_bytes(entry.bytes)));
  fmt::print("memory of a layer: {}\n", fmt::join(memory, ", "));
  Rows rows = {times_head()};
  for (const auto& time : mixer.operations) rows.push_back(times_row(time, ceilings));
  const double scale = reported_tokens / tokens;
  add_total(rows, "mixer in all", mixer.forward, mixer.backward, mixer.floor(ceilings), scale);
  rows.emplace_back();
  for (const auto& time : feed_forward.operations) rows.push_back(times_row(time, ceilings));
  rows.push_back(total_row("feed-forward layer in all", feed_forward.forward, feed_forward.backward,
                           feed_forward.floor(ceilings)));
  rows.emplace_back();
  add_total(rows, "layer in all", mixer.forward + feed_forward.forward,
            mixer.backward + feed_forward.backward, mixer.floor(ceilings) + feed_forward.floor(ceilings),
            scale);
  fmt::print("{}", report::format_table(rows, 0));
}

Json json_of_sublayer(const bench::SublayerTimes& times, const bench::Ceilings& ceilings) {
  return {{"forward_seconds", times.forward},
          {"backward_seconds", times.backward},
          {"floor_seconds", times.floor(ceilings)},
          {"operations", json_of(times.operations, ceilings)}};
}

Json to_json(const config::JobConfig& job, const Ops& ops, const bench::Ceilings& ceilings,
             const std::vector<bench::LayerTimes>& layers) {
  Json list = Json::array();
  for (const auto& times : layers) {
    Json memory = Json::object();
    for (const auto& entry : times.memory) memory[entry.category] = entry.bytes;
    list.push_back({{"mixer", times.mixer},
                    {"pattern", times.pattern},
                    {"of_mixer", json_of_sublayer(times.of_mixer, ceilings)},
                    {"of_feed_forward", json_of_sublayer(times.of_feed_forward, ceilings)},
                    {"memory", std::move(memory)}});
  }
  return {{"device", ops.device_name()},
          {"compute_type", to_string(ops.compute_type())},
          {"deterministic", job.job.deterministic},
          {"batch", job.data.micro_batch},
          {"sequence_length", job.data.sequence_length},
          {"width", job.model.width},
          {"head_dim", job.model.head_dim},
          {"ceilings", json_of(ceilings)},
          {"layers", std::move(list)}};
}

}  // namespace

int bench_layer(const BenchLayerArguments& args, const parallel::World& world) {
  config::JobConfig job;
  world.agree([&] {
    if (world.size() > 1) fail("bench ops times one processor; start it without mpirun");
    job = load(args);
  });
  print_renamed_keys(job);
  const auto& m = job.model;
  const auto ops = session::open_device({.device = job.job.device,
                                         .precision = job.job.precision,
                                         .deterministic = job.job.deterministic,
                                         .threads = world.threads(job.job.threads),
                                         .head_dim = m.head_dim},
                                        world);
  const auto tokens = job.data.micro_batch * job.data.sequence_length;
  fmt::print("one layer of {}: {} x {}, width {}, {} of {}, {}, {} ({}){}\n", args.job, job.data.micro_batch,
             counted(job.data.sequence_length, "token"), m.width, counted(m.heads(), "head"), m.head_dim,
             to_string(ops->compute_type()), to_string(ops->device()), ops->device_name(),
             job.job.deterministic ? "" : ", sums in any order");
  const auto ceilings = bench::measure_ceilings(*ops);
  print_ceilings(ceilings);
  bench::LayerBenchSettings settings{
      .model = m, .shapes = {job.data.micro_batch, job.data.sequence_length}, .patterns = {}};
  for (const auto& update : session::updates(job)) settings.patterns.push_back(update.pattern);
  const auto layers = bench::time_layers(*ops, settings);
  for (const auto& times : layers) print_layer(times, ceilings, static_cast<double>(tokens));
  write_json_output(args.json, to_json(job, *ops, ceilings, layers));
  return 0;
}

}  // namespace ratplus::apps
