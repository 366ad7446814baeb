// ratplus inspect: what a dataset, a shard, a checkpoint, weights, a run or a job file holds, and whether it is whole.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "apps/command_line.h"
#include "apps/format.h"
#include "apps/interrupted.h"
#include "apps/progress_line.h"
#include "base/error.h"
#include "base/files/hdf5.h"
#include "base/stop_signal.h"
#include "base/units.h"
#include "data/dataset/document_lengths.h"
#include "data/dataset/manifest.h"
#include "data/dataset/sample_shard.h"
#include "data/dataset/shard.h"
#include "data/dataset/token_stream.h"
#include "data/samples/supervised_samples.h"
#include "data/samples/verify_dataset.h"
#include "data/tokenizer/tokenizer.h"
#include "lib/checkpoint/checkpoint.h"
#include "lib/checkpoint/manifest.h"
#include "lib/checkpoint/verify.h"
#include "lib/config/job.h"
#include "lib/model/mixers.h"
#include "lib/model/parameters.h"
#include "lib/session/start_defaults.h"
#include "lib/weights/convert.h"
#include "lib/weights/source.h"

namespace ratplus::apps {
namespace {

namespace fs = std::filesystem;
namespace po = boost::program_options;

constexpr const char* inspect_help = R"(usage: ratplus inspect PATH [options]

Tells what PATH holds: a dataset's directory (tokens, documents and their lengths, tokenizer, shards), a shard
(.h5), a checkpoint's directory (model, step, files, parameters), weights of another system's (.pth,
safetensors), a run's directory (model, length, checkpoints), or a job file (.toml: the whole effective
job). Of a dataset, a shard, a checkpoint and of weights every byte is read and compared with the
checksums that the files have (--quick leaves that out, and reads of a dataset the manifest alone);
what is damaged is named, and the status is then 1.

)";

constexpr const char* inspect_help_end = R"(
examples:
  ratplus inspect runs/quickstart/data --text 0,200
  ratplus inspect runs/quickstart/pretrain
  ratplus inspect configs/pretrain/7b.toml
)";

/// Parameters a line, up to what a terminal shows; all with --parameters.
void print_parameters(const model::ModelConfig& config, bool all) {
  for (const auto& unit : model::unit_layouts(config)) {
    if (!all && unit.name != "root" && unit.name != "blocks.0") continue;
    for (const auto& slot : unit.slots) {
      fmt::print("  {:<50} [{}]\n", slot.name, fmt::join(slot.shape, ", "));
    }
  }
  if (!all && config.layers > 1)
    fmt::print("  ... and {} (--parameters lists all)\n", counted(config.layers - 1, "more block"));
}

void print_model(const model::ModelConfig& m) {
  fmt::print("model      {}, width {}, {} of {}, vocabulary {}, {}\n", counted(m.layers, "layer"), m.width,
             counted(m.heads(), "head"), m.head_dim, m.vocab_size, model::describe_mixers(m));
  fmt::print("parameters {} ({})\n", model::parameter_count(m),
             format_count(static_cast<double>(model::parameter_count(m))));
}

/// A line that says how far the reading of `all` bytes has come, and ends at a signal.
class VerifyLine {
 public:
  explicit VerifyLine(std::int64_t all) : all_(all) {}
  void add(std::int64_t bytes) {
    end_if_interrupted("interrupted: not all was verified");
    done_ += bytes;
    if (all_ > worth_saying)
      line_.update(fmt::format("verifying {} of {}", format_bytes(done_), format_bytes(all_)));
  }

 private:
  static constexpr std::int64_t worth_saying = std::int64_t{1} << 30;
  std::int64_t all_;
  std::int64_t done_ = 0;
  ProgressLine line_;
};

void print_training(const checkpoint::Info& info) {
  // Files of other systems do not know how many updates were made.
  const auto updates = info.updates > 0 || info.step == 0 ? counted(info.updates, "update") + ", " : "";
  fmt::print("step       {} ({}{} tokens)\n", info.step, updates,
             format_count(static_cast<double>(info.tokens)));
  if (!info.begun.empty())
    fmt::print("           and {} of step {}\n", counted(info.begun.size(), "update"), info.step + 1);
  if (!info.left_out.empty())
    fmt::print("left out   {} updates in a row until here, by their number in a step\n",
               fmt::join(info.left_out, ", "));
  fmt::print("tokenizer  {}\n", info.tokenizer.empty() ? "not known" : info.tokenizer);
}

