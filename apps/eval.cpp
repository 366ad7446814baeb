// ratplus eval: loss and perplexity of a checkpoint under sparsity patterns, or its logits for given tokens.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/command_line.h"
#include "apps/device_options.h"
#include "apps/format.h"
#include "apps/progress_line.h"
#include "apps/with_ranks.h"
#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/units.h"
#include "data/samples/supervised_samples.h"
#include "lib/config/job.h"
#include "lib/config/pattern_toml.h"
#include "lib/evaluation/logits_dump.h"
#include "lib/evaluation/validation.h"
#include "lib/report/table.h"
#include "lib/session/session.h"
#include "lib/session/start_defaults.h"
#include "lib/weights/source.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* help_text = R"(usage: ratplus eval CHECKPOINT --data DIR [--pattern D,W,I ...]
       ratplus eval CHECKPOINT --tokens FILE --dump-logits OUT.h5 [--pattern D,W,I]
       mpirun -n 8 ratplus eval ...

Mean cross-entropy and perplexity over held-out sequences, under one or several sparsity patterns
in one pass over the data. CHECKPOINT is a checkpoint's directory, a run's (then its newest), a
file of PyTorch's (.pth), or safetensors (a file, an index, or a directory with either).
With --tokens, the logits and the loss of every token of FILE: text with one sequence of token
numbers a line, all of the same length; OUT.h5 has a group for each pattern.
A pattern is dilation, window, sinks: "16,256,4" attends to every 16th key, the last 256 tokens
and the first 4; "dense" is 1,0,0; "none,256,4" has no dilation. A list as in a job file gives one
a layer ('["dense", "16,0,4"]') or one a head (a list of lists); every name of a pattern that a command prints, such as
'hybrid(64,0,0 x 12, dense x 12)' or "D = 16, I = 4", can be given back.
With samples with labels (`ratplus samples`), each held-out sample is a sequence, and two accuracies follow
the loss: the share of counted tokens with the largest logit, and of completions all of whose tokens have it.

)";

constexpr const char* help_end = R"(
example:
  ratplus eval runs/quickstart/pretrain --data runs/quickstart/data --pattern dense 16,0,4 64,0,4
  ratplus eval ratplus-1b.pth --tokens tokens.txt --dump-logits logits.h5 --pattern 16,256,4
)";

struct EvalArguments {
  std::string checkpoint;
  std::string data;
  std::vector<std::string> patterns;
  std::string split = "validation";
  std::int64_t sequences = 0;
  std::int64_t sequence_length = 0;
  std::int64_t micro_batch = 0;
  std::string device;     ///< empty: the job's
  std::string precision;  ///< empty: the job's
  int threads = 0;
  std::string json;
  std::string tokens;
  std::string dump_logits;
  std::int64_t head_dim = 0;
};

