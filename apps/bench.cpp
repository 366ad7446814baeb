// ratplus bench: how fast operations and training steps are on this machine, and how far from their floors.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "apps/bench_generate.h"
#include "apps/bench_layer.h"
#include "apps/bench_times.h"
#include "apps/command_line.h"
#include "apps/device_options.h"
#include "apps/format.h"
#include "apps/output_file.h"
#include "apps/settle.h"
#include "apps/with_ranks.h"
#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/units.h"
#include "kernels/datasheet.h"
#include "lib/bench/decode_ops_bench.h"
#include "lib/bench/ops_bench.h"
#include "lib/bench/step_bench.h"
#include "lib/report/quantity.h"
#include "lib/report/table.h"
#include "lib/report/timeline_chart.h"
#include "lib/session/start_defaults.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;
using Json = nlohmann::ordered_json;

constexpr const char* bench_help = R"(usage: ratplus bench ops [options]
       ratplus bench ops JOB.toml [--set section.key=value ...] [options]
       ratplus bench step JOB.toml [--set section.key=value ...] [options]
       mpirun -n 4 ratplus bench step JOB.toml ...
       ratplus bench generate JOB.toml|CHECKPOINT [options]

ops: times the operations of one layer, forward and backward (median of several calls). The floor
of an operation is the larger of two times: the operations that it must do over the rate of a large
matrix product, and the bytes that it must move (each tensor once) over the bandwidth of a large
copy; both ceilings are measured first. What is far above its floor can be made faster.
With a job file: the operations of one layer of its model, for each mixer that the model has, then the
mixer and the layer in all, and how long they would take for 262,144 tokens.

step: times training steps of a job on random tokens (no dataset is needed; nothing is written):
tokens/s, each update's time and its share of the processor's peak, memory, where the time goes, and with
several ranks what the collectives take and how much of that is not hidden behind computation.

generate: times inference by pattern, length and batch, beside floors from the same ceilings: a prompt, and steps
at the end of sequences whose caches hold nothing in particular, after 0.25 s of the same steps. Of a job
file the weights are random.

)";

constexpr const char* bench_help_end = R"(
examples:
  ratplus bench ops --device cpu --sequence-length 4096 --width 512 --head-dim 128 --threads 1
  ratplus bench ops --batch 2 --sequence-length 4096 --width 2048 --vocab 32000
  ratplus bench ops configs/pretrain/rat-xl.toml --batch 2 --sequence-length 131072
  ratplus bench step configs/pretrain/1b.toml --micro-batches 4
  ratplus bench generate configs/pretrain/1b.toml --pattern dense 64,0,4 --lengths 4096 16384 --batches 1 64 max
)";

struct BenchArguments {
  std::vector<std::string> subject;  ///< "ops"; "step" and a job file; "generate" and a model
  BenchGenerateArguments generate;
  bench::OpsBenchSettings ops;
  std::string device;     ///< empty: auto; step: the job's
  std::string precision;  ///< empty: bf16; step: the job's
  bool any_order = false;
  int threads = 0;
  std::string json;
  std::string timeline;
  std::vector<std::string> overrides;
  std::int64_t micro_batches = 4;
  int steps = 5;
  int warmup = 2;
  double peak = 0;  ///< TFLOP/s; 0: known chips' own
};

// --- ops ------------------------------------------------------------------------------------------------------

std::string percent_cell(double share) {
  return report::format_value(report::Unit::share, share);
}

void print_times(const std::vector<bench::OpTime>& times, const bench::Ceilings& ceilings) {
  print_ceilings(ceilings);
  Rows rows = {times_head()};
  for (const auto& time : times) rows.push_back(times_row(time, ceilings));
  fmt::print("\n{}", report::format_table(rows, 0));
}

