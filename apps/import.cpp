// ratplus import: token streams that are there already, to token shards.
#include <fmt/core.h>

#include <optional>
#include <string>
#include <vector>

#include "apps/command_line.h"
#include "apps/format.h"
#include "apps/interrupted.h"
#include "apps/progress_line.h"
#include "base/error.h"
#include "base/stop_signal.h"
#include "base/units.h"
#include "data/prepare/import_tokens.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* import_help =
    R"(usage: ratplus import FILE... --output DIR (--tokenizer MODEL | --vocab-size N --end-of-text-id ID) [options]

Makes a dataset of token streams that are there already, token for token: raw .bin files of unsigned 16-bit (or 32- or 64-bit)
integers, or one-dimensional integer datasets of HDF5 files (.h5), as h5py writes them. A document ends with each
end-of-text token. Files of other kinds (NumPy's, llm.c's, packed ones, Git LFS pointers, text) are named and refused,
and so are numbers too narrow for the vocabulary; a stream that does not look like tokens is warned of. The held-out part is that of --validation, or documents chosen by a hash of their tokens.

)";

constexpr const char* import_help_end = R"(
examples:
  ratplus import train.bin --validation val.bin --output data/web --tokenizer tokenizer.model
  ratplus import stream.h5 --dataset tokens --output data/web --vocab-size 50257 --end-of-text-id 50256
)";

std::optional<data::ImportOptions> parse_import(const Arguments& args) {
  data::ImportOptions options;
  std::vector<std::string> inputs;
  std::vector<std::string> validation;
  std::string output;
  std::string tokenizer;
  po::options_description description("options", 110, 70);
  auto add = description.add_options();
  add("output,o", po::value(&output)->value_name("DIR"), "where the dataset goes; made if missing");
  add("validation", po::value(&validation)->composing()->value_name("FILE"),
      "the held-out tokens; may be given again");
  add("validation-fraction",
      po::value(&options.validation_fraction)
          ->default_value(options.validation_fraction, fmt::format("{}", options.validation_fraction))
          ->value_name("F"),
      "without --validation: share of the documents that is held out");
  add("tokenizer", po::value(&tokenizer)->value_name("MODEL"),
      "what the tokens were made with (it is copied)");
  add("end-of-text", po::value(&options.end_of_text)->value_name("TOKEN"),
      "the token that ends a text, if the tokenizer's file does not name it");
  add("vocab-size", po::value(&options.vocab_size)->value_name("N"),
      "without --tokenizer: all tokens are below it");
  add("end-of-text-id", po::value(&options.end_of_text_id)->value_name("ID"),
      "without --tokenizer: ends a document");
  add("bin-bytes", po::value(&options.bin_bytes)->value_name("2|4|8"),
      "of a token in .bin files, little-endian; 2 if left out, and refused where they seem to have more, or "
      "to be big-endian");
  add("dataset", po::value(&options.dataset)->value_name("NAME"), "in HDF5 files; the only one if left out");
  add("shard-tokens", po::value(&options.shard_tokens)->default_value(options.shard_tokens)->value_name("N"),
      "a shard is closed at the document that reaches this many tokens");
  add("force", po::bool_switch(&options.force),
      "replace another dataset in DIR, once the new one is complete");
  const Positional input{"input", -1, po::value(&inputs), "an input is missing", "INPUT"};
  if (!parse_command_line(args, description, input, {import_help, import_help_end})) return std::nullopt;
  options.train.assign(inputs.begin(), inputs.end());
  options.validation.assign(validation.begin(), validation.end());
  options.output = output;
  options.tokenizer = tokenizer;
  return options;
}

}  // namespace

int import_command(const Arguments& args) {
  const auto options = parse_import(args);
  if (!options) return 0;
  if (launched() && !first_of_job()) return 0;  // one process does it
  ignore_lost_readers();
  const StopSignal signal;
  ProgressLine line(5);
  const auto [manifest, warnings] = data::import_tokens(*options, [&](const data::ImportProgress& progress) {
    end_if_interrupted("interrupted; nothing was written");
    line.update(fmt::format("import: {} of {} tokens", format_count(double(progress.tokens)),
                            format_count(double(progress.tokens_total))));
  });
  line.finish();
  fmt::print("Wrote {}\n", options->output.string());
  for (const auto split : {data::Split::train, data::Split::validation}) {
    fmt::print("{:<10} {} in {}, {}\n", data::to_string(split), counted(manifest.tokens(split), "token"),
               counted(manifest.documents(split), "document"),
               counted(manifest.shards(split).size(), "shard"));
  }
  for (const std::string& warning : warnings) fmt::print(stderr, "ratplus: warning: {}\n", warning);
  return 0;
}

}  // namespace ratplus::apps
