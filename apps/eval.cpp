// ratplus eval: loss and perplexity of a checkpoint under sparsity patterns, or its logits for given tokens.
#include <fmt/core.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/command_line.h"
#include "apps/device_options.h"
#include "apps/format.h"
#include "apps/line_progress.h"
#include "apps/model_options.h"
#include "apps/output_file.h"
#include "apps/progress_line.h"
#include "apps/with_ranks.h"
#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/files/sha256.h"
#include "base/json_path.h"
#include "base/stop_signal.h"
#include "base/units.h"
#include "lib/checkpoint/manifest.h"
#include "lib/evaluation/evaluation.h"
#include "lib/evaluation/logits_dump.h"
#include "lib/evaluation/validation.h"
#include "lib/generate/continuation_lines.h"
#include "lib/generate/model_identity.h"
#include "lib/infer/caches.h"
#include "lib/infer/inference.h"
#include "lib/report/table.h"
#include "lib/session/session.h"
#include "lib/session/start_defaults.h"
#include "lib/weights/source.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* eval_help = R"(usage: ratplus eval CHECKPOINT --data DIR [--pattern D,W,I ...]
       ratplus eval CHECKPOINT --tokens FILE --dump-logits OUT.h5 [--pattern D,W,I]
       ratplus eval CHECKPOINT --continuations FILE.jsonl [--output FILE.jsonl] [--pattern D,W,I]
       mpirun -n 8 ratplus eval ...

Mean cross-entropy, perplexity and bits per byte of text over held-out sequences, under one or several
sparsity patterns in one pass over the data. CHECKPOINT is a checkpoint's directory, a run's (then its newest), a
file of PyTorch's (.pth), or safetensors (a file, an index, or a directory with either).
With --tokens, the logits and the loss of every token of FILE: text with one sequence of token
numbers a line, all of the same length; OUT.h5 has a group for each pattern.
A pattern is dilation, window, sinks: "16,256,4" attends to every 16th key, the last 256 tokens
and the first 4; "dense" is 1,0,0; "none,256,4" has no dilation. A list as in a job file gives one
a layer ('["dense", "16,0,4"]') or one a head (a list of lists); every name of a pattern that a command prints, such as
'hybrid(64,0,0 x 12, dense x 12)' or "D = 16, I = 4", can be given back.
With --continuations, the log-probability of each continuation after its context, and whether greedy decoding would give it:
FILE has lines {"context": "...", "continuation": "..."}, encoded as lm-evaluation-harness does, or {"context_tokens": [...],
"continuation_tokens": [...]} (docs/generation.md). Interrupted, the same command with --output goes on where it stopped.
With --by-position N, also the loss of each of N equal parts of the sequences, from the first positions to the last.
With samples with labels (`ratplus samples`), each held-out sample is a sequence, and two accuracies follow
the loss: the share of counted tokens with the largest logit, and of completions all of whose tokens have it.

)";

constexpr const char* eval_help_end = R"(
example:
  ratplus eval runs/quickstart/pretrain --data runs/quickstart/data --pattern dense 16,0,4 64,0,4
  ratplus eval ratplus-1b.pth --tokens tokens.txt --dump-logits logits.h5 --pattern 16,256,4
  mpirun -n 8 ratplus eval runs/adapt --continuations piqa.jsonl --output piqa.scores.jsonl
)";

struct EvalArguments {
  std::string checkpoint;
  evaluation::Request request;
  std::string json;
  std::string tokens;
  std::string dump_logits;
  std::string continuations, output;
  bool force = false;
  generate::Cut cut = generate::Cut::none;
  ModelOptions model;  ///< of continuations
};