Json to_json(const bench::OpsBenchSettings& s, const Ops& ops, const bench::Ceilings& ceilings,
             const std::vector<bench::OpTime>& times) {
  return {{"device", ops.device_name()},
          {"compute_type", to_string(ops.compute_type())},
          {"batch", s.batch},
          {"sequence_length", s.tokens},
          {"width", s.width},
          {"head_dim", s.head_dim},
          {"vocab_size", s.vocab_size},
          {"ceilings", json_of(ceilings)},
          {"operations", json_of(times, ceilings)}};
}

/// Keeps bytes within 64 bits.
constexpr double most_elements = 0x1p53;

void check_sizes(const bench::OpsBenchSettings& s) {
  for (const auto& [option, value] : {std::pair{"batch", s.batch},
                                      {"sequence-length", s.tokens},
                                      {"width", s.width},
                                      {"head-dim", s.head_dim},
                                      {"vocab", s.vocab_size},
                                      {"sequences", s.sequences}}) {
    if (value < 1) fail("bench: --{} {} is not positive", option, value);
  }
  const auto rows = static_cast<double>(s.batch) * static_cast<double>(s.tokens);
  const auto columns = static_cast<double>(std::max(s.width, s.vocab_size));
  const auto cached =
      static_cast<double>(s.sequences) * static_cast<double>(s.tokens) * static_cast<double>(s.width);
  if (std::max({rows, static_cast<double>(s.width), static_cast<double>(s.sequences)}) * columns * 4 +
          cached * 4 >
      most_elements) {
    fail(
        "bench: --batch {} x --sequence-length {} with --width {} and --vocab {} is more than any memory "
        "holds; make "
        "some smaller",
        s.batch, s.tokens, s.width, s.vocab_size);
  }
  if (s.width % s.head_dim != 0 || s.head_dim % 2 != 0) {
    fail("bench: --width {} must be a multiple of --head-dim {}, which must be even", s.width, s.head_dim);
  }
}

int bench_ops(const BenchArguments& args) {
  const auto& s = args.ops;
  check_sizes(s);
  const auto device = args.device.empty() ? DeviceChoice::automatic : parse_device(args.device);
  const auto precision = args.precision.empty() ? DType::bf16 : parse_precision(args.precision);
  const bool gpu =
      device == DeviceChoice::cuda || (device == DeviceChoice::automatic && cuda_device_count() > 0);
  const auto ops = gpu ? make_cuda_ops(0, precision, !args.any_order) : make_cpu_ops(args.threads);
  fmt::print("one layer: {} x {}, width {}, {} of {}, {}, {} ({})\n", s.batch, counted(s.tokens, "token"),
             s.width, counted(s.width / s.head_dim, "head"), s.head_dim, to_string(ops->compute_type()),
             to_string(ops->device()), ops->device_name());
  const auto ceilings = bench::measure_ceilings(*ops);
  auto times = bench::time_ops(*ops, s);
  for (auto& time : bench::time_decode_ops(*ops, s)) times.push_back(std::move(time));
  print_times(times, ceilings);
  write_json_output(args.json, to_json(s, *ops, ceilings, times));
  return 0;
}

// --- step -----------------------------------------------------------------------------------------------------

void print_profile(const bench::StepTimes& times) {
  auto kinds = times.profile;
  std::ranges::sort(kinds, std::greater(), &OpProfile::seconds);
  double device = 0;
  for (const auto& kind : kinds) device += kind.seconds;
  Rows rows = {{"where a step's time goes", "calls", "time", "share"}};
  for (const auto& kind : kinds) {
    rows.push_back({kind.kind, fmt::format("{}", kind.calls), format_interval(kind.seconds),
                    percent_cell(kind.seconds / times.profiled_seconds)});
  }
  const double rest = times.profiled_seconds - device;
  rows.push_back(
      {"between operations", "", format_interval(rest), percent_cell(rest / times.profiled_seconds)});
  fmt::print("\n{}", report::format_table(rows, 0));
}