std::optional<EvalArguments> parse(const Arguments& args) {
  EvalArguments parsed;
  po::options_description options("options");
  auto add = options.add_options();
  add("data", po::value(&parsed.data)->value_name("DIR"),
      "dataset made by `ratplus prepare`; default: the one the checkpoint was trained on");
  add("pattern", po::value(&parsed.patterns)->composing()->multitoken()->value_name("D,W,I"),
      "patterns to evaluate; default: the one the checkpoint was trained with");
  add("split", po::value(&parsed.split)->value_name("NAME"), "validation (default) or train");
  add("sequences", po::value(&parsed.sequences)->value_name("N"),
      "sequences at most; default: all of the split");
  add("sequence-length", po::value(&parsed.sequence_length)->value_name("T"),
      "tokens a sequence; default: as in training");
  add("micro-batch", po::value(&parsed.micro_batch)->value_name("B"),
      "sequences a rank computes at once; default: as in training");
  add("device", po::value(&parsed.device)->value_name("NAME"), "auto, cpu or cuda; default: as in training");
  add("precision", po::value(&parsed.precision)->value_name("TYPE"),
      "of a GPU's products, bf16 or f32; default: as in training");
  add("threads", po::value(&parsed.threads)->value_name("N"),
      "CPU threads a rank; default: its share of the cores");
  add("json", po::value(&parsed.json)->value_name("FILE"), "write the results there too");
  add("tokens", po::value(&parsed.tokens)->value_name("FILE"), "evaluate these token numbers, not a dataset");
  add("dump-logits", po::value(&parsed.dump_logits)->value_name("OUT.h5"),
      "with --tokens: write logits and losses there");
  add("head-dim", po::value(&parsed.head_dim)->value_name("P"),
      "channels of a head, where a file of weights does not say; default: 128");
  const Positional checkpoint{
      "checkpoint", 1, po::value(&parsed.checkpoint),
      "a checkpoint is missing (give it before --pattern, which takes all words that follow)"};
  const auto values = parse_command_line(args, options, checkpoint, {help_text, help_end});
  if (!values) return std::nullopt;
  if (!parsed.device.empty()) parse_device(parsed.device);
  if (!parsed.precision.empty()) parse_precision(parsed.precision);
  for (const auto& [name, value] : {std::pair{"sequences", parsed.sequences},
                                    {"sequence-length", parsed.sequence_length},
                                    {"head-dim", parsed.head_dim},
                                    {"micro-batch", parsed.micro_batch}}) {
    if (values->contains(name) && value < 1)
      throw po::error(fmt::format("--{} {} is not positive", name, value));
    constexpr std::int64_t most = 1'000'000'000;  // keeps products of two within 64 bits
    if (values->contains(name) && value > most)
      throw po::error(fmt::format("--{} {} is more than {}", name, value, most));
  }
  if (parsed.tokens.empty() != parsed.dump_logits.empty())
    throw po::error("--tokens and --dump-logits go together");
  for (const char* option : {"data", "split", "sequences", "sequence-length", "json"}) {
    if (!parsed.tokens.empty() && values->contains(option))
      throw po::error(fmt::format("--{} is for a dataset, and --tokens is in its place", option));
  }
  return parsed;
}

/// The subject of an evaluation: from the arguments, else from the checkpoint's job, else from a job's defaults.
struct Evaluation {
  std::shared_ptr<weights::WeightsSource> source;
  config::JobConfig job;
  std::vector<model::PatternPlan> patterns;
  std::int64_t micro_batch = 1;
  DeviceChoice device = DeviceChoice::automatic;
  DType precision = DType::bf16;

  const checkpoint::Info& info() const { return source->info(); }
};

Evaluation resolve(const EvalArguments& args, const std::string& checkpoint) {
  Evaluation e;
  model::ModelConfig assumed;
  if (args.head_dim > 0) assumed.head_dim = args.head_dim;
  e.source = weights::open_source(checkpoint, assumed);
  if (!e.info().job.empty())
    e.job = config::parse_job(e.info().job, (e.info().directory / checkpoint::manifest_name).string());
  e.micro_batch = args.micro_batch > 0 ? args.micro_batch : e.job.data.micro_batch;
  e.device = args.device.empty() ? e.job.job.device : parse_device(args.device);
  e.precision = args.precision.empty() ? e.job.job.precision : parse_precision(args.precision);
  for (const auto& text : args.patterns) e.patterns.push_back(config::parse_plan(text, "--pattern"));
  if (e.patterns.empty()) e.patterns.push_back(e.job.job.pattern);
  for (const auto& pattern : e.patterns)
    pattern.validate(e.info().model.layers, e.info().model.heads(), "--pattern");
  return e;
}

/// The checkpoint's own, unless its groups do not fit the ranks of this evaluation: then all ranks are one.
parallel::Settings fitting(parallel::Settings settings, const parallel::World& world) {
  try {
    parallel::make_mesh(world.nodes(), world.rank(), settings.shard, settings.shard_group);
  } catch (const Error&) {
    settings.shard_group = parallel::all_ranks;
  }
  return settings;
}

session::SessionSettings session_settings(const Evaluation& e, const model::PassShapes& shapes, int threads,
                                          const parallel::World& world) {
  return {.model = e.info().model,
          .shapes = shapes,
          .use = parallel::Use::evaluation,
          .parallel = fitting(e.job.parallel, world),  // as in training
          .optimizer = {},
          .device = e.device,
          .precision = e.precision,
          .threads = threads};
}

void require_writable_name(const char* option, const std::string& file) {
  if (std::filesystem::is_directory(file))
    fail("{} {}: is a directory; give the name of a file", option, file);
  const auto parent = std::filesystem::absolute(file).parent_path();
  if (!std::filesystem::exists(parent))
    fail("{} {}: there is no directory {}", option, file, parent.string());
}

/// The held-out sequences of a dataset.
struct EvaluationData {
  evaluation::ValidationSettings settings;
  data::Manifest manifest;

