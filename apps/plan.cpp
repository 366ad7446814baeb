// ratplus plan: what a job would take on a cluster, before a GPU is asked for.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/command_line.h"
#include "apps/format.h"
#include "apps/model_options.h"
#include "apps/output_file.h"
#include "apps/plan_inference.h"
#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/units.h"
#include "lib/plan/measured_cluster.h"
#include "lib/plan/plan.h"
#include "lib/plan/plan_json.h"
#include "lib/plan/plan_sizes.h"
#include "lib/plan/tune.h"
#include "lib/report/quantity.h"
#include "lib/report/table.h"
#include "lib/session/start_defaults.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;
using Json = nlohmann::ordered_json;

constexpr const char* plan_help =
    R"(usage: ratplus plan JOB.toml [--nodes N] [--gpus-per-node G] [--gpu KIND] [options]

Tells, before a GPU is asked for, what a job would take on a cluster: memory of a GPU by part, operations
and traffic of a step, its expected time and where it goes, tokens/s, share of peak, hours and GPU hours to
the end of the job, and the size of its checkpoints. No GPU, no data and no MPI are needed.

With --tune, the ten fastest settings that fit are listed, with the words that --set takes: micro-batch and
recomputation, sharding, its group, kept weights and prefetch, and the type in which gradients travel.
With --inference, what generation takes of one GPU: memory, the most sequences that fit, time of a prompt and
of a step, tokens/s, by pattern, length and number of sequences.
With --check, the cluster is the one that `ratplus check --json FILE` has measured: its nodes and GPUs, and the
rates of their products, copies and links.

The memory is counted by the program's own objects. The time comes from a model, which
docs/performance.md explains and compares with measured steps; "cautions" say where a plan goes beyond
what was measured. Where the job does not fit, settings are named that do, and the status is 1 (with --table: where it fits none).

)";

constexpr const char* plan_help_end = R"(
examples:
  ratplus plan configs/pretrain/1b.toml --gpu h100
  ratplus plan configs/pretrain/7b.toml --gpu h200 --nodes 8 --set parallel.keep_weights=true
  ratplus plan configs/pretrain/3b.toml --gpu a100 --table 1,2,4,8 --network 20
  ratplus plan configs/pretrain/7b.toml --gpu h200 --gpus-per-node 4 --tune
  ratplus plan configs/pretrain/1b.toml --gpu h100 --inference --pattern dense 64,0,4 --lengths 4096 16384
)";

struct PlanArguments {
  std::string job;
  std::vector<std::string> overrides;
  plan::Cluster cluster;
  std::vector<int> table;  ///< numbers of nodes; empty: only cluster.nodes
  std::string json;
  bool tune = false;
  bool inference = false;
  PlanInferenceArguments generation;
  std::string check;  ///< a file of `ratplus check --json`
};

/// "1,2,4,8".
std::vector<int> parse_nodes(const std::string& text) {
  std::vector<int> result;
  for (std::size_t begin = 0; begin <= text.size();) {
    const auto end = std::min(text.find(',', begin), text.size());
    int nodes = 0;
    const auto [stop, error] = std::from_chars(text.data() + begin, text.data() + end, nodes);
    if (error != std::errc() || stop != text.data() + end || nodes < 1) {
      throw po::error(fmt::format("--table {} is no list of numbers of nodes, as 1,2,4,8", text));
    }
    result.push_back(nodes);
    begin = end + 1;
  }
  return result;
}