/// Prints the times of the collectives of the timeline's step, and the computation's waits for them.
void print_communication(const bench::StepTimes& times) {
  const auto totals = parallel::totals(times.timeline);
  if (totals.empty()) return;
  Rows rows = {{"communication of a step", "calls", "time", "bandwidth", "waited", "share"}};
  double waited = 0;
  for (const auto& total : totals) {
    rows.push_back({fmt::format("{} ({})", total.kind, to_string(total.lane)), fmt::format("{}", total.calls),
                    format_interval(total.seconds),
                    format_rate(static_cast<double>(total.bytes) / total.seconds, "B/s"),
                    format_interval(total.waited), percent_cell(total.waited / times.timeline_seconds)});
    waited += total.waited;
  }
  rows.push_back(
      {"not hidden", "", "", "", format_interval(waited), percent_cell(waited / times.timeline_seconds)});
  fmt::print("\n{}", report::format_table(rows, 0));
  fmt::print("sent by a rank: {} in groups of one host, {} in groups over several\n",
             format_bytes(static_cast<std::int64_t>(times.sent.within_hosts)),
             format_bytes(static_cast<std::int64_t>(times.sent.between_hosts)));
}

void print_step(const bench::StepTimes& times, double peak) {
  const auto rate = [&](double seconds) { return static_cast<double>(times.tokens) / seconds; };
  std::string memory;
  for (const auto& entry : times.memory)
    memory += fmt::format("{} {}, ", entry.category, format_bytes(entry.bytes));
  fmt::print("memory a rank: {}in all {}{}\n\n", memory, format_bytes(times.memory_bytes),
             times.memory_available < 0
                 ? ""
                 : fmt::format(" of {} available", format_bytes(times.memory_available)));
  Rows rows = {{"update", "ms", "tokens/s", "FLOP/s", "of peak"}};
  for (const auto& update : times.updates) {
    const double achieved = update.operations / update.seconds;
    rows.push_back({update.pattern, format_fixed(update.seconds * 1e3, 1),
                    format_fixed(rate(update.seconds), 0), format_rate(achieved, "FLOP/s"),
                    peak > 0 ? percent_cell(achieved / peak) : "-"});
  }
  rows.push_back({"step", format_fixed(times.seconds * 1e3, 1), format_fixed(rate(times.seconds), 0)});
  rows.push_back({"a rank", "", format_fixed(rate(times.seconds) / times.ranks, 0)});
  fmt::print("{}", report::format_table(rows, 0));
}

Json to_json(const BenchArguments& args, const config::JobConfig& job, const bench::StepTimes& times,
             double peak) {
  Json updates = Json::array(), profile = Json::array(), memory = Json::object(), timeline = Json::array();
  for (std::size_t h = 0; h < times.updates.size(); ++h) {
    const auto& update = times.updates[h];
    updates.push_back({{"pattern", update.pattern},
                       {"seconds", update.seconds},
                       {"tokens_per_second", static_cast<double>(times.tokens) / update.seconds},
                       {"operations", update.operations},
                       {"share_of_peak", peak > 0 ? Json(update.operations / update.seconds / peak) : Json()},
                       {"loss", times.losses[h]}});
  }
  for (const auto& kind : times.profile) {
    profile.push_back({{"kind", kind.kind}, {"seconds", kind.seconds}, {"calls", kind.calls}});
  }
  for (const auto& span : times.timeline) {
    timeline.push_back({{"lane", to_string(span.lane)},
                        {"kind", span.kind},
                        {"subject", span.subject},
                        {"begin", span.begin},
                        {"end", span.end},
                        {"bytes", span.bytes}});
    if (span.lane == parallel::Timeline::Lane::waiting) timeline.back()["of"] = to_string(span.of);
  }
  for (const auto& entry : times.memory) memory[entry.category] = entry.bytes;
  return {{"device", times.device},
          {"compute_type", to_string(times.compute_type)},
          {"ranks", times.ranks},
          {"parameters", times.parameters},
          {"micro_batch", job.data.micro_batch},
          {"micro_batches", args.micro_batches},
          {"sequence_length", job.data.sequence_length},
          {"recompute", to_string(job.job.recompute)},
          {"shard", to_string(job.parallel.shard)},
          {"tokens", times.tokens},
          {"updates", std::move(updates)},
          {"step_seconds", times.seconds},
          {"tokens_per_second", static_cast<double>(times.tokens) / times.seconds},
          {"peak_rate", peak},
          {"memory_bytes", times.memory_bytes},
          {"memory", std::move(memory)},
          {"profiled_step_seconds", times.profiled_seconds},
          {"profile", std::move(profile)},
          {"timeline_step_seconds", times.timeline_seconds},
          {"sent_bytes",
           {{"within_hosts", times.sent.within_hosts}, {"between_hosts", times.sent.between_hosts}}},
          {"timeline", std::move(timeline)}};
}

