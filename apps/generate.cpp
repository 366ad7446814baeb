// ratplus generate: text from a model: to the terminal as it comes, or for a file of requests over all ranks.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "apps/command_line.h"
#include "apps/format.h"
#include "apps/interrupted.h"
#include "apps/line_progress.h"
#include "apps/model_options.h"
#include "apps/output.h"
#include "apps/parse_seed.h"
#include "apps/with_ranks.h"
#include "base/elapsed_time.h"
#include "base/error.h"
#include "base/json_dump.h"
#include "base/stop_signal.h"
#include "base/units.h"
#include "data/tokenizer/token_numbers.h"
#include "lib/generate/generator.h"
#include "lib/generate/model_identity.h"
#include "lib/generate/request_lines.h"
#include "lib/generate/stop_strings.h"
#include "lib/infer/inference.h"
#include "lib/weights/source.h"

namespace ratplus::apps {
namespace {

namespace po = boost::program_options;
using generate::Settings;

constexpr const char* generate_help =
    R"(usage: ratplus generate CHECKPOINT [--prompt TEXT ...] [--pattern D,W,I] [options]
       mpirun -n 8 ratplus generate CHECKPOINT --input FILE.jsonl --output FILE.jsonl [options]

Continues prompts with a model. CHECKPOINT is a checkpoint's directory, a run's (then its newest), a file of PyTorch's
(.pth), or safetensors. Without a prompt, each line typed at a terminal is one (Ctrl-C ends an answer, Ctrl-C or Ctrl-D at
the prompt ends the program), and all of a piped standard input is one, without its last line end. Text appears as it
comes; speed and the bytes of the caches follow on standard error.
Answers are greedy unless --temperature says otherwise. They depend on the model, the prompt and the options alone: not on
other prompts beside them, nor on the number of ranks.
With --input, every line {"prompt": "..."} or {"tokens": [...]}, with "id", "meta" and any option by name
({"max_tokens": 32, "stop": ["\n"]}), gives a line of the output. Interrupted, the same command goes on where it stopped.
docs/generation.md describes lines, options and what a pattern keeps of a sequence.

)";

constexpr const char* generate_help_end = R"(
examples:
  ratplus generate runs/quickstart/adapt-d16 --prompt "The idea of"
  ratplus generate ratplus-1b.pth --tokenizer tokenizer.model --pattern 16,256,4 --temperature 0.8 --top-p 0.95
  ratplus generate runs/adapt --tokens "318 262 11" --max-tokens 16
  mpirun -n 8 ratplus generate runs/adapt --input questions.jsonl --output answers.jsonl --max-tokens 64
)";

struct GenerateArguments {
  std::string checkpoint;
  ModelOptions model;
  EngineOptions engine;
  Settings settings;
  std::vector<std::string> prompts;
  std::vector<std::string> token_prompts;
  std::string input, output;
  std::string prompt_template, keep;
  generate::LineForm form;
  bool force = false;

  bool has_prompts() const { return !prompts.empty() || !token_prompts.empty(); }
};

std::pair<std::int32_t, float> parse_bias(const std::string& text) {
  std::int32_t token = 0;
  double bias = 0;
  const char* const end = text.data() + text.size();
  auto read = std::from_chars(text.data(), end, token);
  if (read.ec == std::errc{} && read.ptr != end && *read.ptr == ':') {
    read = std::from_chars(read.ptr + 1, end, bias);
    if (read.ec == std::errc{} && read.ptr == end) return {token, static_cast<float>(bias)};
  }
  throw po::error(fmt::format("--logit-bias {} is not TOKEN:NUMBER, as 17:-2.5", text));
}