void inspect_checkpoint(const fs::path& path, bool all, bool verify) {
  const auto info = checkpoint::read_info(path);
  fmt::print("checkpoint {}\n", path.string());
  print_model(info.model);
  print_training(info);
  fmt::print("holds      {} weights{}\n", to_string(info.weights_type),
             info.optimizer ? " and the optimizer's state"
                            : ", no optimizer state: to adapt or evaluate, not to resume");
  const auto bytes = checkpoint::bytes_of(info);
  fmt::print("files      {} ({})\n", info.parts, format_bytes(bytes));
  print_parameters(info.model, all);
  std::fflush(stdout);
  if (!verify) return;
  {
    const StopSignal signal;
    VerifyLine line(bytes);
    checkpoint::verify(info, [&](std::int64_t read) { line.add(read); });
  }
  fmt::print("verified   {}\n", info.files.empty()
                                    ? "every dataset (format version 1 has no checksums of files)"
                                    : "every byte of every file");
}

/// Reads every element; a format's checksums, where it has any, are compared on the way.
void read_all(weights::WeightsSource& source) {
  std::int64_t bytes = 0;
  for (const auto& unit : source.units()) bytes += unit.numel * static_cast<std::int64_t>(sizeof(float));
  const StopSignal signal;
  VerifyLine line(bytes);
  weights::ExportOptions options;
  options.progress = [&](std::int64_t read) { line.add(read); };
  weights::stream(source, weights::parameters_of(source, options), options, {});
}

void inspect_weights(const fs::path& path, bool all, bool verify, std::int64_t head_dim) {
  model::ModelConfig assumed;
  if (head_dim > 0) assumed.head_dim = head_dim;
  const auto source = weights::open_source(path, assumed);
  fmt::print("weights    {} ({})\n", source->info().directory.string(), source->format());
  print_model(source->info().model);
  print_training(source->info());
  fmt::print("holds      {} weights\n", to_string(source->stored_type(0, 0)));
  print_parameters(source->info().model, all);
  std::fflush(stdout);
  if (!verify) return;
  read_all(*source);
  fmt::print("verified   every weight can be read{}\n", std::string_view(source->format()) == "PyTorch"
                                                            ? ", and agrees with the archive's checksums"
                                                            : "; this format has no checksums");
}

void inspect_run(const fs::path& path) {
  const auto job = config::load_job(path / "job.toml", {});
  fmt::print("run        {}\n", path.string());
  print_model(job.model);
  if (job.schedule.epochs > 0) {
    fmt::print("length     {} over the training samples, {} of {} a step\n",
               counted(job.schedule.epochs, "epoch"), counted(job.data.batch, "sample"),
               counted(job.data.sequence_length, "input"));
  } else {
    fmt::print("steps      {} of {} tokens\n", job.schedule.steps, job.tokens_per_step());
  }
  const std::vector<fs::path> found = checkpoint::list(path);
  for (const fs::path& checkpoint : found) fmt::print("checkpoint {}\n", checkpoint.string());
  if (found.empty()) fmt::print("checkpoint none yet\n");
}

/// FIRST,COUNT within `total`.
std::pair<std::int64_t, std::int64_t> parse_range(const std::string& range, std::int64_t total,
                                                  const char* what, data::Split split) {
  const auto comma = range.find(',');
  std::int64_t begin = 0;
  std::int64_t count = 0;
  try {
    begin = std::stoll(range);
    count = std::stoll(range.substr(comma + 1));
  } catch (const std::exception&) {
    count = -1;
  }
  if (comma == std::string::npos || begin < 0 || count < 1 || count > total || begin > total - count) {
    fail("--text {}: give FIRST,COUNT within the {} {} of the {} split", range, total, what,
         data::to_string(split));
  }
  return {begin, count};
}

void print_text(const fs::path& directory, const data::Manifest& manifest, data::Split split,
                const std::string& range) {
  const auto [begin, count] = parse_range(range, manifest.tokens(split), "tokens", split);
  if (manifest.tokenizer_file.empty())
    fail("{}: the dataset has no tokenizer to decode with", directory.string());
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  data::TokenStream(directory, manifest, split).read(begin, tokens);
  fmt::print("\n{}\n", data::Tokenizer(directory / manifest.tokenizer_file).decode(tokens));
}

