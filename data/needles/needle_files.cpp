#include "data/needles/needle_files.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/files/byte_file.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "data/dataset/sample_shard.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// The most frequent words of prose are left out of keys, since it is full of them.
constexpr std::int64_t words_skipped = 100, most_words = 2000;

/// The words of a file, one a line.
std::vector<std::string> word_list(const fs::path& file) {
  std::vector<std::string> words;
  const std::string bytes = read_whole_file(file);
  for (std::size_t at = 0; at < bytes.size();) {
    auto end = bytes.find('\n', at);
    if (end == std::string::npos) end = bytes.size();
    std::string word = bytes.substr(at, end - at);
    if (word.ends_with('\r')) word.pop_back();
    if (word.find_first_not_of(" \t") != std::string::npos) words.push_back(std::move(word));
    at = end + 1;
  }
  if (words.empty()) fail("{}: holds no word; give a file with one word a line", file.string());
  return words;
}

KeyWords key_words(const NeedleOptions& options, const Prose& prose) {
  KeyWords words;
  if (!options.nouns.empty()) {
    words.second = word_list(options.nouns);
    if (options.key_words == 2) words.first = word_list(options.adjectives);
  } else {
    words.second = prose.frequent_words(words_skipped, most_words);
    if (options.key_words == 2) words.first = words.second;
  }
  return words;
}

void check_options(const NeedleOptions& options) {
  const NeedleSettings& settings = options.settings;
  if (options.output.empty())
    fail("no output; name {} with --output",
         options.format == NeedleFormat::ruler ? "a directory" : "a file of JSON lines");
  if (options.tokenizer.empty()) fail("no tokenizer; give the model's with --tokenizer");
  if (settings.length < 1)
    fail("--sequence-length {} is not positive; give the tokens of prompt and answer together",
         settings.length);
  if (settings.answer_tokens < 1) fail("--answer-tokens {} is not positive", settings.answer_tokens);
  if (settings.digits < 1 || settings.digits > 18) fail("--digits {} is outside 1 to 18", settings.digits);
  if (settings.questions < 1) fail("--questions {} is not positive", settings.questions);
  if (settings.questions > 1 && options.format != NeedleFormat::samples) {
    fail("--questions {} goes with --format samples: an answer is generated to one question",
         settings.questions);
  }
  if (options.samples < 1) fail("--samples {} is not positive", options.samples);
  if (options.key_words != 1 && options.key_words != 2)
    fail("--key-words {} is neither 1 nor 2", options.key_words);
  if (options.nouns.empty() != options.adjectives.empty() && options.key_words == 2)
    fail("--adjectives and --nouns go together: a key is one of each");
  if (options.nouns.empty() && !options.adjectives.empty()) fail("--adjectives goes with --nouns");
  for (std::size_t i = 0; i < options.tasks.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (options.tasks[i].name == options.tasks[j].name)
        fail("task {} is given twice; give it another name, or leave one out", options.tasks[i].name);
    }
  }
}

std::vector<fs::path> files_of(const NeedleOptions& options) {
  if (options.format != NeedleFormat::ruler) return {options.output};
  std::vector<fs::path> files;
  for (const NeedleTask& task : options.tasks)
    files.push_back(options.output / task.name / (options.settings.subset + ".jsonl"));
  return files;
}

class Lines {
 public:
  Lines(const NeedleOptions& options, const Tokenizer& tokenizer)
      : options_(options), tokenizer_(tokenizer) {}

  std::string line(const NeedleMaker& maker, std::int64_t number, std::int64_t& length) const {
    const NeedleSample sample = maker.make(number);
    length = sample.length;
    switch (options_.format) {
      case NeedleFormat::ruler:
        return json_dump(ruler(maker, number, sample));
      case NeedleFormat::requests:
        return json_dump(request(maker, number, sample));
      case NeedleFormat::samples:
        return json_dump(tuning(sample));
    }
    return {};
  }

 private:
  Json ruler(const NeedleMaker& maker, std::int64_t number, const NeedleSample& sample) const {
    Json json;
    json["index"] = number;
    json["input"] = sample.input;
    json["outputs"] = sample.questions.front().outputs;
    json["length"] = sample.length;
    json["length_w_model_temp"] = sample.length;
    json["answer_prefix"] = options_.answer_prefix ? sample.answer_prefix : "";
    json["token_position_answer"] = maker.tokens(std::string_view(sample.input).substr(0, sample.answer_at));
    return json;
  }

  Json request(const NeedleMaker& maker, std::int64_t number, const NeedleSample& sample) const {
    const std::int64_t before = maker.tokens(std::string_view(sample.input).substr(0, sample.answer_at));
    const std::string prompt = options_.answer_prefix ? sample.input + sample.answer_prefix : sample.input;
    const std::int64_t all = maker.tokens(prompt);
    Json json;
    json["id"] = fmt::format("{}/{}", maker.task().name, number);
    json["prompt"] = prompt;
    json["meta"] = Json{{"task", maker.task().name},
                        {"outputs", sample.questions.front().outputs},
                        {"keys", sample.keys},
                        {"depth", (200 * before + all) / (2 * all)},
                        {"distance", all - before}};
    return json;
  }