std::optional<GenerateArguments> parse_generate(const Arguments& args) {
  GenerateArguments parsed;
  auto& settings = parsed.settings;
  auto& sampling = settings.sampling;
  std::vector<std::string> biases;
  std::int64_t max_tokens = 0, log_probabilities = 0;
  std::string cut = "none", trim = "none", seed;
  bool spare_prompt = false;
  po::options_description options("options", 110, 70);
  auto add = options.add_options();
  add("pattern", po::value(&parsed.model.request.pattern)->value_name("D,W,I"),
      "the attention pattern (as of `ratplus eval`); default: the one the checkpoint was trained with");
  add("prompt", po::value(&parsed.prompts)->composing()->value_name("TEXT"), "a prompt; may be given again");
  add("tokens", po::value(&parsed.token_prompts)->composing()->value_name("NUMBERS"),
      "a prompt as token numbers, which needs no tokenizer: the answer is numbers; may be given again");
  add("input", po::value(&parsed.input)->value_name("FILE"),
      "requests, one JSON object a line (also .gz, .zst)");
  add("output", po::value(&parsed.output)->value_name("FILE"),
      "with --input: the answers, in the order of the requests");
  add("prompt-template", po::value(&parsed.prompt_template)->value_name("FILE"),
      "with --input: the prompt, with a line's fields as {input} in it; FILE.json#KEY: the text under a key");
  add("keep", po::value(&parsed.keep)->value_name("FIELDS"),
      "with --input: fields of a line that go to its result, apart by commas");
  add("text-field", po::value(&parsed.form.text_field)->value_name("NAME"),
      "with --input: the result's field with the answer's text; default: text");
  add("force", po::bool_switch(&parsed.force), "with --input: replace an output that is there");
  add("max-tokens", po::value(&max_tokens)->value_name("N"),
      "tokens of an answer at most; default: 128, or as many as the sequence has room for");
  add("temperature", po::value(&sampling.temperature)->value_name("X"),
      "0 (default): always the likeliest token; else logits are divided by it, and tokens drawn");
  add("top-k", po::value(&sampling.top_k)->value_name("K"),
      "draw from the K likeliest tokens; 0 (default): all");
  add("top-p", po::value(&sampling.top_p)->value_name("P"),
      "draw from the likeliest tokens that together have this probability; default: 1");
  add("min-p", po::value(&sampling.min_p)->value_name("P"),
      "leave out tokens below this share of the likeliest one's probability; default: 0");
  add("repetition-penalty", po::value(&sampling.repetition_penalty)->value_name("R"),
      "divide positive logits of tokens that occurred by R, and multiply negative ones; default: 1");
  add("spare-prompt", po::bool_switch(&spare_prompt),
      "the repetition penalty is for generated tokens alone, as in the papers' LongBench");
  add("presence-penalty", po::value(&sampling.presence_penalty)->value_name("X"),
      "subtract X from the logits of tokens that were generated; default: 0");
  add("frequency-penalty", po::value(&sampling.frequency_penalty)->value_name("X"),
      "subtract X for each time that a token was generated; default: 0");
  add("logit-bias", po::value(&biases)->composing()->value_name("TOKEN:X"),
      "add X to the token's logit; may be given again");
  add("ban", po::value(&sampling.banned)->composing()->value_name("TOKEN"),
      "a token number that is never drawn; may be given again");
  add("seed", po::value(&seed)->value_name("N"),
      "of the random numbers; default: 0. Prompt i, from 0, draws with N + i");
  add("n", po::value(&settings.answers)->value_name("N"),
      "answers to each prompt, with a temperature; default: 1");
  add("stop", po::value(&settings.stop)->composing()->value_name("TEXT"),
      "end the answer before this text; may be given again");
  add("stop-token", po::value(&settings.stop_tokens)->composing()->value_name("TOKEN"),
      "end the answer at this token number; may be given again");
  add("ignore-end-of-text", po::bool_switch(&settings.ignore_end_of_text),
      "go on after the tokenizer's end of a text, which else ends the answer");
  add("log-probabilities", po::value(&log_probabilities)->value_name("N"),
      "give the log-probability of each token, and of the N likeliest (0 to 20)");
  add("echo", po::bool_switch(&settings.echo), "give the prompt before the answer");
  add("return-tokens", po::bool_switch(&settings.return_tokens),
      "with --input: token numbers beside the text");
  add("trim", po::value(&trim)->value_name("blank|lines|none"),
      "leave out the blank that joins the answer to the prompt (blank), and newlines after it (lines); "
      "default: none");
  add("cut", po::value(&cut)->value_name("left|middle"),
      "a prompt without room for --max-tokens more loses its beginning (left) or its middle; default: it is "
      "refused");
  add_engine_options(options, parsed.engine);
  add_sequence_options(options, parsed.model);
  add_device_options(options, parsed.model);
  const Positional checkpoint{"checkpoint", 1, po::value(&parsed.checkpoint), "a checkpoint is missing",
                              "CHECKPOINT"};
  const auto given = parse_command_line(args, options, checkpoint, {generate_help, generate_help_end});
  if (!given) return std::nullopt;
  check_model_options(*given, parsed.model);
  if (given->contains("max-tokens")) {
    if (max_tokens < 1) throw po::error(fmt::format("--max-tokens {} is not positive", max_tokens));
    settings.max_tokens = max_tokens;
  }
  if (given->contains("log-probabilities")) settings.log_probabilities = log_probabilities;
  if (given->contains("seed")) sampling.seed = parse_seed(seed);
  for (const auto& text : biases) sampling.biases.push_back(parse_bias(text));
  sampling.penalize_prompt = !spare_prompt;
  as_usage_error([&] {
    settings.cut = generate::parse_cut(cut, "--cut");
    settings.trim = generate::parse_trim(trim, "--trim");
    generate::check_stop_strings(settings.stop, "--stop");
  });
  check_engine_options(*given, parsed.engine);
  if (parsed.input.empty() != parsed.output.empty()) throw po::error("--input and --output go together");
  if (!parsed.input.empty() && parsed.has_prompts())
    throw po::error("--input is a file of prompts; leave --prompt and --tokens out");
  if (!parsed.prompts.empty() && !parsed.token_prompts.empty())
    throw po::error("--prompt and --tokens are two kinds of prompts; give one of them");
  for (const char* option : {"force", "return-tokens"}) {
    if (parsed.input.empty() && (*given)[option].as<bool>())
      throw po::error(fmt::format("--{} goes with --input", option));
  }
  for (const char* option : {"prompt-template", "keep", "text-field"}) {
    if (parsed.input.empty() && given->contains(option))
      throw po::error(fmt::format("--{} goes with --input", option));
  }
  for (std::size_t begin = 0; begin < parsed.keep.size();) {
    const auto end = std::min(parsed.keep.find(',', begin), parsed.keep.size());
    parsed.form.kept.push_back(parsed.keep.substr(begin, end - begin));
    begin = end + 1;
  }
  as_usage_error([&] { parsed.form.check(); });
  for (const char* option : {"top-k", "top-p", "min-p"}) {
    if (parsed.input.empty() && given->contains(option) && sampling.temperature == 0)
      throw po::error(fmt::format(
          "--{} has no effect at temperature 0, which takes the likeliest token; give --temperature",
          option));
  }
  return parsed;
}