std::string timeline_title(const BenchArguments& args, const config::JobConfig& job,
                           const bench::StepTimes& times) {
  return fmt::format("{}: {} of {}, shard = {}, micro-batch {} x {} tokens: {:.0f} tokens/s a rank",
                     args.subject[1], counted(times.ranks, "rank"), times.device,
                     to_string(job.parallel.shard), job.data.micro_batch, job.data.sequence_length,
                     static_cast<double>(times.tokens) / times.seconds / times.ranks);
}

int bench_step(const BenchArguments& args, const parallel::World& world) {
  config::JobConfig job;
  world.agree([&] {
    auto overrides = args.overrides;
    if (!args.device.empty()) overrides.push_back("job.device=" + args.device);
    if (!args.precision.empty()) overrides.push_back("job.precision=" + args.precision);
    if (args.any_order) overrides.push_back("job.deterministic=false");
    if (args.threads > 0) overrides.push_back(fmt::format("job.threads={}", args.threads));
    job = config::load_job(args.subject[1], overrides, session::start_defaults);
    const double rows = static_cast<double>(args.micro_batches) * static_cast<double>(job.data.micro_batch) *
                        static_cast<double>(job.data.sequence_length);
    constexpr double most_rows = 0x1p32;  // of random tokens, which are held in memory
    if (rows > most_rows) {
      fail(
          "--micro-batches {} x data.micro_batch {} x data.sequence_length {} are {:.2g} tokens a step and "
          "rank, more "
          "than are "
          "kept in memory; give fewer",
          args.micro_batches, job.data.micro_batch, job.data.sequence_length, rows);
    }
  });
  const auto settled = settle(job, world);
  job = settled.job;
  const auto& m = job.model;
  if (world.root()) {
    print_renamed_keys(job);
    if (!settled.note.empty()) fmt::print("{}\n", settled.note);
    fmt::print("{}: {}, width {}, vocabulary {}; {} x {} x {} x {} tokens, recompute {}\n", args.subject[1],
               counted(m.layers, "layer"), m.width, m.vocab_size, counted(world.size(), "rank"),
               counted(args.micro_batches, "micro-batch", "micro-batches"), job.data.micro_batch,
               job.data.sequence_length, to_string(job.job.recompute));
    std::fflush(stdout);
  }
  const auto times = bench::time_steps(
      {.job = job, .micro_batches = args.micro_batches, .warmup = args.warmup, .steps = args.steps}, world);
  if (!world.root()) return 0;
  const double peak = args.peak > 0 ? args.peak * 1e12 : datasheet_peak(times.device, times.compute_type);
  fmt::print("{}, {}; {} parameters\n", times.device, to_string(times.compute_type), times.parameters);
  print_step(times, peak);
  print_profile(times);
  print_communication(times);
  write_json_output(args.json, to_json(args, job, times, peak));
  if (!args.timeline.empty()) {
    write_whole_file(args.timeline, report::draw_timeline(times.timeline, timeline_title(args, job, times)));
  }
  return 0;
}

