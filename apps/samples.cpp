// ratplus samples: prompts and completions to samples with labels, for fine-tuning.
#include <fmt/core.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "apps/command_line.h"
#include "apps/interrupted.h"
#include "apps/progress_line.h"
#include "base/error.h"
#include "base/stop_signal.h"
#include "base/units.h"
#include "data/prepare/supervised.h"
#include "lib/generate/tokenizer_of.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* samples_help =
    R"(usage: ratplus samples INPUT... --output DIR --tokenizer MODEL --sequence-length T [options]

Makes a dataset of samples of T inputs with labels, which `ratplus train` takes with job.kind = "finetune" and
data.sequence_length = T. INPUT are JSON lines (.jsonl, also .gz, .zst; directories; patterns in quotes), each
  {"prompt": "...", "completion": "..."}   labels are the completion and an end-of-text token, or
  {"tokens": [...], "labels": [...]}       one label a token: the token itself, or -100 where it does not count
Prompt and completion are encoded as one text, so that the tokens decode to it; a token across their border counts.
With --encode apart each is encoded by its own. Lines are packed into samples in their order, several where they fit (they see each other); with --pad each has its own.
A directory is searched with all below it, linked directories too; hidden files and directories are skipped, and
a file that is named or reached twice counts once, with a note.
Ill-formed UTF-8 and halves of surrogate pairs (\ud800) become U+FFFD; the end reports the number of such lines, and
names the first.

)";

constexpr const char* samples_help_end = R"(
example:
  ratplus samples qa.jsonl --output data/qa --tokenizer runs/adapt/data/tokenizer.model --sequence-length 4096
)";

std::optional<data::SupervisedOptions> parse_samples(const Arguments& args) {
  data::SupervisedOptions options;
  std::vector<std::string> inputs;
  std::string output;
  std::string tokenizer;
  std::string encode = to_string(options.encode);
  std::string cut = to_string(options.cut);
  bool pad = false;
  po::options_description description("options", 110, 70);
  auto add = description.add_options();
  add("output,o", po::value(&output)->value_name("DIR"), "where the dataset goes; made if missing");
  add("tokenizer", po::value(&tokenizer)->value_name("MODEL"),
      "the tokenizer of the model to be tuned (it is copied): a file, a dataset, a checkpoint or a run");
  add("end-of-text", po::value(&options.end_of_text)->value_name("TOKEN"),
      "the token that ends a text, if the tokenizer's file does not name it");
  add("sequence-length", po::value(&options.length)->value_name("T"),
      "inputs a sample; longer lines are cut");
  add("encode", po::value(&encode)->value_name("together|apart"),
      "together (default): prompt and completion as one text; apart: each by its own, as the papers' recipes "
      "do");
  add("cut", po::value(&cut)->value_name("end|middle"),
      "a line that is too long loses its end (default) or its middle");
  add("pad", po::bool_switch(&pad), "one line a sample, padded with end-of-text tokens that do not count");
  add("validation-fraction",
      po::value(&options.validation_fraction)
          ->default_value(options.validation_fraction, fmt::format("{}", options.validation_fraction))
          ->value_name("F"),
      "share of the lines that is held out, chosen by a hash of prompt and completion, or of the tokens");
  add("force", po::bool_switch(&options.force),
      "replace another dataset in DIR, once the new one is complete");
  const Positional input{"input", -1, po::value(&inputs), "an input is missing", "INPUT"};
  if (!parse_command_line(args, description, input, {samples_help, samples_help_end})) return std::nullopt;
  options.inputs.assign(inputs.begin(), inputs.end());
  options.output = output;
  options.tokenizer = generate::tokenizer_of(tokenizer);
  options.encode = data::parse_encode(encode);
  options.cut = data::parse_cut(cut);
  options.pack = !pad;
  return options;
}

void print_result(const data::SupervisedOptions& options, const data::SupervisedResult& result) {
  const data::Manifest& manifest = result.manifest;
  fmt::print("Wrote {}: {} as {} and {} of {}\n", options.output.string(), counted(result.lines, "line"),
             counted(manifest.documents(data::Split::train), "training sample"),
             counted(manifest.documents(data::Split::validation), "held-out sample"),
             counted(manifest.sample_length, "input"));
  for (const std::string& note : result.notes) fmt::print("{}\n", note);
  if (result.cut > 0)
    fmt::print("cut to {}: {}; raise --sequence-length to keep all whole\n", counted(options.length, "input"),
               counted(result.cut, "line"));
  if (result.left_out > 0)
    fmt::print("left out: {} without a label that counts\n", counted(result.left_out, "line"));
  if (result.repaired > 0) {
    fmt::print("{} held ill-formed UTF-8 or half a surrogate pair, now U+FFFD; the first is {}\n",
               counted(result.repaired, "line"), result.first_repaired);
  }
}

}  // namespace

int samples_command(const Arguments& args) {
  const auto options = parse_samples(args);
  if (!options) return 0;
  if (launched() && !first_of_job()) return 0;  // one process does it
  ignore_lost_readers();
  const StopSignal signal;
  ProgressLine line(5);
  const auto result = data::prepare_supervised(*options, [&](std::int64_t lines) {
    end_if_interrupted("interrupted; nothing was written");
    line.update("samples: " + counted(lines, "line"));
  });
  line.finish();
  print_result(*options, result);
  return 0;
}

}  // namespace ratplus::apps