/// A model with its engine and its tokenizer.
struct Opened {
  infer::ResolvedModel model;
  generate::ModelText text;
  std::unique_ptr<infer::Inference> inference;

  infer::Engine& engine() const { return inference->engine(); }
};

void resolve(const GenerateArguments& args, const parallel::World& world, Opened& opened) {
  const auto checkpoint = world.from_root([&] { return weights::resolve(args.checkpoint).string(); });
  world.agree([&] {
    opened.model = infer::resolve(args.model.request, checkpoint);
    opened.text = generate::find_text(opened.model.info(), args.model.tokenizer, args.model.end_of_text);
  });
  if (world.root() && !opened.model.note.empty())
    fmt::print(stderr, "ratplus: note: {}\n", opened.model.note);
}

// --- the terminal ------------------------------------------------------------------------------------------------

/// Writes at once. Throws Error where standard output cannot be written.
void show(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    fail("cannot write to standard output: {}", std::strerror(errno));
}

/// Several requests at a terminal: computed together, shown one after the other.
class Conversation {
 public:
  Conversation(const Opened& opened, bool numbers)
      : opened_(opened), numbers_(numbers), generator_(opened.engine(), opened.text) {}

  generate::GenerationRequest checked(generate::GenerationRequest request, const std::string& where) const {
    return generator_.checked(std::move(request), where);
  }

  /// Returns the signal that ended it; 0: none did.
  int answer(const std::vector<generate::GenerationRequest>& requests, const std::string& where) {
    forget();
    for (const auto& request : requests) {
      const auto number = generator_.add(request, where);
      for (std::int64_t i = 0; i < request.settings.answers; ++i) shown_.push_back({&request, number, i});
    }
    at_ = 0;
    begin();
    const ElapsedTime time;
    std::int64_t generated = 0, bytes = 0;
    double first_tokens = 0;
    std::vector<bool> begun(shown_.size());
    while (!generator_.idle() && StopSignal::received() == 0) {
      const auto pieces = generator_.step();
      bytes = std::max(bytes, opened_.engine().caches().bytes_in_use());
      for (const auto& piece : pieces) {
        const auto i = index_of(piece);
        if (!begun[i]) first_tokens = time.seconds();
        begun[i] = true;
        ++generated;
        take(i, piece);
      }
    }
    const int stopped = StopSignal::received();
    if (stopped != 0) show("\n");
    report(requests, time.seconds(), first_tokens, generated, std::ranges::count(begun, true), bytes);
    forget();
    return stopped;
  }

 private:
  struct Shown {
    const generate::GenerationRequest* asked;
    std::int64_t request;
    std::int64_t answer;
    std::string waiting = {};  ///< of a later answer than the one that is shown
    bool ended = false;
  };