  bool has_samples() const { return manifest.sample_length > 0; }
  std::unique_ptr<evaluation::Validator> validator(const parallel::World& world) const;
};

std::unique_ptr<evaluation::Validator> EvaluationData::validator(const parallel::World& world) const {
  if (!has_samples()) return std::make_unique<evaluation::Validator>(settings, manifest, world);
  const std::vector<data::SampleSource> only{{settings.dataset, 1, manifest}};
  auto samples = std::make_unique<data::SupervisedSamples>(
      only, data::StreamSamples::Settings{.split = settings.split,
                                          .sampling = data::Sampling::ordered,
                                          .sequence_length = settings.sequence_length,
                                          .seed = 0});
  const auto count =
      samples->samples_before_repeat(std::min(settings.sequences, manifest.documents(settings.split)));
  return std::make_unique<evaluation::Validator>(std::move(samples), count, evaluation::Validated::labelled,
                                                 world);
}

void check_dataset(const Evaluation& e, const EvaluationData& dataset) {
  const auto& directory = dataset.settings.dataset;
  const auto& info = e.info();
  if (dataset.manifest.vocab_size != info.model.vocab_size) {
    fail("{}: its vocabulary has {} tokens, the model's {}; prepare the text with the model's tokenizer",
         directory.string(), dataset.manifest.vocab_size, info.model.vocab_size);
  }
  if (!info.tokenizer.empty() && dataset.manifest.tokenizer != info.tokenizer) {
    fail("{}: tokenized by {}, the model was trained with {}; prepare the text with the model's tokenizer",
         directory.string(), dataset.manifest.tokenizer, info.tokenizer);
  }
}

EvaluationData find_data(const EvalArguments& args, const Evaluation& e) {
  if (!args.json.empty()) require_writable_name("--json", args.json);
  if (args.data.empty() && e.info().job.empty()) {
    fail("{}: does not say which data it was trained on; give --data DIR, or --tokens FILE",
         e.info().directory.string());
  }
  if (args.data.empty() && e.job.data.directory.empty()) {
    fail("{}: was trained on {}; give the one to evaluate on with --data DIR ({}, ...)",
         e.info().directory.string(), counted(e.job.data.sources.size(), "dataset"),
         e.job.data.all_sources().front().directory);
  }
  EvaluationData dataset;
  auto& settings = dataset.settings;
  settings.dataset = args.data.empty() ? e.job.data.directory : args.data;
  settings.split = data::parse_split(args.split);
  settings.sequence_length = args.sequence_length > 0 ? args.sequence_length : e.job.data.sequence_length;
  settings.sequences = args.sequences > 0 ? args.sequences : std::numeric_limits<std::int64_t>::max();
  dataset.manifest = data::read_manifest(settings.dataset);
  if (dataset.has_samples()) {
    const auto length = dataset.manifest.sample_length;
    if (args.sequence_length > 0 && args.sequence_length != length)
      fail("--sequence-length {}: {} holds samples of {} inputs; leave --sequence-length out",
           args.sequence_length, settings.dataset.string(), length);
    settings.sequence_length = length;
  }
  check_dataset(e, dataset);
  return dataset;
}

void write_json(const std::string& file, const Evaluation& e, const evaluation::ValidationSettings& settings,
                const std::vector<evaluation::PatternScore>& scores, std::int64_t sequences) {
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (std::size_t p = 0; p < scores.size(); ++p) {
    const auto& score = scores[p];
    nlohmann::ordered_json entry = {
        {"pattern", e.patterns[p].describe()}, {"loss", score.loss}, {"perplexity", std::exp(score.loss)}};
    if (score.accuracy) {
      entry["token_accuracy"] = score.accuracy->token;
      entry["completion_accuracy"] = score.accuracy->completion;
    }
    results.push_back(std::move(entry));
  }
  const nlohmann::ordered_json all = {{"checkpoint", e.info().directory.string()},
                                      {"step", e.info().step},
                                      {"data", settings.dataset.string()},
                                      {"split", data::to_string(settings.split)},
                                      {"sequence_length", settings.sequence_length},
                                      {"sequences", sequences},
                                      {"results", std::move(results)}};
  write_whole_file(file, json_dump(all, 1) + "\n");
}

