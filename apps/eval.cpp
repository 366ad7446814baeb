// ratplus eval: loss and perplexity of a checkpoint under sparsity patterns.
#include <fmt/core.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/command_line.h"
#include "apps/device_options.h"
#include "apps/progress_line.h"
#include "apps/with_ranks.h"
#include "data/pending_file.h"
#include "kernels/error.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/config/job.h"
#include "lib/train/session.h"
#include "lib/train/validation.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* help_text = R"(usage: ratplus eval CHECKPOINT --data DIR [--pattern D,W,I ...]
       mpirun -n 8 ratplus eval ...

Mean cross-entropy and perplexity over held-out windows, under one or several sparsity patterns
in one pass over the data. CHECKPOINT is a checkpoint's directory or a run's (then its newest).
A pattern is dilation, window, sinks: "16,256,4" attends to every 16th key, the last 256 tokens
and the first 4; "dense" is 1,0,0; "none,256,4" has no dilation.

)";

constexpr const char* help_end = R"(
example:
  ratplus eval runs/quickstart/pretrain --data runs/quickstart/data --pattern dense 16,0,4 64,0,4
)";

struct EvalArguments {
  std::string checkpoint;
  std::string data;
  std::vector<std::string> patterns;
  std::string split = "validation";
  std::int64_t sequences = 0;
  std::int64_t window = 0;
  std::int64_t micro_batch = 0;
  std::string device;     ///< empty: the job's
  std::string precision;  ///< empty: the job's
  int threads = 0;
  std::string json;
};

std::optional<EvalArguments> parse(const Arguments& args) {
  EvalArguments parsed;
  po::options_description options("options");
  options.add_options()("data", po::value(&parsed.data)->value_name("DIR"),
                        "dataset made by `ratplus prepare`; default: the one the checkpoint was trained on")(
      "pattern", po::value(&parsed.patterns)->composing()->multitoken()->value_name("D,W,I"),
      "patterns to evaluate; default: the one the checkpoint was trained with")(
      "split", po::value(&parsed.split)->value_name("NAME"), "validation (default) or train")(
      "sequences", po::value(&parsed.sequences)->value_name("N"),
      "windows at most; default: all of the split")("window", po::value(&parsed.window)->value_name("T"),
                                                    "tokens a window; default: that of training")(
      "micro-batch", po::value(&parsed.micro_batch)->value_name("B"),
      "windows a rank computes at once; default: that of training")(
      "device", po::value(&parsed.device)->value_name("NAME"),
      "auto, cpu or cuda; default: that of training")(
      "precision", po::value(&parsed.precision)->value_name("TYPE"),
      "of a GPU's products, bf16 or f32; default: that of training")(
      "threads", po::value(&parsed.threads)->value_name("N"),
      "CPU threads a rank; default: its share of the cores")(
      "json", po::value(&parsed.json)->value_name("FILE"), "write the results there too");
  const Positional checkpoint{
      "checkpoint", 1, po::value(&parsed.checkpoint),
      "a checkpoint is missing (give it before --pattern, which takes all words that follow)"};
  const auto values = parse_command_line(args, options, checkpoint, {help_text, help_end});
  if (!values) return std::nullopt;
  if (!parsed.device.empty()) parse_device(parsed.device);
  if (!parsed.precision.empty()) parse_precision(parsed.precision);
  for (const auto& [name, value] : {std::pair{"sequences", parsed.sequences},
                                    {"window", parsed.window},
                                    {"micro-batch", parsed.micro_batch}}) {
    if (values->contains(name) && value < 1)
      throw po::error(fmt::format("--{} {} is not positive", name, value));
  }
  return parsed;
}

/// What to evaluate, from the arguments and, where they are silent, from the checkpoint's own job.
struct Evaluation {
  checkpoint::Info info;
  data::Manifest manifest;
  train::ValidationSettings settings;
  std::vector<model::PatternPlan> patterns;
  std::int64_t micro_batch = 1;
  parallel::Settings parallel;  ///< as in training
  DeviceChoice device = DeviceChoice::automatic;
  DType precision = DType::bf16;
};

/// The checkpoint's own, unless its groups do not fit the ranks of this evaluation: then all ranks are one.
parallel::Settings fitting(parallel::Settings settings, const parallel::World& world) {
  try {
    parallel::make_mesh(world.nodes(), world.rank(), settings.shard, settings.shard_group);
  } catch (const Error&) {
    settings.shard_group = parallel::all_ranks;
  }
  return settings;
}