  /// Ends the requests before: also those of answers that failed, whose tokens would come among the next ones.
  void forget() {
    for (const auto& x : std::exchange(shown_, {})) {
      if (x.answer != 0) continue;
      generator_.cancel(x.request);
      generator_.take(x.request);
    }
  }

  std::size_t index_of(const generate::AnswerPiece& piece) const {
    const auto found = std::ranges::find_if(
        shown_, [&](const Shown& x) { return x.request == piece.request && x.answer == piece.answer; });
    return static_cast<std::size_t>(found - shown_.begin());
  }

  void begin() {
    const auto& x = shown_[at_];
    if (shown_.size() > 1) {
      show(fmt::format("{}--- prompt {}{}\n", at_ == 0 ? "" : "\n", x.request - shown_.front().request + 1,
                       x.asked->settings.answers > 1 ? fmt::format(", answer {}", x.answer + 1) : ""));
    }
    if (x.asked->settings.echo) show(numbers_ ? data::to_text(x.asked->prompt) + " " : x.asked->prompt_text);
  }

  void take(std::size_t i, const generate::AnswerPiece& piece) {
    auto& x = shown_[i];
    x.waiting += numbers_ ? fmt::format("{} ", piece.token) : piece.text;
    x.ended = piece.finish != generate::Finish::none;
    while (at_ < shown_.size()) {
      auto& now = shown_[at_];
      show(std::exchange(now.waiting, {}));
      if (!now.ended) return;
      show("\n");
      if (now.asked->settings.log_probabilities) show_log_probabilities(now);
      if (++at_ < shown_.size()) begin();
    }
  }

  std::string name_of(std::int32_t token) const {
    std::string name = fmt::format("{}", token);
    const auto& tokenizer = opened_.text.tokenizer;
    if (tokenizer && token < tokenizer->vocab_size())
      name += " " + json_dump(nlohmann::json(tokenizer->decode(std::vector{token})));
    return name;
  }

  void show_log_probabilities(const Shown& x) {
    const auto& answer = generator_.answers(x.request)[static_cast<std::size_t>(x.answer)];
    for (std::size_t i = 0; i < answer.tokens.size(); ++i) {
      std::string line = fmt::format("{:9.4f}  {}", answer.log_probabilities[i], name_of(answer.tokens[i]));
      for (const auto& [token, value] : answer.top[i])
        line += fmt::format("   {:.4f} {}", value, name_of(token));
      show(line + "\n");
    }
  }

  /// The time of the prompts is that until the last first token; further tokens take the rest.
  void report(const std::vector<generate::GenerationRequest>& requests, double seconds, double first_tokens,
              std::int64_t generated, std::int64_t begun, std::int64_t bytes) const {
    std::int64_t prompts = 0;
    for (const auto& request : requests) prompts += std::ssize(request.prompt) * request.settings.answers;
    std::string line = counted(prompts, "prompt token");
    if (first_tokens > 0) line += fmt::format(" ({} tokens/s)", format_count(double(prompts) / first_tokens));
    line += fmt::format(", {}", counted(generated, "generated token"));
    if (generated > begun && seconds > first_tokens)
      line +=
          fmt::format(" ({} tokens/s)", format_count(double(generated - begun) / (seconds - first_tokens)));
    fmt::print(stderr, "{}, caches of {}\n", line, format_bytes(bytes));
  }

  const Opened& opened_;
  bool numbers_;
  generate::Generator generator_;
  std::vector<Shown> shown_;
  std::size_t at_ = 0;  ///< the answer that is shown
};

std::string standard_input() {
  std::string all{std::istreambuf_iterator<char>(std::cin), {}};
  if (all.ends_with('\n')) all.pop_back();
  if (all.ends_with('\r')) all.pop_back();
  if (all.empty())
    fail("there is no prompt; give --prompt TEXT, --tokens NUMBERS, or text on standard input");
  return all;
}

int converse(Conversation& conversation, const Opened& opened, Settings settings) {
  fmt::print(stderr, "{}, {}; Ctrl-C ends an answer, Ctrl-D the program\n",
             opened.model.info().directory.string(), opened.model.plan.describe());
  for (;;) {
    std::fputs("> ", stderr);
    std::string line;
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    int stopped = 0;
    try {
      const StopSignal signal;
      stopped = conversation.answer(
          {conversation.checked(generate::request_of_text(line, opened.text, settings, "the prompt"),
                                "the prompt")},
          "the prompt");
    } catch (const Error& error) {
      if (std::ferror(stdout) != 0) throw;  // nobody gets answers
      print_error(error.what());
    }
    if (stopped != 0 && stopped != SIGINT) return ended_by(stopped);
    ++settings.sampling.seed;
  }
  std::fputs("\n", stderr);
  return 0;
}

