// ratplus needles: retrieval tasks of RULER's kind, from any prose.
#include <fmt/core.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "apps/command_line.h"
#include "apps/interrupted.h"
#include "apps/parse_seed.h"
#include "apps/progress_line.h"
#include "base/error.h"
#include "base/stop_signal.h"
#include "base/units.h"
#include "data/needles/needle_files.h"
#include "lib/generate/tokenizer_of.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;

constexpr const char* needles_help =
    R"(usage: ratplus needles [PROSE...] --output PATH --tokenizer MODEL --sequence-length T [options]

Makes tasks that hide needles ("One of the special magic numbers for long-kayak is: 1234567.") in a long text and ask for
them: RULER's eight NIAH tasks, or others of their form. PROSE (.txt, .jsonl, .parquet; .gz, .zst; directories) gives the
text of the haystack "essay", and words for keys. A prompt and --answer-tokens take at most T tokens of the tokenizer.
Samples are a function of --seed, --subset, task and number, whatever the threads.

tasks:
  niah_single_1 niah_single_2 niah_single_3 niah_multikey_1 niah_multikey_2 niah_multikey_3 niah_multivalue niah_multiquery
  NAME=HAYSTACK,KEYS,VALUES,K,V,Q   a task of your own: haystack noise, essay or needle; keys and values words, numbers or
                                    uuids; K keys of V values in the text; a question for Q keys
formats:
  requests   lines of `ratplus generate --input`, of which `ratplus score` takes the answers; PATH is a file
  samples    lines of `ratplus samples`, for fine-tuning; PATH is a file
  ruler      PATH/TASK/SUBSET.jsonl, as RULER's own client reads

)";

constexpr const char* needles_help_end = R"(
examples:
  ratplus needles books/ --tokenizer tokenizer.model --sequence-length 4096 --output niah.jsonl
  ratplus needles books/ --tokenizer tokenizer.model --sequence-length 4096 --format samples --subset train \
    --samples 2250 --output niah-train.jsonl
  ratplus needles books/ --tokenizer tokenizer.json --sequence-length 1024 --wording brief --digits 2 --key-words 1 \
    --task four=essay,words,numbers,4,1,1 --answer-tokens 8 --output four.jsonl
)";

std::optional<data::NeedleOptions> parse_needles(const Arguments& args) {
  data::NeedleOptions options;
  data::NeedleSettings& settings = options.settings;
  settings.length = 0;
  std::vector<std::string> inputs, tasks;
  std::string output, tokenizer, adjectives, nouns, seed;
  std::string format = to_string(options.format), wording = to_string(settings.wording);
  po::options_description description("options", 110, 70);
  auto add = description.add_options();
  add("output,o", po::value(&output)->value_name("PATH"),
      "the file of lines, or with --format ruler a directory");
  add("tokenizer", po::value(&tokenizer)->value_name("MODEL"),
      "the tokenizer by which lengths are counted: a file, a dataset, a checkpoint or a run");
  add("end-of-text", po::value(&options.end_of_text)->value_name("TOKEN"),
      "the token that ends a text, if the tokenizer's file does not name it");
  add("text-key", po::value(&options.text_key)->value_name("KEY"),
      "of PROSE in JSON lines or Parquet; default: text");
  add("sequence-length", po::value(&settings.length)->value_name("T"),
      "tokens of a prompt and its answer at most");
  add("answer-tokens", po::value(&settings.answer_tokens)->value_name("N"),
      "tokens kept free for the answer; default: 128");
  add("task", po::value(&tasks)->composing()->value_name("TASK"),
      "a task, as above; may be given again; default: RULER's eight");
  add("format", po::value(&format)->value_name("FORMAT"), "requests (default), samples or ruler");
  add("samples", po::value(&options.samples)->value_name("N"), "samples of each task; default: 500");
  add("subset", po::value(&settings.subset)->value_name("NAME"),
      "validation (default), train or another word: two subsets share no sample, whatever their seeds");
  add("seed", po::value(&seed)->value_name("N"), "of the random numbers; default: 42");
  add("wording", po::value(&wording)->value_name("WORDING"),
      "ruler (default), or brief: \"The number of river is 48.\", asked as \"The number of river is\"");
  add("digits", po::value(&settings.digits)->value_name("N"), "digits of a number; default: 7");
  add("key-words", po::value(&options.key_words)->value_name("N"),
      "words of a key, 2 (default: adjective-noun) or 1 (noun)");
  add("adjectives", po::value(&adjectives)->value_name("FILE"),
      "words of keys, one a line; default: frequent words of PROSE");
  add("nouns", po::value(&nouns)->value_name("FILE"),
      "words of keys, one a line; default: frequent words of PROSE");
  add("questions", po::value(&settings.questions)->value_name("N"),
      "with --format samples: questions with answers a sample at most, each for other keys of its text; "
      "default: 1");
  add("same-prose", po::bool_switch(&settings.same_prose),
      "each essay is the beginning of PROSE, as RULER's; default: it begins anywhere");
  add("answer-prefix", po::bool_switch(&options.answer_prefix),
      "requests, ruler: give RULER's beginning of the answer, for models that were not fine-tuned");
  add("force", po::bool_switch(&options.force), "replace what is there");
  const Positional input{"prose", -1, po::value(&inputs), nullptr, "PROSE"};
  const auto given = parse_command_line(args, description, input, {needles_help, needles_help_end});
  if (!given) return std::nullopt;
  if (given->contains("seed")) settings.seed = parse_seed(seed);
  options.prose.assign(inputs.begin(), inputs.end());
  options.output = output;
  options.tokenizer = generate::tokenizer_of(tokenizer);
  options.adjectives = adjectives;
  options.nouns = nouns;
  as_usage_error([&] {
    options.format = data::parse_needle_format(format);
    settings.wording = data::parse_needle_wording(wording);
    for (const std::string& task : tasks) options.tasks.push_back(data::parse_needle_task(task));
  });
  if (options.tasks.empty()) options.tasks = data::ruler_needle_tasks();
  return options;
}

const char* unit_of(data::Haystack haystack) {
  return haystack == data::Haystack::essay ? "word" : haystack == data::Haystack::noise ? "line" : "needle";
}

void print_result(const data::NeedleOptions& options, const data::NeedleResult& result) {
  for (const std::string& note : result.notes) fmt::print("{}\n", note);
  for (std::size_t t = 0; t < result.tasks.size(); ++t) {
    const auto& task = result.tasks[t];
    fmt::print("{}: {} of {} to {} tokens, the answer's {} included, in a text of {}\n", task.name,
               counted(task.samples, "sample"), task.shortest, task.longest, options.settings.answer_tokens,
               counted(task.haystack, unit_of(options.tasks[t].haystack)));
  }
  for (const auto& file : result.files) fmt::print("Wrote {}\n", file.string());
}

}  // namespace

int needles_command(const Arguments& args) {
  const auto options = parse_needles(args);
  if (!options) return 0;
  if (launched() && !first_of_job()) return 0;  // one process does it
  const StopSignal signal;
  ProgressLine line(5);
  const auto result = data::write_needles(*options, [&](std::int64_t samples) {
    end_if_interrupted("interrupted; nothing was written");
    line.update("needles: " + counted(samples, "sample"));
  });
  line.finish();
  print_result(*options, result);
  return 0;
}

}  // namespace ratplus::apps