std::string known_names() {
  std::vector<std::string_view> names;
  for (const auto& gpu : plan::known_gpus()) names.push_back(gpu.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

/// Empty when help was asked for and given.
std::optional<PlanArguments> parse_plan(const Arguments& args) {
  PlanArguments parsed;
  std::string gpu, table;
  const auto gpu_help = fmt::format("kind of GPU: {}", known_names());
  po::options_description options("options");
  auto add = options.add_options();
  add("nodes", po::value(&parsed.cluster.nodes)->default_value(1)->value_name("N"), "nodes");
  add("gpus-per-node", po::value(&parsed.cluster.gpus_per_node)->default_value(8)->value_name("G"),
      "GPUs of a node, a rank each");
  add("gpu", po::value(&gpu)->default_value("h100")->value_name("KIND"), gpu_help.c_str());
  add("table", po::value(&table)->value_name("N,N,..."), "a line for each of these numbers of nodes");
  add("network", po::value(&parsed.cluster.network)->value_name("GB/s"),
      "what collectives reach between nodes, a GPU; default: 40 (400 Gbit/s a GPU)");
  add("link", po::value(&parsed.cluster.link)->value_name("GB/s"),
      "what they reach within a node, a GPU; default: 60 % of NVLink's rate in one direction");
  add("tune", po::bool_switch(&parsed.tune), "list the fastest settings that fit");
  add("inference", po::bool_switch(&parsed.inference), "plan generation on one GPU");
  std::vector<std::string> patterns;
  std::vector<std::int64_t> lengths, batches;
  std::string prefix_cache;
  add("pattern", po::value(&patterns)->composing()->multitoken()->value_name("D,W,I"),
      "with --inference: patterns; default: dense 16,0,4 16,256,4 64,0,4, or dense alone of a model that "
      "takes none");
  add("lengths", po::value(&lengths)->composing()->multitoken()->value_name("T"),
      "with --inference: tokens of a sequence; default: the job's");
  add("batches", po::value(&batches)->composing()->multitoken()->value_name("B"),
      "with --inference: sequences beside the most that fit; default: 1 64");
  add("prefix-cache", po::value(&prefix_cache)->value_name("SIZE"),
      "with --inference: memory for beginnings of prompts, as of `ratplus serve`; default: 0");
  add("check", po::value(&parsed.check)->value_name("FILE"),
      "plan for the cluster that `ratplus check --json FILE` has measured");
  add("set", po::value(&parsed.overrides)->composing()->multitoken()->value_name("SECTION.KEY=VALUE"),
      "override a key of the job file");
  add("json", po::value(&parsed.json)->value_name("FILE"), "write the plan there too");
  const Positional job{"job", 1, po::value(&parsed.job), "a job file is missing (before --set)", "JOB.toml"};
  const auto values = parse_command_line(args, options, job, {plan_help, plan_help_end});
  if (!values) return std::nullopt;
  for (const auto& [key, value] :
       {std::pair{"link", parsed.cluster.link}, {"network", parsed.cluster.network}}) {
    constexpr double least = 0.01, most = 1e5;  // GB/s
    if (!values->contains(key) || (value >= least && value <= most)) continue;
    throw po::error(fmt::format("--{} is in GB/s, from {} to {}", key, least, most));
  }
  parsed.generation.patterns = patterns;
  parsed.generation.lengths = lengths;
  if (!batches.empty()) parsed.generation.batches = batches;
  for (const auto& [key, list] : {std::pair{"lengths", &lengths}, {"batches", &batches}}) {
    for (const auto value : *list) {
      constexpr std::int64_t most = 100'000'000;  // tokens, or sequences
      if (value < 1 || value > most)
        throw po::error(fmt::format("--{} {} is not from 1 to {}", key, value, most));
    }
  }
  if (!prefix_cache.empty()) parsed.generation.prefix_bytes = parse_size(prefix_cache, "prefix-cache");
  for (const char* key : {"pattern", "lengths", "batches", "prefix-cache"}) {
    if (values->contains(key) && !parsed.inference)
      throw po::error(fmt::format("--{} goes with --inference", key));
  }
  for (const char* key : {"tune", "table"}) {
    const bool given = std::string_view(key) == "tune" ? parsed.tune : values->contains(key);
    if (parsed.inference && given)
      throw po::error(fmt::format("--inference is of one GPU: leave --{} out", key));
  }
  parsed.cluster.link *= 1e9;
  parsed.cluster.network *= 1e9;
  if (parsed.tune && values->contains("table"))
    throw po::error("--tune is of one cluster: leave --table out");
  for (const char* key : {"nodes", "gpus-per-node", "gpu"}) {
    if (!parsed.check.empty() && !values->at(key).defaulted())
      throw po::error(fmt::format("--check has the cluster: leave --{} out", key));
  }
  if (values->contains("table")) {
    if (!values->at("nodes").defaulted())
      throw po::error("--table has its own numbers of nodes: leave --nodes out");
    parsed.table = parse_nodes(table);
  }
  as_usage_error([&] {
    auto cluster = parsed.cluster;
    plan::check_size(cluster);
    for (const int nodes : parsed.table) {
      cluster.nodes = nodes;
      plan::check_size(cluster);
    }
  });
  try {
    parsed.cluster.gpu = &plan::find_gpu(gpu);
  } catch (const Error& error) {
    throw po::error(fmt::format("--gpu: {}", error.what()));
  }
  check_json_output(parsed.json, {parsed.job, parsed.check});
  return parsed;
}

/// The cluster that was measured; `gpu` is its kind.
void read_check(PlanArguments& args, plan::Gpu& gpu) {
  if (args.check.empty()) return;
  const auto given = args.cluster;
  const auto json = Json::parse(read_whole_file(args.check), nullptr, false);
  try {
    args.cluster = plan::measured_cluster(json, gpu);
  } catch (const Error& error) {
    fail("--check {}: {}", args.check, error.what());
  }
  if (given.link > 0) args.cluster.link = given.link;
  if (given.network > 0) args.cluster.network = given.network;
}

// --- one cluster ----------------------------------------------------------------------------------------------

std::string describe(const plan::Cluster& cluster) {
  return fmt::format("{} of {} x {}", counted(cluster.nodes, "node"), cluster.gpus_per_node,
                     cluster.gpu->title);
}

using Rows = std::vector<std::vector<std::string>>;

std::string percent_cell(double share) {
  return report::format_value(report::Unit::share, share);
}

/// Below an empty line.
void print_rows(const Rows& rows) {
  fmt::print("\n{}", report::format_table(rows, 0));
}

void print_memory(const plan::MemoryPlan& memory) {
  Rows rows = {{"memory of a GPU", "GiB"}};
  for (const auto& part : memory.parts) rows.push_back({part.category, format_fixed(gib(part.bytes), 1)});
  rows.push_back({"in all", format_fixed(gib(memory.bytes), 1)});
  rows.push_back({"available", format_fixed(gib(memory.available), 1)});
  print_rows(rows);
}

void print_updates(const plan::StepPlan& step, const plan::Cluster& cluster) {
  Rows rows = {{"update", "ms", "tokens/s a GPU", "TFLOP/s", "of peak"}};
  const auto line = [&](const std::string& name, double seconds, double operations) {
    rows.push_back({name, format_fixed(seconds * 1e3, 1),
                    format_fixed(static_cast<double>(step.tokens) / seconds / cluster.ranks(), 0),
                    format_fixed(operations / seconds / 1e12, 1),
                    percent_cell(operations / seconds / cluster.gpu->bf16_rate)});
  };
  for (const auto& update : step.updates) line(update.pattern, update.seconds, update.operations);
  line("step", step.seconds, step.operations());
  rows.push_back({"all GPUs", "", format_fixed(step.tokens_per_second(), 0)});
  print_rows(rows);
}

void print_work(const plan::StepPlan& step) {
  Rows rows = {{"where a step's time goes", "ms", "share", "TFLOP", "GB"}};
  const auto line = [&](const char* name, double seconds) {
    rows.push_back({name, format_fixed(seconds * 1e3, 1), percent_cell(seconds / step.seconds), "", ""});
  };
  const auto amounts = [&](double operations, double bytes) {
    rows.back()[3] = format_fixed(operations / 1e12, 1);
    rows.back()[4] = format_fixed(bytes / 1e9, 1);
  };
  for (std::size_t part = 0; part < step.work.size(); ++part) {
    const auto& work = step.work[part];
    if (work.seconds == 0) continue;
    line(to_string(static_cast<Part>(part)), work.seconds);
    amounts(work.operations, work.bytes);
  }
  line("waiting for communication", step.waiting);
  line("computing slower beside communication", step.slowing);
  double operations = 0, bytes = 0;
  for (const auto& work : step.work) {
    operations += work.operations;
    bytes += work.bytes;
  }
  line("in all", step.seconds);
  amounts(operations, bytes);
  print_rows(rows);
  fmt::print("\na GPU sends, a step: {} GB within its node in {} ms, {} GB between nodes in {} ms\n",
             format_fixed(step.in_nodes.bytes / 1e9, 1), format_fixed(step.in_nodes.seconds * 1e3, 0),
             format_fixed(step.between_nodes.bytes / 1e9, 1),
             format_fixed(step.between_nodes.seconds * 1e3, 0));
}

void print_length(const plan::Plan& plan, const plan::Cluster& cluster, const config::JobConfig& job) {
  if (plan.steps == 0) {
    fmt::print("to the end: schedule.epochs is of data, which a plan does not read\n");
  } else {
    fmt::print("to the end: {}, {} tokens: {}, {} GPU hours, {} of {} s included\n",
               counted(plan.steps, "step"),
               format_count(static_cast<double>(plan.steps * job.tokens_per_step())),
               format_seconds(plan.seconds), format_fixed(plan.gpu_hours(cluster), 0),
               counted(plan.validations, "validation"), format_fixed(plan.step.validation_seconds, 1));
  }
  const bool more = plan.steps == 0 && job.checkpoint.keep_every > 0;
  fmt::print("checkpoints: {} each, at most {} at a time{}: {}", format_bytes(plan.checkpoint_bytes),
             plan.checkpoints, more ? ", and those of checkpoint.keep_every" : "",
             format_bytes(plan.all_checkpoint_bytes()));
  if (plan.export_bytes > 0) fmt::print("; last weights as safetensors: {}", format_bytes(plan.export_bytes));
  fmt::print("\n");
}

void print_plan(const plan::Plan& plan, const PlanArguments& args, const config::JobConfig& job) {
  const auto& cluster = args.cluster;
  fmt::print("{} on {}\n{} parameters\n", args.job, describe(cluster), plan.parameters);
  if (plan.memory.fits()) {
    fmt::print("shard = \"{}\": {} x {}; {} of {} x {} tokens a GPU and update\n",
               to_string(job.parallel.shard), counted(plan.step.replicas, "replica"),
               counted(plan.step.shards, "shard"),
               counted(plan.step.micro_batches, "micro-batch", "micro-batches"), job.data.micro_batch,
               job.data.sequence_length);
  }
  print_memory(plan.memory);
  if (plan.memory.fits()) {
    print_updates(plan.step, cluster);
    print_work(plan.step);
    fmt::print("\n");
    print_length(plan, cluster, job);
  }
  fmt::print("\ncautions\n");
  for (const auto& caution : plan.cautions) fmt::print("- {}\n", caution);
}

int plan_one(const PlanArguments& args, const config::JobConfig& job) {
  const auto plan = plan::plan_job(job, args.cluster);
  print_plan(plan, args, job);
  write_json_output(args.json, to_json(plan, args.cluster));
  require_fit(plan.memory, job, args.cluster);
  return 0;
}

// --- a table of several -----------------------------------------------------------------------------------------

/// Prints a table, and below it the numbers of nodes on which the job cannot run. Status 1 if it runs on none.
int plan_table(const PlanArguments& args, const config::JobConfig& job) {
  fmt::print("{} on nodes of {} x {}\n\n", args.job, args.cluster.gpus_per_node, args.cluster.gpu->title);
  Rows table = {{"nodes", "GPUs", "batches", "GiB/GPU", "s/step", "tokens/s", "a GPU", "of first", "of peak",
                 "not hidden", "hours", "GPU hours"}};
  Json rows = Json::array();
  std::vector<std::string> problems, cautions;
  for (const auto& scaled : plan::plan_sizes(job, args.cluster, args.table)) {
    const auto& cluster = scaled.cluster;
    if (!scaled.plan) {
      table.push_back({fmt::format("{}", cluster.nodes), fmt::format("{}", cluster.ranks()), "below"});
      problems.push_back(fmt::format("{}: {}", counted(cluster.nodes, "node"), scaled.problem));
      continue;
    }
    const auto& plan = *scaled.plan;
    const auto& step = plan.step;
    table.push_back({fmt::format("{}", cluster.nodes), fmt::format("{}", cluster.ranks()),
                     fmt::format("{}", step.micro_batches), format_fixed(gib(plan.memory.bytes), 1),
                     format_fixed(step.seconds, 3), format_fixed(step.tokens_per_second(), 0),
                     format_fixed(step.tokens_per_second() / cluster.ranks(), 0),
                     percent_cell(scaled.of_first), percent_cell(step.last_update_share(*cluster.gpu)),
                     percent_cell((step.waiting + step.slowing) / step.seconds),
                     format_fixed(plan.seconds / 3600, 1), format_fixed(plan.gpu_hours(cluster), 0)});
    rows.push_back(to_json(plan, cluster));
    cautions = plan.cautions;
  }
  fmt::print("{}", report::format_table(table, 0));
  fmt::print(
      "\nbatches: micro-batches a GPU and update. of peak: the last update. not hidden: what communication "
      "adds "
      "to "
      "the step. below: cannot run, for the reason given below.\n");
  for (const auto& problem : problems) fmt::print("- {}\n", problem);
  for (const auto& caution : cautions) fmt::print("- {}\n", caution);
  write_json_output(args.json, rows);
  if (rows.empty()) fail("{}: runs on none of these numbers of nodes", job.source);
  return 0;
}

// --- the fastest settings ---------------------------------------------------------------------------------------

std::string yes_or_no(bool x) {
  return x ? "yes" : "no";
}

/// Prints the ten fastest settings as a table, and each as words for --set.
int plan_tuned(const PlanArguments& args, const config::JobConfig& job) {
  const auto found = plan::tune(job, args.cluster, {});
  const auto count = std::min<std::size_t>(10, found.size());
  fmt::print("{} on {}: the fastest settings that fit\n\n", args.job, describe(args.cluster));
  Rows rows = {{"", "tokens/s a GPU", "of peak", "GiB", "micro-batch", "recompute", "shard", "group",
                "kept weights", "prefetch", "reduce"}};
  Json json = Json::array();
  for (std::size_t i = 0; i < count; ++i) {
    const auto& tuned = found[i];
    const auto& p = tuned.job.parallel;
    const bool full = p.shard == parallel::Sharding::full, cut = p.shard != parallel::Sharding::none;
    const auto group = p.shard_group == parallel::all_ranks         ? std::string("all")
                       : p.shard_group == parallel::ranks_of_a_node ? std::string("node")
                                                                    : fmt::format("{}", p.shard_group);
    rows.push_back({fmt::format("{}", i + 1), format_fixed(tuned.tokens_per_second, 0),
                    percent_cell(tuned.dense_share), format_fixed(gib(tuned.bytes), 1),
                    fmt::format("{} x {}", tuned.micro_batches, tuned.job.data.micro_batch),
                    to_string(tuned.job.job.recompute), to_string(p.shard), cut ? group : "-",
                    full ? yes_or_no(p.keep_weights) : "-", full ? fmt::format("{}", p.prefetch) : "-",
                    to_string(p.reduce)});
    json.push_back({{"tokens_per_second_a_gpu", tuned.tokens_per_second},
                    {"step_seconds", tuned.seconds},
                    {"memory_bytes", tuned.bytes},
                    {"last_update_share_of_peak", tuned.dense_share},
                    {"settings", tuned.settings()}});
  }
  fmt::print("{}\nof peak: the last update. Gradients that travel in bf16 are rounded to 8 bits.\n\n",
             report::format_table(rows, 0));
  for (std::size_t i = 0; i < count; ++i)
    fmt::print("{}: --set {}\n", i + 1, fmt::join(found[i].settings(), " "));
  write_json_output(args.json, json);
  return 0;
}

}  // namespace

int plan_command(const Arguments& args) {
  auto parsed = parse_plan(args);
  if (!parsed) return 0;
  refuse_ranks("plan");
  plan::Gpu gpu;
  read_check(*parsed, gpu);
  auto job = config::load_job(parsed->job, parsed->overrides, session::start_defaults);
  print_renamed_keys(job);
  if (parsed->inference)
    return plan_inference_command(parsed->generation, job, *parsed->cluster.gpu, parsed->json);
  if (parsed->tune) return plan_tuned(*parsed, job);
  if (!parsed->table.empty()) return plan_table(*parsed, job);
  if (job.chooses()) {
    const auto settings = plan::choose_settings(job, parsed->cluster).settings();
    fmt::print("chosen: {}\n", fmt::join(settings, " "));
    job = plan::with_settings(job, settings);
  }
  return plan_one(*parsed, job);
}

}  // namespace ratplus::apps