void check_dataset(const Evaluation& e) {
  const auto& directory = e.settings.dataset;
  if (e.manifest.vocab_size != e.info.model.vocab_size) {
    fail("{}: its vocabulary has {} tokens, the model's {}; prepare the text with the model's tokenizer",
         directory.string(), e.manifest.vocab_size, e.info.model.vocab_size);
  }
  if (e.manifest.tokenizer != e.info.tokenizer) {
    fail("{}: tokenized by {}, the model was trained with {}; prepare the text with the model's tokenizer",
         directory.string(), e.manifest.tokenizer, e.info.tokenizer);
  }
}

Evaluation resolve(const EvalArguments& args, const std::string& checkpoint) {
  Evaluation e;
  e.info = checkpoint::read_info(checkpoint);
  if (const auto parent = std::filesystem::absolute(args.json).parent_path();
      !std::filesystem::exists(parent)) {
    fail("--json {}: there is no directory {}", args.json, parent.string());
  }
  const auto job = config::parse_job(e.info.job, (e.info.directory / checkpoint::manifest_name).string());
  e.settings.dataset = args.data.empty() ? job.data.directory : args.data;
  e.settings.split = data::parse_split(args.split);
  e.settings.window = args.window > 0 ? args.window : job.data.window;
  e.settings.sequences = args.sequences > 0 ? args.sequences : std::numeric_limits<std::int64_t>::max();
  e.micro_batch = args.micro_batch > 0 ? args.micro_batch : job.data.micro_batch;
  e.parallel = job.parallel;
  e.device = args.device.empty() ? job.job.device : parse_device(args.device);
  e.precision = args.precision.empty() ? job.job.precision : parse_precision(args.precision);
  e.manifest = data::read_manifest(e.settings.dataset);
  check_dataset(e);
  for (const auto& text : args.patterns) e.patterns.emplace_back(parse_pattern(text));
  if (e.patterns.empty()) e.patterns.push_back(job.job.pattern);
  for (const auto& pattern : e.patterns)
    pattern.validate(e.info.model.layers, e.info.model.heads(), "--pattern");
  return e;
}

void write_json(const std::string& file, const Evaluation& e, const std::vector<double>& losses,
                std::int64_t sequences) {
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (std::size_t p = 0; p < losses.size(); ++p) {
    results.push_back(
        {{"pattern", e.patterns[p].describe()}, {"loss", losses[p]}, {"perplexity", std::exp(losses[p])}});
  }
  const nlohmann::ordered_json all = {{"checkpoint", e.info.directory.string()},
                                      {"step", e.info.step},
                                      {"data", e.settings.dataset.string()},
                                      {"split", data::to_string(e.settings.split)},
                                      {"window", e.settings.window},
                                      {"sequences", sequences},
                                      {"results", std::move(results)}};
  data::write_whole_file(file, all.dump(1) + "\n");
}

int evaluate(const EvalArguments& args, const parallel::World& world) {
  const auto checkpoint = world.from_root([&] { return checkpoint::resolve(args.checkpoint).string(); });
  Evaluation e;
  world.agree([&] { e = resolve(args, checkpoint); });
  train::Session session({.model = e.info.model,
                          .shapes = {e.micro_batch, e.settings.window},
                          .use = parallel::Use::evaluation,
                          .parallel = fitting(e.parallel, world),
                          .optimizer = {},
                          .device = e.device,
                          .precision = e.precision,
                          .threads = args.threads},
                         world);
  std::optional<train::Validator> validator;
  world.agree([&] {
    checkpoint::load_weights(e.info, session.store(), session.ops());
    validator.emplace(e.settings, e.manifest, world);
  });
  session.store().publish_masters();
  ProgressLine progress;
  const auto losses = validator->run(session.model(), e.patterns, [&](std::int64_t done, std::int64_t all) {
    if (world.root())
      progress.update(fmt::format("evaluating {}/{} windows x {} patterns", done, all, e.patterns.size()));
  });
  if (!args.json.empty()) {
    world.agree([&] {
      if (world.root()) write_json(args.json, e, losses, validator->sequences());
    });
  }
  if (!world.root()) return 0;
  progress.finish();
  fmt::print("{}: step {}; {} windows of {} tokens of {} ({})\n", e.info.directory.string(), e.info.step,
             validator->sequences(), e.settings.window, e.settings.dataset.string(),
             data::to_string(e.settings.split));
  fmt::print("{:<20} {:>10} {:>12}\n", "pattern", "loss", "perplexity");
  for (std::size_t p = 0; p < losses.size(); ++p) {
    fmt::print("{:<20} {:>10.5f} {:>12.3f}\n", e.patterns[p].describe(), losses[p], std::exp(losses[p]));
  }
  return 0;
}

}  // namespace

int eval_command(const Arguments& args) {
  const auto parsed = parse(args);
  if (!parsed) return 0;
  return with_ranks([&](const parallel::World& world) { return evaluate(*parsed, world); });
}

}  // namespace ratplus::apps