/// Refuses options that the mode does not look at: another thing would be timed than was asked for.
void check_mode_options(const std::vector<std::string>& subject, const po::variables_map& values) {
  const bool of_job = subject.size() == 2;
  const std::string mode = subject.front() == "ops" ? (of_job ? "ops of a job" : "ops") : subject.front();
  if (mode != "ops" && mode != "step" && mode != "generate" && !of_job) return;  // is no mode
  const std::pair<const char*, std::vector<std::string_view>> modes_of[] = {
      {"batch", {"ops", "ops of a job"}},
      {"sequence-length", {"ops", "ops of a job"}},
      {"sequences", {"ops"}},
      {"width", {"ops", "ops of a job"}},
      {"head-dim", {"ops", "ops of a job"}},
      {"vocab", {"ops", "ops of a job"}},
      {"set", {"ops of a job", "step", "generate"}},
      {"micro-batches", {"step"}},
      {"steps", {"step", "generate"}},
      {"warmup", {"step"}},
      {"peak", {"step"}},
      {"timeline", {"step"}},
      {"any-order", {"ops", "ops of a job", "step"}},
      {"pattern", {"generate"}},
      {"lengths", {"generate"}},
      {"batches", {"generate"}},
      {"picture", {"generate"}}};
  for (const auto& [option, modes] : modes_of) {
    if (!values.contains(option) || values[option].defaulted()) continue;
    if (std::ranges::find(modes, mode) != modes.end()) continue;
    throw po::error(fmt::format("--{} goes with bench {}, and bench {} takes no notice of it", option,
                                fmt::join(modes, ", "), mode));
  }
}

}  // namespace