/// Of each sample its inputs up to the last that predicts a label, and the labels that count.
void print_samples(const fs::path& directory, const data::Manifest& manifest, data::Split split,
                   const std::string& range) {
  const auto [first, count] = parse_range(range, manifest.documents(split), "samples", split);
  if (manifest.tokenizer_file.empty())
    fail("{}: the dataset has no tokenizer to decode with", directory.string());
  const data::Tokenizer tokenizer(directory / manifest.tokenizer_file);
  const auto length = static_cast<std::size_t>(manifest.sample_length);
  data::SupervisedSamples samples({{directory, 1, manifest}}, {.split = split,
                                                               .sampling = data::Sampling::ordered,
                                                               .sequence_length = manifest.sample_length,
                                                               .seed = 0});
  std::vector<std::int32_t> inputs(length);
  std::vector<std::int32_t> labels(length);
  for (auto index = first; index < first + count; ++index) {
    samples.read(index, inputs, labels);
    std::vector<std::int32_t> learnt;
    std::size_t end = 0;
    for (std::size_t i = 0; i < length; ++i) {
      if (labels[i] < 0) continue;
      learnt.push_back(labels[i]);
      end = i + 1;
    }
    fmt::print("\nsample {}: {}\n", index, counted(learnt.size(), "label"));
    fmt::print("  inputs: {}\n", tokenizer.decode({inputs.data(), end}));
    fmt::print("  labels: {}\n", tokenizer.decode(learnt));
  }
}

void print_lengths(const data::DocumentLengths& lengths) {
  if (lengths.documents == 0) return;
  fmt::print(
      "           lengths {} (least), {} (tenth), {} (median), {} (nine tenths), {} (greatest), mean "
      "{:.1f}\n",
      lengths.shortest, lengths.tenth, lengths.median, lengths.nine_tenths, lengths.longest, lengths.mean);
}

/// Bytes of the shards' tokens, or of their samples' inputs and labels, as they are read.
constexpr std::int64_t bytes_a_token = 4;

/// What is wrong with it, a line a file.
std::vector<std::string> verify(const fs::path& path, const data::Manifest& manifest) {
  const auto tokens = manifest.tokens(data::Split::train) + manifest.tokens(data::Split::validation);
  const StopSignal signal;
  VerifyLine line(tokens * bytes_a_token);
  return data::verify_dataset(path, manifest, [&](std::int64_t read) { line.add(read * bytes_a_token); });
}

void print_verified(const fs::path& path, const data::Manifest& manifest,
                    const std::vector<std::string>& wrong) {
  if (!wrong.empty()) {
    for (std::size_t i = 0; i + 1 < wrong.size(); ++i) fmt::print(stderr, "ratplus: {}\n", wrong[i]);
    fail("{}{}", wrong.back(),
         wrong.size() > 1
             ? fmt::format("\nratplus: {}: {} are not whole", path.string(), counted(wrong.size(), "file"))
             : "");
  }
  const bool sums = manifest.crc32(data::Split::train) && manifest.crc32(data::Split::validation);
  fmt::print(
      "verified   every token of every shard{}{}\n",
      sums ? ", by the manifest's checksums" : " (the manifest is of an older version, without checksums)",
      manifest.tokenizer_file.empty() ? "" : ", and the tokenizer");
}

void inspect_dataset(const fs::path& path, data::Split split, const std::string& text, bool quick) {
  const auto manifest = data::read_manifest(path);
  fmt::print("dataset    {}\n", path.string());
  fmt::print("vocabulary {}, end of text {}\n", manifest.vocab_size, manifest.end_of_text);
  fmt::print("tokenizer  {} ({})\n", manifest.tokenizer_file, manifest.tokenizer);
  std::fflush(stdout);
  std::vector<std::string> wrong;
  if (!quick) wrong = verify(path, manifest);
  for (const auto each : {data::Split::train, data::Split::validation}) {
    const auto shards = manifest.shards(each).size();
    if (manifest.sample_length > 0) {
      fmt::print("{:<10} {} of {} with labels, {}\n", data::to_string(each),
                 counted(manifest.documents(each), "sample"), counted(manifest.sample_length, "input"),
                 counted(shards, "shard"));
      continue;
    }
    fmt::print("{:<10} {}, {}, {}\n", data::to_string(each), counted(manifest.tokens(each), "token"),
               counted(manifest.documents(each), "document"), counted(shards, "shard"));
    if (!quick && wrong.empty()) print_lengths(data::document_lengths(path, manifest, each));
  }
  if (!manifest.encode.empty()) fmt::print("encoded    prompts and completions {}\n", manifest.encode);
  std::fflush(stdout);
  if (!quick) print_verified(path, manifest, wrong);
  if (text.empty()) return;
  if (manifest.sample_length > 0) return print_samples(path, manifest, split, text);
  print_text(path, manifest, split, text);
}