int generate_at_terminal(const GenerateArguments& args, const parallel::World& world) {
  if (world.size() > 1) {
    throw parallel::AgreedError(fmt::format(
        "{} were started, and one generates for a terminal; start one, or give the prompts in a file "
        "(--input)",
        counted(world.size(), "rank")));
  }
  Opened opened;
  resolve(args, world, opened);
  const bool numbers = !args.token_prompts.empty();
  const bool interactive = !args.has_prompts() && ::isatty(STDIN_FILENO) != 0;
  if (!numbers) opened.text.required();
  if (numbers && opened.text.end_of_text < 0 && !args.settings.ignore_end_of_text)
    fmt::print(
        stderr,
        "ratplus: note: no token is known that ends a text; answers end at --max-tokens or --stop-token\n");
  std::vector<generate::GenerationRequest> requests;
  std::vector<std::string> texts = args.prompts;
  if (!args.has_prompts() && !interactive) texts.push_back(standard_input());
  const auto settings_of = [&](std::size_t i) {
    auto settings = args.settings;
    settings.sampling.seed += i;
    return settings;
  };
  for (std::size_t i = 0; i < texts.size(); ++i)
    requests.push_back(generate::request_of_text(texts[i], opened.text, settings_of(i), "--prompt"));
  for (std::size_t i = 0; i < args.token_prompts.size(); ++i) {
    requests.push_back(
        generate::request_of_tokens(data::parse_tokens(args.token_prompts[i], opened.model.config.vocab_size),
                                    opened.text, settings_of(i), "--tokens"));
    if (settings_of(i).stop.empty()) requests.back().as_text = false;
  }
  auto engine = args.engine.request;
  const auto wanted = args.settings.answers * std::max<std::int64_t>(std::ssize(requests), 1);
  constexpr std::int64_t usual = 64;
  if (engine.slots == 0) engine.slots = std::clamp<std::int64_t>(wanted, 1, usual);
  opened.inference = std::make_unique<infer::Inference>(opened.model, engine, world);
  Conversation conversation(opened, numbers);
  const std::string where = numbers ? "--tokens" : texts == args.prompts ? "--prompt" : "standard input";
  for (auto& request : requests) request = conversation.checked(std::move(request), where);
  opened.inference->load();
  if (interactive) return converse(conversation, opened, args.settings);
  const StopSignal signal;
  const int stopped = conversation.answer(requests, where);
  return stopped == 0 ? 0 : ended_by(stopped);
}

// --- files -------------------------------------------------------------------------------------------------------

nlohmann::ordered_json identity_of(const GenerateArguments& args, const Opened& opened) {
  auto identity =
      generate::model_identity("generate", opened.model, opened.text, opened.inference->arithmetic());
  identity["options"] = generate::to_json(args.settings);
  if (const auto form = args.form.to_json(); !form.is_null()) identity["lines"] = form;
  return identity;
}

int generate_file(GenerateArguments args, const parallel::World& world) {
  const StopSignal signal;
  Opened opened;
  resolve(args, world, opened);
  std::optional<generate::InputLines> input;
  world.agree([&] {
    input.emplace(args.input);
    if (!args.prompt_template.empty())
      args.form.prompt = generate::PromptTemplate::read(args.prompt_template);
  });
  generate::LineJob job{.input = *input,
                        .output = args.output,
                        .print = {},
                        .identity = {},
                        .replace = args.force,
                        .command = "`ratplus generate`"};
  world.agree([&] { generate::check_output_file(job); });
  opened.inference = std::make_unique<infer::Inference>(opened.model, args.engine.request, world);
  job.identity = identity_of(args, opened);
  generate::RequestLines worker(*input, args.settings, opened.text, opened.engine(), args.form);
  generate::check_lines(*input, worker, world);
  world.agree([&] { opened.inference->load(); });
  return do_lines_with_progress(job, worker, world, "generating", [](const auto&) {});
}

}  // namespace

int generate_command(const Arguments& args) {
  const auto parsed = parse_generate(args);
  if (!parsed) return 0;
  return with_ranks([&](const parallel::World& world) {
    return parsed->input.empty() ? generate_at_terminal(*parsed, world) : generate_file(*parsed, world);
  });
}

}  // namespace ratplus::apps
