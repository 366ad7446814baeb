// ratplus prepare: text to a tokenizer and a dataset of token shards.
#include "data/prepare/prepare.h"

#include <fmt/core.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "apps/command_line.h"
#include "apps/format.h"
#include "apps/interrupted.h"
#include "apps/output.h"
#include "apps/progress_line.h"
#include "apps/with_ranks.h"
#include "base/error.h"
#include "base/stop_signal.h"
#include "base/units.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* introduction =
    R"(usage: ratplus prepare INPUT... --output DIR (--tokenizer MODEL | --train-tokenizer) [options]
       mpirun -n 8 ratplus prepare ...          (several machines share the work through their file system)

Reads documents, tokenizes them on all cores, puts an end-of-text token after each, and writes them as HDF5 shards.
Some documents, chosen by a hash of their text, are held out for validation.

INPUT is a file, a directory (all such files in it, sorted by path) or a pattern in quotes ('web/*/0*.parquet'):
  .txt                 one document
  .jsonl               one JSON object a line, its text under --text-key
  .parquet             one document a row, its text in the column --text-key
A directory is searched with all below it, linked directories too; hidden files and directories are skipped, and
a file that is named or reached twice counts once, with a note.
.txt and .jsonl may be packed (.gz, .zst). Ill-formed UTF-8 and halves of surrogate pairs (\ud800) become
U+FFFD; at the end it says in how many documents, and names the first.

examples:
  A small dataset with a tokenizer of its own, a twentieth of the documents held out:
    ratplus prepare texts/ --output data/prose --train-tokenizer --vocab-size 4096 --validation-fraction 0.05
  FineWeb-Edu with LLaMA-2's tokenizer:
    ratplus prepare fineweb-edu/data --output data/fineweb --tokenizer tokenizer.model
  Packed JSON lines with a Hugging Face tokenizer, each text once, on four machines:
    mpirun -n 4 --map-by node ratplus prepare c4/ --output data/c4 --tokenizer tokenizer.json --deduplicate

What comes out, in DIR:
  tokenizer.model      the tokenizer (tokenizer.json if it is a Hugging Face one)
  train-00000.h5 ...   shards; data/README.md describes them and reads them with h5py
  validation-00000.h5  the held-out documents
  dataset.json         the list of the above; written last, so a directory without it is not a dataset
`ratplus train` takes DIR as data.directory. Interrupted, the same command goes on where it stopped (DIR/.prepare);
again, it finds the dataset and does nothing. The result depends neither on threads nor on ranks.

options:
)";

po::options_description describe_options(data::PrepareOptions& options) {
  po::options_description description("", 110, 70);
  auto add = description.add_options();
  add("output,o", po::value<std::string>()->value_name("DIR"), "where the dataset goes; made if missing");
  add("tokenizer", po::value<std::string>()->value_name("MODEL"),
      "a SentencePiece model (LLaMA-2's tokenizer.model is one) or a tokenizer.json (byte-level or "
      "byte-fallback BPE) "
      "to use; it is copied beside the shards");
  add("train-tokenizer",
      "train one on the input instead: BPE with byte fallback, so that any text can be spelt; held-out "
      "documents are left out");
  add("vocab-size", po::value<std::int64_t>()->default_value(32000)->value_name("N"),
      "with --train-tokenizer: its number of pieces, among them 3 special ones and 256 bytes");
  add("end-of-text", po::value(&options.end_of_text)->value_name("TOKEN"),
      "the token that ends a text, if the tokenizer's file does not name it");
  add("text-key", po::value(&options.text_key)->default_value(options.text_key)->value_name("KEY"),
      "JSON lines: the key of the text; Parquet: its column");
  add("validation-fraction",
      po::value(&options.validation_fraction)
          ->default_value(options.validation_fraction, fmt::format("{}", options.validation_fraction))
          ->value_name("F"),
      "share of the documents that is held out; with 0 the dataset cannot be trained on");
  add("deduplicate", po::bool_switch(&options.deduplicate),
      "of documents with the same text, keep the first only (by SHA-256; within each split)");
  add("shard-tokens", po::value(&options.shard_tokens)->default_value(options.shard_tokens)->value_name("N"),
      "a shard is closed at the document that reaches this many tokens");
  add("compression", po::value(&options.compression)->default_value(options.compression)->value_name("LEVEL"),
      "gzip level of the shards, 1 to 9; 0 does not compress");
  add("threads", po::value(&options.threads)->default_value(options.threads)->value_name("N"),
      "threads a rank that tokenize, 0 = its share of the cores");
  add("force", "replace another dataset in DIR");
  return description;
}

/// Empty when help was asked for and given.
std::optional<data::PrepareOptions> parse_prepare(const Arguments& args) {
  data::PrepareOptions options;
  std::vector<std::string> inputs;
  const Positional input{"input", -1, po::value(&inputs), "an input is missing", "INPUT"};
  const auto given = parse_command_line(args, describe_options(options), input, {introduction, ""});
  if (!given) return std::nullopt;
  options.inputs.assign(inputs.begin(), inputs.end());
  if (given->contains("output")) options.output = (*given)["output"].as<std::string>();
  if (given->contains("tokenizer")) options.tokenizer = (*given)["tokenizer"].as<std::string>();
  const auto vocab_size = (*given)["vocab-size"].as<std::int64_t>();
  if (vocab_size < 1) fail("--vocab-size {} is not positive", vocab_size);
  if (given->contains("train-tokenizer")) {
    options.train_vocab_size = vocab_size;
  } else if (!(*given)["vocab-size"].defaulted()) {
    fail("--vocab-size is for --train-tokenizer; a given --tokenizer has its own");
  }
  if (options.threads < 0) fail("--threads {} is negative", options.threads);
  options.force = given->contains("force");
  return options;
}