/// Of samples with labels.
bool inspect_sample_shard(const fs::path& path, bool quick) {
  if (!hdf5::File::open(path).has("labels")) return false;
  const data::SampleShardReader reader(path);
  const auto& info = reader.info();
  fmt::print("shard      {} ({})\n", path.string(),
             format_bytes(static_cast<std::int64_t>(fs::file_size(path))));
  fmt::print("samples    {} of {}\n", info.samples, counted(info.length, "input"));
  fmt::print("vocabulary {}, end of text {}\n", info.vocab_size, info.end_of_text);
  fmt::print("tokenizer  {}\n", info.tokenizer);
  std::fflush(stdout);
  if (quick) return true;
  {
    const StopSignal signal;
    VerifyLine line(info.samples * info.length * bytes_a_token);
    reader.verify([&](std::int64_t read) { line.add(read * bytes_a_token); });
  }
  fmt::print("verified   every sample{}\n", info.crc32 ? ", by the shard's checksum" : "");
  return true;
}

void inspect_shard(const fs::path& path, bool quick) {
  if (inspect_sample_shard(path, quick)) return;
  const data::ShardReader reader(path);
  const auto& info = reader.info();
  fmt::print("shard      {} ({})\n", path.string(),
             format_bytes(static_cast<std::int64_t>(fs::file_size(path))));
  fmt::print("tokens     {} in {}\n", info.tokens, counted(info.documents, "document"));
  fmt::print("vocabulary {}, end of text {}\n", info.vocab_size, info.end_of_text);
  fmt::print("tokenizer  {}\n", info.tokenizer);
  std::fflush(stdout);
  if (quick) return;
  {
    const StopSignal signal;
    VerifyLine line(info.tokens * bytes_a_token);
    reader.verify([&](std::int64_t read) { line.add(read * bytes_a_token); });
  }
  fmt::print("verified   every token{}\n", info.crc32 ? ", by the shard's checksum" : "");
}

void inspect_job(const fs::path& path) {
  const auto job = config::load_job(path, {}, session::start_defaults);
  print_renamed_keys(job);
  print_model(job.model);
  fmt::print("\n{}", config::to_toml(job));
}

/// By its name; or, of a directory that is no run's, by what is in it.
bool holds_weights(const fs::path& path) {
  if (fs::is_directory(path)) {
    if (fs::exists(path / "job.toml")) return false;
    return std::any_of(fs::directory_iterator(path), fs::directory_iterator(), [](const auto& entry) {
      return weights::format_of(entry.path()) == weights::Format::safetensors;
    });
  }
  return weights::format_of(path) != weights::Format::checkpoint;
}

}  // namespace

int inspect_command(const Arguments& args) {
  std::string path;
  std::string text;
  std::string split = "train";
  bool parameters = false;
  bool quick = false;
  std::int64_t head_dim = 0;
  po::options_description options("options");
  auto add = options.add_options();
  add("text", po::value(&text)->value_name("FIRST,COUNT"),
      "dataset: decode these tokens to text; of samples with labels, these samples");
  add("split", po::value(&split)->value_name("train|validation"), "dataset: for --text; default: train");
  add("parameters", po::bool_switch(&parameters), "checkpoint, weights: list the parameters of every block");
  add("quick", po::bool_switch(&quick),
      "dataset, shard, checkpoint, weights: do not read and verify all; of a dataset, the manifest alone");
  add("head-dim", po::value(&head_dim)->value_name("P"),
      "weights: channels of a head, where the file does not say; default: 128");
  const Positional place{"path", 1, po::value(&path), "a path is missing", "PATH"};
  const auto given = parse_command_line(args, options, place, {inspect_help, inspect_help_end});
  if (!given) return 0;
  if (!fs::exists(path)) fail("{}: no such file or directory", path);
  const bool is_dataset = fs::exists(fs::path(path) / data::manifest_name);
  const bool is_checkpoint = !is_dataset && fs::exists(fs::path(path) / checkpoint::manifest_name);
  for (const char* option : {"text", "split"}) {
    if (!is_dataset && given->contains(option))
      fail("--{} is for a dataset's directory, and {} is none", option, path);
  }
  const bool is_weights = !is_dataset && !is_checkpoint && holds_weights(path);
  if (!is_checkpoint && !is_weights && (parameters || head_dim != 0))
    fail("--parameters and --head-dim are for checkpoints and weights, and {} is neither", path);
  if (is_dataset) {
    inspect_dataset(path, data::parse_split(split), text, quick);
  } else if (is_checkpoint) {
    inspect_checkpoint(path, parameters, !quick);
  } else if (is_weights) {
    inspect_weights(path, parameters, !quick, head_dim);
  } else if (fs::exists(fs::path(path) / "job.toml")) {
    inspect_run(path);
  } else if (fs::path(path).extension() == ".h5") {
    inspect_shard(path, quick);
  } else if (fs::path(path).extension() == ".toml") {
    inspect_job(path);
  } else {
    fail(
        "{}: not a dataset, a shard (.h5), a checkpoint, weights (.pth, .safetensors), a run or a job file "
        "(.toml)",
        path);
  }
  return 0;
}

}  // namespace ratplus::apps