std::optional<EvalArguments> parse_eval(const Arguments& args) {
  EvalArguments parsed;
  auto& request = parsed.request;
  std::string device, precision, cut = "none";
  po::options_description options("options");
  options.add_options()("data", po::value(&request.data)->value_name("DIR"),
                        "dataset made by `ratplus prepare`; default: the one the checkpoint was trained on")(
      "pattern", po::value(&request.patterns)->composing()->multitoken()->value_name("D,W,I"),
      "patterns to evaluate; default: the one the checkpoint was trained with")(
      "split", po::value(&request.split)->value_name("validation|train"), "default: validation")(
      "sequences", po::value(&request.sequences)->value_name("N"),
      "sequences at most, spread evenly over the split; default: all of it")(
      "by-position", po::value(&request.parts)->value_name("N"),
      "also the loss by position, in N equal parts of a sequence")(
      "sequence-length", po::value(&request.sequence_length)->value_name("T"),
      "tokens a sequence; default: as in training")(
      "micro-batch", po::value(&request.micro_batch)->value_name("B"),
      "sequences a rank computes at once; default: as in training")(
      "device", po::value(&device)->value_name("auto|cpu|cuda"), "default: as in training")(
      "precision", po::value(&precision)->value_name("bf16|f32"),
      "of a GPU's products (default: as in training); with --continuations on a CPU of matrices (default: "
      "bf16 where all are stored so, else f32)")("threads", po::value(&request.threads)->value_name("N"),
                                                 "CPU threads a rank; default: its share of the cores")(
      "json", po::value(&parsed.json)->value_name("FILE"),
      "write the results there too; a path that is not UTF-8 also percent-encoded")(
      "tokens", po::value(&parsed.tokens)->value_name("FILE"), "evaluate these token numbers, not a dataset")(
      "dump-logits", po::value(&parsed.dump_logits)->value_name("OUT.h5"),
      "with --tokens: write logits and losses there")(
      "head-dim", po::value(&request.head_dim)->value_name("P"),
      "channels of a head, where a file of weights does not say; default: 128")(
      "continuations", po::value(&parsed.continuations)->value_name("FILE"),
      "score these contexts and continuations, one JSON object a line (also .gz, .zst)")(
      "output", po::value(&parsed.output)->value_name("FILE"),
      "with --continuations: one line a continuation; default: standard output")(
      "force", po::bool_switch(&parsed.force), "with --output: replace an output that is there")(
      "cut", po::value(&cut)->value_name("left|middle"),
      "with --continuations: a context that is too long loses its beginning (left) or its middle; default: "
      "it is "
      "refused");
  add_sequence_options(options, parsed.model);
  const Positional checkpoint{
      "checkpoint", 1, po::value(&parsed.checkpoint),
      "a checkpoint is missing (give it before --pattern, which takes all words that follow)", "CHECKPOINT"};
  const auto values = parse_command_line(args, options, checkpoint, {eval_help, eval_help_end});
  if (!values) return std::nullopt;
  if (!device.empty()) request.device = parse_device(device);
  if (!precision.empty()) request.precision = parse_precision(precision);
  for (const auto& [name, value] : {std::pair{"sequences", request.sequences},
                                    {"sequence-length", request.sequence_length},
                                    {"head-dim", request.head_dim},
                                    {"by-position", request.parts},
                                    {"micro-batch", request.micro_batch}}) {
    if (values->contains(name) && value < 1)
      throw po::error(fmt::format("--{} {} is not positive", name, value));
    constexpr std::int64_t most = 1'000'000'000;  // keeps products of two within 64 bits
    if (values->contains(name) && value > most)
      throw po::error(fmt::format("--{} {} is more than {}", name, value, most));
  }
  if (parsed.tokens.empty() != parsed.dump_logits.empty())
    throw po::error("--tokens and --dump-logits go together");
  for (const char* option : {"data", "split", "sequences", "sequence-length", "by-position", "json"}) {
    if (!parsed.tokens.empty() && values->contains(option))
      throw po::error(fmt::format("--{} is for a dataset, and --tokens is in its place", option));
  }
  as_usage_error([&] { parsed.cut = generate::parse_cut(cut, "--cut"); });
  check_model_options(*values, parsed.model);
  for (const char* option : {"output", "force", "cut", "length", "longer", "rope-base", "rope-scale",
                             "tokenizer", "end-of-text"}) {
    if (parsed.continuations.empty() && values->contains(option) && !(*values)[option].defaulted())
      throw po::error(fmt::format("--{} goes with --continuations", option));
  }
  for (const char* option :
       {"data", "split", "sequences", "sequence-length", "by-position", "micro-batch", "json", "tokens"}) {
    if (!parsed.continuations.empty() && values->contains(option))
      throw po::error(fmt::format("--{} does not go with --continuations", option));
  }
  if (!parsed.continuations.empty() && request.patterns.size() > 1)
    throw po::error("--continuations are scored under one pattern; give one");
  if (parsed.force && parsed.output.empty()) throw po::error("--force goes with --output");
  return parsed;
}