void print_scores(const Evaluation& e, const std::vector<evaluation::PatternScore>& scores) {
  std::vector<std::vector<std::string>> rows = {{"pattern", "loss", "perplexity"}};
  if (scores.front().accuracy) rows[0].insert(rows[0].end(), {"token accuracy", "completion accuracy"});
  for (std::size_t p = 0; p < scores.size(); ++p) {
    const auto& [loss, accuracy] = scores[p];
    rows.push_back({e.patterns[p].describe(), format_fixed(loss, 5), format_fixed(std::exp(loss), 3)});
    if (!accuracy) continue;
    rows.back().push_back(format_fixed(accuracy->token, 4));
    rows.back().push_back(format_fixed(accuracy->completion, 4));
  }
  fmt::print("{}", report::format_table(rows, 0));
}

int evaluate_data(const EvalArguments& args, const Evaluation& e, const parallel::World& world) {
  EvaluationData dataset;
  world.agree([&] { dataset = find_data(args, e); });
  const auto& settings = dataset.settings;
  session::Session session(
      session_settings(e, {e.micro_batch, settings.sequence_length}, args.threads, world), world);
  std::unique_ptr<evaluation::Validator> validator;
  world.agree([&] {
    weights::load(*e.source, session.store(), session.ops());
    validator = dataset.validator(world);
  });
  session.store().publish_masters();
  ProgressLine progress;
  const auto scores = validator->run(session.model(), e.patterns, [&](std::int64_t done, std::int64_t all) {
    if (world.root())
      progress.update(fmt::format("evaluating {} of {} x {}", done, counted(all, "sequence"),
                                  counted(e.patterns.size(), "pattern")));
  });
  if (!args.json.empty()) {
    world.agree([&] {
      if (world.root()) write_json(args.json, e, settings, scores, validator->sequences());
    });
  }
  if (!world.root()) return 0;
  progress.finish();
  fmt::print("{}: step {}; {} of {} of {} ({})\n", e.info().directory.string(), e.info().step,
             counted(validator->sequences(), dataset.has_samples() ? "sample" : "sequence"),
             counted(settings.sequence_length, dataset.has_samples() ? "input" : "token"),
             settings.dataset.string(), data::to_string(settings.split));
  if (e.info().tokenizer.empty())
    fmt::print("its tokenizer is not known; assuming the dataset's ({})\n", dataset.manifest.tokenizer);
  print_scores(e, scores);
  return 0;
}

/// Every rank computes all of it, so that shardings need no case of their own; the root writes.
int dump_logits(const EvalArguments& args, const Evaluation& e, const parallel::World& world) {
  evaluation::TokenRows tokens;
  world.agree([&] {
    require_writable_name("--dump-logits", args.dump_logits);
    tokens = evaluation::read_token_rows(args.tokens, e.info().model.vocab_size);
  });
  session::Session session(session_settings(e, {1, tokens.length}, args.threads, world), world);
  world.agree([&] { weights::load(*e.source, session.store(), session.ops()); });
  session.store().publish_masters();
  std::vector<double> losses;
  evaluation::dump_logits(session, tokens, e.patterns, args.dump_logits, losses);
  if (!world.root()) return 0;
  fmt::print("{}: step {}; {} of {} of {}\n", e.info().directory.string(), e.info().step,
             counted(tokens.rows(), "sequence"), counted(tokens.length, "token"), args.tokens);
  std::vector<evaluation::PatternScore> scores;
  for (const double loss : losses) scores.push_back({loss, {}});
  print_scores(e, scores);
  fmt::print("logits and losses: {}\n", args.dump_logits);
  return 0;
}

int evaluate(const EvalArguments& args, const parallel::World& world) {
  const auto checkpoint = world.from_root([&] { return weights::resolve(args.checkpoint).string(); });
  Evaluation e;
  world.agree([&] { e = resolve(args, checkpoint); });
  for (const auto& pattern : e.patterns) {
    const auto note = session::other_pattern_note(e.info(), pattern);
    if (world.root() && !note.empty()) fmt::print(stderr, "ratplus: note: {}\n", note);
  }
  return args.tokens.empty() ? evaluate_data(args, e, world) : dump_logits(args, e, world);
}

}  // namespace

int eval_command(const Arguments& args) {
  const auto parsed = parse(args);
  if (!parsed) return 0;
  return with_ranks([&](const parallel::World& world) { return evaluate(*parsed, world); });
}

}  // namespace ratplus::apps