  Json tuning(const NeedleSample& sample) const {
    if (options_.settings.questions == 1)
      return Json{{"prompt", sample.input}, {"completion", sample.questions.front().completion}};
    std::vector<std::int32_t> tokens, labels;
    std::string prompt = sample.input;
    for (std::size_t i = 0; i < sample.questions.size(); ++i) {
      if (i > 0) prompt = sample.questions[i].text;
      std::vector<std::int32_t> question, answer;
      tokenizer_.encode(prompt, question);
      if (options_.settings.wording == NeedleWording::brief) {
        // The tokens that the answer has in the needle, where it follows the same words.
        std::vector<std::int32_t> both;
        tokenizer_.encode(prompt + sample.questions[i].completion, both);
        const auto differ = std::ranges::mismatch(question, both);
        question.erase(differ.in1, question.end());
        answer.assign(differ.in2, both.end());
      } else {
        tokenizer_.encode(sample.questions[i].completion, answer);
      }
      answer.push_back(tokenizer_.end_of_text());
      tokens.insert(tokens.end(), question.begin(), question.end());
      labels.insert(labels.end(), question.size(), ignored_label);
      tokens.insert(tokens.end(), answer.begin(), answer.end());
      labels.insert(labels.end(), answer.begin(), answer.end());
    }
    return Json{{"tokens", tokens}, {"labels", labels}};
  }

  const NeedleOptions& options_;
  const Tokenizer& tokenizer_;
};

/// A file of lines on its way.
struct Output {
  explicit Output(const fs::path& file) : pending(file), writer(pending.path(), file) {}
  PendingFile pending;
  ByteWriter writer;
};

}  // namespace

const char* to_string(NeedleFormat format) {
  switch (format) {
    case NeedleFormat::ruler:
      return "ruler";
    case NeedleFormat::requests:
      return "requests";
    case NeedleFormat::samples:
      return "samples";
  }
  return "";
}

NeedleFormat parse_needle_format(std::string_view name) {
  for (const NeedleFormat format : {NeedleFormat::ruler, NeedleFormat::requests, NeedleFormat::samples}) {
    if (name == to_string(format)) return format;
  }
  fail("--format {}: there are {}, {} and {}", name, to_string(NeedleFormat::ruler),
       to_string(NeedleFormat::requests), to_string(NeedleFormat::samples));
}

NeedleResult write_needles(const NeedleOptions& options, const std::function<void(std::int64_t)>& report) {
  check_options(options);
  NeedleResult result;
  result.files = files_of(options);
  for (const fs::path& file : result.files) {
    if (fs::is_directory(file)) fail("{}: is a directory; name a file", file.string());
    if (fs::exists(file) && !options.force)
      fail("{}: is there already; give another --output, or --force to replace it", file.string());
  }
  const Tokenizer tokenizer(options.tokenizer, options.end_of_text);
  if (options.settings.questions > 1) static_cast<void>(tokenizer.end_of_text());
  const Prose prose =
      options.prose.empty() ? Prose() : Prose::read(options.prose, options.text_key, &result.notes);
  const KeyWords words = key_words(options, prose);
  std::vector<NeedleMaker> makers;
  makers.reserve(options.tasks.size());
  for (const NeedleTask& task : options.tasks) {
    makers.emplace_back(task, options.settings, tokenizer, prose, words);
    result.tasks.push_back({.name = task.name, .haystack = makers.back().haystack()});
    report(0);
  }

  for (const fs::path& file : result.files) {
    if (file.has_parent_path()) fs::create_directories(file.parent_path());
  }
  std::vector<std::unique_ptr<Output>> outputs;
  for (const fs::path& file : result.files) outputs.push_back(std::make_unique<Output>(file));
  const Lines lines(options, tokenizer);
  const auto tasks = std::ssize(makers), all = tasks * options.samples;
  constexpr std::int64_t chunk = 256;
  std::vector<std::string> texts(chunk);
  std::vector<std::int64_t> lengths(chunk);
  for (std::int64_t begin = 0; begin < all; begin += chunk) {
    const std::int64_t count = std::min(chunk, all - begin);
    const auto task_of = [&](std::int64_t i) {
      return options.format == NeedleFormat::samples ? i % tasks : i / options.samples;
    };
    const auto number_of = [&](std::int64_t i) {
      return options.format == NeedleFormat::samples ? i / tasks : i % options.samples;
    };
    std::exception_ptr trouble;
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t i = 0; i < count; ++i) {
      try {
        const auto at = static_cast<std::size_t>(i);
        texts[at] = lines.line(makers[static_cast<std::size_t>(task_of(begin + i))], number_of(begin + i),
                               lengths[at]);
      } catch (...) {
#pragma omp critical(needles_trouble)
        trouble = std::current_exception();
      }
    }
    if (trouble) std::rethrow_exception(trouble);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto task = static_cast<std::size_t>(task_of(begin + i));
      auto& writer = outputs[outputs.size() == 1 ? 0 : task]->writer;
      writer.write(texts[static_cast<std::size_t>(i)]);
      writer.write("\n");
      auto& of_task = result.tasks[task];
      const std::int64_t length = lengths[static_cast<std::size_t>(i)];
      of_task.shortest = of_task.samples == 0 ? length : std::min(of_task.shortest, length);
      of_task.longest = std::max(of_task.longest, length);
      ++of_task.samples;
    }
    report(begin + count);
  }
  for (auto& output : outputs) {
    output->writer.close();
    output->pending.commit();
  }
  return result;
}

}  // namespace ratplus::data