/// Refuses outputs that would replace what the command reads, or a file of another kind.
void check_outputs(const EvalArguments& args, const std::string& checkpoint) {
  const InputPaths inputs = {args.checkpoint, checkpoint, args.request.data, args.tokens};
  check_json_output(args.json, inputs);
  const auto& dump = args.dump_logits;
  if (dump.empty()) return;
  check_output_name("--dump-logits", dump, inputs);
  if (is_stream(dump)) fail("--dump-logits {}: is a device or a pipe; give the name of a file", dump);
  std::error_code missing;
  const auto bytes = std::filesystem::file_size(dump, missing);
  if (missing || bytes == 0 || evaluation::is_logits_dump(dump)) return;
  fail(
      "--dump-logits {}: is there already, and was not written by --dump-logits; give another name, or "
      "remove it",
      dump);
}

/// Bytes that one sequence of the evaluated length takes in a cache of bfloat16, as `ratplus generate` allocates it.
std::int64_t cache_bytes(const evaluation::Evaluation& e, const model::PatternPlan& pattern,
                         std::int64_t tokens) {
  return infer::CacheShape(e.info().model, pattern, tokens).sequence_bytes(tokens, DType::bf16);
}

/// The positions of part i, "0-511".
std::string part_name(std::int64_t i, const evaluation::ValidationSettings& settings) {
  const auto begin = evaluation::part_begin(i, settings.sequence_length, settings.parts);
  const auto end = evaluation::part_begin(i + 1, settings.sequence_length, settings.parts);
  return end - begin == 1 ? fmt::format("{}", begin) : fmt::format("{}-{}", begin, end - 1);
}

nlohmann::ordered_json to_json(const evaluation::Evaluation& e,
                               const evaluation::ValidationSettings& settings,
                               const std::vector<evaluation::PatternScore>& scores, std::int64_t sequences) {
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  for (std::size_t p = 0; p < scores.size(); ++p) {
    const auto& score = scores[p];
    nlohmann::ordered_json entry = {
        {"pattern", e.patterns[p].describe()}, {"loss", score.loss}, {"perplexity", std::exp(score.loss)}};
    if (score.bits_per_byte) entry["bits_per_byte"] = *score.bits_per_byte;
    if (score.accuracy) {
      entry["token_accuracy"] = score.accuracy->token;
      entry["completion_accuracy"] = score.accuracy->completion;
    }
    entry["cache_bytes"] = cache_bytes(e, e.patterns[p], settings.sequence_length);
    if (!score.by_position.empty()) entry["by_position"] = score.by_position;
    results.push_back(std::move(entry));
  }
  nlohmann::ordered_json all;
  put_path(all, "checkpoint", e.info().directory.string());
  // By which a report knows the checkpoint, wherever it was moved.
  const auto manifest = e.info().directory / checkpoint::manifest_name;
  if (std::filesystem::is_regular_file(manifest))
    all["manifest_sha256"] = sha256_hex(read_whole_file(manifest));
  all["step"] = e.info().step;
  put_path(all, "data", settings.dataset.string());
  all["split"] = data::to_string(settings.split);
  all["sequence_length"] = settings.sequence_length;
  all["sequences"] = sequences;
  if (settings.parts > 0) {
    auto& names = all["positions"] = nlohmann::ordered_json::array();
    for (std::int64_t i = 0; i < settings.parts; ++i) names.push_back(part_name(i, settings));
  }
  all["results"] = std::move(results);
  return all;
}

void print_scores(const evaluation::Evaluation& e, const std::vector<evaluation::PatternScore>& scores) {
  std::vector<std::vector<std::string>> rows = {{"pattern", "loss", "perplexity"}};
  const bool by_bytes = scores.front().bits_per_byte.has_value();
  if (by_bytes) rows[0].emplace_back("bits/byte");
  if (scores.front().accuracy) rows[0].insert(rows[0].end(), {"token accuracy", "completion accuracy"});
  for (std::size_t p = 0; p < scores.size(); ++p) {
    const auto& [loss, bits_per_byte, accuracy, by_position] = scores[p];
    rows.push_back({e.patterns[p].describe(), format_fixed(loss, 5), format_fixed(std::exp(loss), 3)});
    if (by_bytes) rows.back().push_back(format_fixed(*bits_per_byte, 4));
    if (!accuracy) continue;
    rows.back().push_back(format_fixed(accuracy->token, 4));
    rows.back().push_back(format_fixed(accuracy->completion, 4));
  }
  fmt::print("{}", report::format_table(rows, 0));
}