std::string progress_text(const data::PrepareProgress& progress) {
  const double seconds = std::max(progress.seconds, 1e-3);
  std::string text = progress.phase + ":";
  if (progress.documents > 0) {
    text += fmt::format(" {} documents ({}/s)", format_count(double(progress.documents)),
                        format_count(double(progress.documents) / seconds));
  }
  if (progress.tokens > 0) {
    text += fmt::format(", {} tokens ({}/s)", format_count(double(progress.tokens)),
                        format_count(double(progress.tokens) / seconds));
  }
  if (progress.bytes_total == 0) return text + " " + format_seconds(progress.seconds);
  text += fmt::format(" {:.0f} %", 100 * double(progress.bytes_done) / double(progress.bytes_total));
  const double done = double(progress.bytes_done - progress.bytes_before);
  const double left = double(progress.bytes_total - progress.bytes_done);
  if (done > 0) text += fmt::format(", {} left", format_seconds(seconds * left / done));
  return text;
}

std::uintmax_t bytes_of(const std::filesystem::path& directory,
                        const std::vector<data::ManifestShard>& shards) {
  std::uintmax_t bytes = 0;
  for (const auto& shard : shards) bytes += std::filesystem::file_size(directory / shard.file);
  return bytes;
}

void print_result(const std::filesystem::path& directory, const data::PrepareResult& result) {
  const data::Manifest& manifest = result.manifest;
  if (result.already_there) {
    fmt::print("{} already holds this dataset; nothing to do.\n\n", directory.string());
  } else {
    fmt::print("Wrote {}\n\n", directory.string());
  }
  fmt::print("{:<12}{:>8}{:>14}{:>18}{:>12}\n", "split", "shards", "documents", "tokens", "MB");
  for (const data::Split split : {data::Split::train, data::Split::validation}) {
    fmt::print("{:<12}{:>8}{:>14}{:>18}{:>12}\n", data::to_string(split), manifest.shards(split).size(),
               manifest.documents(split), manifest.tokens(split),
               format_fixed(double(bytes_of(directory, manifest.shards(split))) / 1e6, 2));
  }
  fmt::print("\nvocabulary {}, end of text {}, {}\n", manifest.vocab_size, manifest.end_of_text,
             manifest.tokenizer);
  for (const std::string& note : result.notes) fmt::print("{}\n", note);
  if (result.left_out_empty > 0) {
    fmt::print("left out: {} without text\n", counted(result.left_out_empty, "document"));
  }
  if (result.duplicates > 0) {
    fmt::print("left out: {} with the text of another\n", counted(result.duplicates, "document"));
  }
  if (result.repaired > 0) {
    fmt::print("{} held ill-formed UTF-8 or half a surrogate pair, now U+FFFD; the first is {}\n",
               counted(result.repaired, "document"), result.first_repaired);
  }
  if (manifest.tokens(data::Split::validation) == 0) {
    fmt::print(
        "warning: nothing is held out, and `ratplus train` needs a held-out part; for training, prepare the "
        "text with --validation-fraction above 0\n");
  }
}

data::Team team_of(const parallel::World& world) {
  return {.rank = world.rank(),
          .size = world.size(),
          .agree =
              [&](const std::function<void()>& f) {
                if (world.size() == 1) {
                  f();
                } else {
                  world.agree(f);
                }
              },
          .from_root =
              [&](const std::function<std::string()>& f) {
                return world.size() == 1 ? f() : world.from_root(f);
              }};
}

int prepare(data::PrepareOptions options, const parallel::World& world) {
  const StopSignal signal;
  // A tokenizer is trained by the root alone, and a packed input is read by one rank, however long that takes.
  world.watchdog().set_timeout(parallel::Watchdog::no_timeout);
  options.threads = world.threads(options.threads);
  std::optional<ProgressLine> line;
  if (world.root()) line.emplace(5);
  std::string phase;
  const auto report = [&](const data::PrepareProgress& progress) {
    end_if_interrupted("interrupted; the same command goes on where it stopped");
    if (line) line->update(progress_text(progress), progress.phase != phase);
    phase = progress.phase;
  };
  try {
    const data::PrepareResult result = data::prepare(options, report, team_of(world));
    if (!world.root()) return 0;
    line->finish();
    print_result(options.output, result);
    return 0;
  } catch (const Interrupted& interrupted) {
    if (line) line->finish();
    // Usually all ranks get the signal, and the root prints the message.
    if (!world.root()) std::this_thread::sleep_for(std::chrono::seconds(2));
    print_error(fmt::format("{}: {}", options.output.string(), interrupted.what()));
    std::fflush(stderr);
    if (world.size() > 1) world.abort(exit_interrupted);
    return exit_interrupted;
  }
}

}  // namespace

int prepare_command(const Arguments& args) {
  const auto options = parse_prepare(args);
  if (!options) return 0;
  ignore_lost_readers();
  return with_ranks([&](const parallel::World& world) { return prepare(*options, world); });
}

}  // namespace ratplus::apps