int bench_command(const Arguments& args) {
  BenchArguments parsed;
  std::vector<std::string> patterns, lengths, batches;
  po::options_description options("options");
  const auto size = [](std::int64_t& value) {
    return po::value(&value)->default_value(value)->value_name("N");
  };
  auto add = options.add_options();
  add("batch", size(parsed.ops.batch), "ops: sequences; of a job: its micro-batch");
  add("sequence-length", size(parsed.ops.tokens), "ops: T, tokens a sequence; these sizes replace the job's");
  add("sequences", size(parsed.ops.sequences), "ops: sequences of decode steps, beside one");
  add("width", size(parsed.ops.width), "ops: model width d");
  add("head-dim", size(parsed.ops.head_dim), "ops: channels a head");
  add("vocab", size(parsed.ops.vocab_size), "ops: vocabulary");
  add("set", po::value(&parsed.overrides)->composing()->multitoken()->value_name("SECTION.KEY=VALUE"),
      "of a job: override a key of its file");
  add("micro-batches", size(parsed.micro_batches), "step: micro-batches a rank and step");
  add("steps", po::value(&parsed.steps)->value_name("N"),
      "step, generate: steps that are timed; default: 5, 16");
  add("warmup", po::value(&parsed.warmup)->default_value(parsed.warmup)->value_name("N"),
      "step: steps before those");
  add("peak", po::value(&parsed.peak)->value_name("TFLOP/s"),
      "step: the processor's peak; default: the datasheet's for A100, H100 and H200");
  add("device", po::value(&parsed.device)->value_name("auto|cpu|cuda"), "default: auto, or the job's");
  add("precision", po::value(&parsed.precision)->value_name("bf16|f32"),
      "of a GPU's products (default: bf16, or the job's); generate, on a CPU: of matrices (default: f32 of a "
      "job, else as stored)");
  add("any-order", po::bool_switch(&parsed.any_order), "as job.deterministic = false");
  add("threads", po::value(&parsed.threads)->default_value(0)->value_name("N"),
      "CPU threads; 0: OpenMP's default");
  add("json", po::value(&parsed.json)->value_name("FILE"), "write the results there too");
  const auto words = [](std::vector<std::string>& values) {
    return po::value(&values)->composing()->multitoken();
  };
  add("pattern", words(patterns)->value_name("D,W,I"),
      "generate: patterns; default: dense 16,0,4 16,256,4 64,0,4, or dense alone of a model that takes none");
  add("lengths", words(lengths)->value_name("T"), "generate: tokens of a sequence at the end; default: 4096");
  add("batches", words(batches)->value_name("B"),
      "generate: sequences, max: as many as fit; default: 1 64 max");
  add("picture", po::value(&parsed.generate.picture)->value_name("FILE.svg"),
      "generate: draw tokens/s against the number of sequences");
  add("timeline", po::value(&parsed.timeline)->value_name("FILE.svg"),
      "step: draw what rank 0 computes and communicates in a step");
  const Positional subject{"what", 2, po::value(&parsed.subject),
                           "say what to time: ops, ops or step and a job file, or generate and a model",
                           "ops|step|generate PATH"};
  const auto values = parse_command_line(args, options, subject, {bench_help, bench_help_end});
  if (!values) return 0;
  check_mode_options(parsed.subject, *values);
  if (!parsed.device.empty()) parse_device(parsed.device);
  if (!parsed.precision.empty()) parse_precision(parsed.precision);
  if (!(parsed.peak >= 0)) throw po::error(fmt::format("--peak {} is in TFLOP/s, above 0", parsed.peak));
  const InputPaths inputs(parsed.subject.begin(), parsed.subject.end());
  check_json_output(parsed.json, inputs);
  check_output_name("--timeline", parsed.timeline, inputs);
  if (!parsed.timeline.empty() && !parsed.timeline.ends_with(".svg")) {
    throw po::error(fmt::format("--timeline {}: it is drawn as an .svg", parsed.timeline));
  }
  check_output_name("--picture", parsed.generate.picture, inputs);
  if (parsed.subject.front() == "generate" && parsed.subject.size() == 2) {
    auto& generate = parsed.generate;
    generate.model = parsed.subject[1], generate.overrides = parsed.overrides;
    generate.patterns = patterns;
    if (!lengths.empty()) generate.lengths = lengths;
    if (!batches.empty()) generate.batches = batches;
    if (values->contains("steps")) generate.steps = parsed.steps;
    generate.device = parsed.device, generate.precision = parsed.precision;
    generate.threads = parsed.threads, generate.json = parsed.json;
    check_bench_generate(generate);
    return with_ranks([&](const parallel::World& world) { return bench_generate(generate, world); });
  }
  if (parsed.subject.front() == "generate")
    throw po::error("bench generate needs a job file or weights (before --set)");
  if (parsed.subject.front() == "ops" && parsed.subject.size() == 1) return bench_ops(parsed);
  if (parsed.subject.front() == "ops") {
    BenchLayerArguments layer{.job = parsed.subject[1],
                              .overrides = parsed.overrides,
                              .device = parsed.device,
                              .precision = parsed.precision,
                              .any_order = parsed.any_order,
                              .threads = parsed.threads,
                              .json = parsed.json};
    const auto given = [&](const char* option) { return !(*values)[option].defaulted(); };
    for (const auto& [option, key] : {std::pair{"batch", "data.micro_batch"},
                                      {"sequence-length", "data.sequence_length"},
                                      {"width", "model.width"},
                                      {"head-dim", "model.head_dim"},
                                      {"vocab", "model.vocab_size"}}) {
      if (given(option))
        layer.overrides.push_back(fmt::format("{}={}", key, (*values)[option].as<std::int64_t>()));
    }
    return with_ranks([&](const parallel::World& world) { return bench_layer(layer, world); });
  }
  if (parsed.subject.front() == "step" && parsed.subject.size() == 2) {
    if (parsed.micro_batches < 1 || parsed.steps < 1 || parsed.warmup < 0) {
      throw po::error("--micro-batches and --steps are at least 1, --warmup at least 0");
    }
    return with_ranks([&](const parallel::World& world) { return bench_step(parsed, world); });
  }
  if (parsed.subject.front() == "step") throw po::error("bench step needs a job file (before --set)");
  throw po::error(fmt::format("\"{}\" cannot be timed; ops, step and generate can", parsed.subject.front()));
}

}  // namespace ratplus::apps