/// A row a part of the sequence, a column a pattern.
void print_by_position(const evaluation::Evaluation& e, const evaluation::ValidationSettings& settings,
                       const std::vector<evaluation::PatternScore>& scores) {
  std::vector<std::vector<std::string>> rows = {{"loss at positions"}};
  for (const auto& pattern : e.patterns) rows[0].push_back(pattern.describe());
  for (std::int64_t i = 0; i < settings.parts; ++i) {
    rows.push_back({part_name(i, settings)});
    for (const auto& score : scores) {
      const double loss = score.by_position[static_cast<std::size_t>(i)];
      rows.back().push_back(std::isfinite(loss) ? format_fixed(loss, 4) : "-");
    }
  }
  fmt::print("\n{}", report::format_table(rows, 0));
}

/// Prints all of a dataset's evaluation.
void print_evaluation(const evaluation::Evaluation& e, const evaluation::EvaluatedData& data,
                      const std::vector<evaluation::PatternScore>& scores, std::int64_t sequences) {
  const auto& settings = data.settings;
  fmt::print("{}: step {}; {} of {} of {} ({})\n", e.info().directory.string(), e.info().step,
             counted(sequences, data.has_samples() ? "sample" : "sequence"),
             counted(settings.sequence_length, data.has_samples() ? "input" : "token"),
             settings.dataset.string(), data::to_string(settings.split));
  if (e.info().tokenizer.empty())
    fmt::print("its tokenizer is not known; the dataset's ({}) is taken to be it\n", data.manifest.tokenizer);
  if (!data.has_samples() && !scores.front().bits_per_byte) {
    fmt::print("no bits per byte: {}\n",
               data.bytes.missing.empty()
                   ? "a held-out token stands for text that its tokenizer does not know"
                   : data.bytes.missing);
  }
  print_scores(e, scores);
  if (settings.parts > 0) print_by_position(e, settings, scores);
}

int evaluate_data(const EvalArguments& args, const evaluation::Evaluation& e, const parallel::World& world) {
  evaluation::EvaluatedData data;
  world.agree([&] { data = evaluation::find_data(args.request, e); });
  const auto& settings = data.settings;
  session::Session session(e.session_settings({e.micro_batch, settings.sequence_length}, world), world);
  std::unique_ptr<evaluation::Validator> validator;
  world.agree([&] {
    weights::load(*e.source, session.store(), session.ops());
    validator = data.validator(world);
  });
  session.store().publish_masters();
  ProgressLine progress;
  const auto scores = validator->run(session.model(), e.patterns, [&](std::int64_t done, std::int64_t all) {
    if (world.root())
      progress.update(fmt::format("evaluating {} of {} x {}", done, counted(all, "sequence"),
                                  counted(e.patterns.size(), "pattern")));
  });
  if (world.root()) {
    progress.finish();
    print_evaluation(e, data, scores, validator->sequences());
  }
  world.agree([&] {
    if (world.root()) write_json_output(args.json, to_json(e, settings, scores, validator->sequences()));
  });
  return 0;
}

/// Every rank computes all of it, so that shardings need no case of their own; the root writes.
int dump_logits(const EvalArguments& args, const evaluation::Evaluation& e, const parallel::World& world) {
  evaluation::TokenRows tokens;
  world.agree([&] { tokens = evaluation::read_token_rows(args.tokens, e.info().model.vocab_size); });
  session::Session session(e.session_settings({1, tokens.length}, world), world);
  world.agree([&] { weights::load(*e.source, session.store(), session.ops()); });
  session.store().publish_masters();
  std::vector<double> losses;
  evaluation::dump_logits(session, tokens, e.patterns, args.dump_logits, losses);
  if (!world.root()) return 0;
  fmt::print("{}: step {}; {} of {} of {}\n", e.info().directory.string(), e.info().step,
             counted(tokens.rows(), "sequence"), counted(tokens.length, "token"), args.tokens);
  std::vector<evaluation::PatternScore> scores;
  for (const double loss : losses) scores.push_back({.loss = loss});
  print_scores(e, scores);
  fmt::print("logits and losses: {}\n", args.dump_logits);
  return 0;
}

nlohmann::ordered_json identity_of(const EvalArguments& args, const infer::ResolvedModel& model,
                                   const generate::ModelText& text, const std::string& arithmetic) {
  auto identity = generate::model_identity("eval", model, text, arithmetic);
  identity["cut"] = generate::to_string(args.cut);
  return identity;
}

void print_sums(const generate::ContinuationSums& sums) {
  fmt::print(stderr, "{}, {}: log-likelihood {:.4f}, perplexity a token {}, greedy {:.4f}\n",
             counted(sums.continuations, "continuation"), counted(sums.tokens, "token"), sums.log_likelihood,
             format_fixed(sums.perplexity(), 3), double(sums.greedy) / double(sums.continuations));
}

/// Tokens that a rank scores together: one pass.
std::int64_t scored_rows(const infer::ResolvedModel& model) {
  const bool gpu = model.device != DeviceChoice::cpu && cuda_device_count() > 0;
  return gpu ? 16384 : 1024;
}

int score_continuations(const EvalArguments& args, const std::filesystem::path& checkpoint,
                        const parallel::World& world) {
  const StopSignal signal;
  infer::ResolvedModel model;
  generate::ModelText text;
  std::optional<generate::InputLines> input;
  world.agree([&] {
    auto request = args.model.request;
    if (!args.request.patterns.empty()) request.pattern = args.request.patterns.front();
    request.device = args.request.device, request.precision = args.request.precision;
    request.threads = args.request.threads, request.head_dim = args.request.head_dim;
    model = infer::resolve(request, checkpoint);
    text = generate::find_text(model.info(), args.model.tokenizer, args.model.end_of_text);
    input.emplace(args.continuations);
  });
  if (world.root() && !model.note.empty()) fmt::print(stderr, "ratplus: note: {}\n", model.note);
  generate::LineJob job{.input = *input,
                        .output = args.output,
                        .print = {},
                        .identity = {},
                        .replace = args.force,
                        .command = "`ratplus eval`"};
  job.print = [](std::string_view line) {
    if (std::fwrite(line.data(), 1, line.size(), stdout) != line.size() || std::fflush(stdout) != 0)
      fail("cannot write to standard output: {}", std::strerror(errno));
  };
  world.agree([&] { generate::check_output_file(job); });
  const infer::ScorerSettings settings{
      .tokens = model.tokens, .rows = scored_rows(model), .rope_scale = model.rope_scale};
  infer::Inference inference(model, settings, world);
  job.identity = identity_of(args, model, text, inference.arithmetic());
  generate::ContinuationLines worker(*input, args.cut, text, inference.scorer());
  generate::check_lines(*input, worker, world);
  world.agree([&] { inference.load(); });
  generate::ContinuationSums sums;
  const int status =
      do_lines_with_progress(job, worker, world, "scoring", [&](const auto& result) { sums.add(result); });
  if (status == 0 && world.root()) print_sums(sums);
  return status;
}

int evaluate(const EvalArguments& args, const parallel::World& world) {
  const auto checkpoint = world.from_root([&] { return weights::resolve(args.checkpoint).string(); });
  if (!args.continuations.empty()) return score_continuations(args, checkpoint, world);
  evaluation::Evaluation e;
  world.agree([&] {
    check_outputs(args, checkpoint);
    e = evaluation::resolve(args.request, checkpoint);
  });
  for (const auto& pattern : e.patterns) {
    const auto note = session::other_pattern_note(e.info(), pattern);
    if (world.root() && !note.empty()) fmt::print(stderr, "ratplus: note: {}\n", note);
  }
  return args.tokens.empty() ? evaluate_data(args, e, world) : dump_logits(args, e, world);
}

}  // namespace

int eval_command(const Arguments& args) {
  const auto parsed = parse_eval(args);
  if (!parsed) return 0;
  return with_ranks([&](const parallel::World& world) { return evaluate(*parsed, world); });
}

}  // namespace ratplus::apps
