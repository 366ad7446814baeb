#include "data/prepare/supervised.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/files/sha256.h"
#include "base/json_dump.h"
#include "base/json_int32.h"
#include "base/parse_json.h"
#include "base/units.h"
#include "base/utf8.h"
#include "data/dataset/held_out.h"
#include "data/dataset/sample_shard.h"
#include "data/dataset/shard_series.h"
#include "data/dataset/staged_dataset.h"
#include "data/prepare/text_portions.h"
#include "data/text/json_text.h"
#include "data/text/text_source.h"
#include "data/tokenizer/tokenizer.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

/// One line: tokens, and for each whether it is to be predicted.
struct Example {
  std::vector<std::int32_t> tokens;
  std::vector<bool> counts;
  double position = 0;  ///< held_out_position of what it says, however the line is written
};

std::string_view bytes_of(const std::vector<std::int32_t>& tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(std::int32_t)};
}

std::vector<std::int32_t> integers(const Json& json, const char* key, const std::string& where) {
  if (!json.at(key).is_array()) fail("{}: \"{}\" is no list", where, key);
  std::vector<std::int32_t> values;
  for (const Json& value : json.at(key)) {
    if (!value.is_number_integer())
      fail("{}: \"{}\" holds {}, which is no integer", where, key, json_dump(value));
    const std::optional<std::int32_t> number = int32_of(value);
    if (!number) fail("{}: \"{}\" holds {}, which no token's number can be", where, key, json_dump(value));
    values.push_back(*number);
  }
  return values;
}

Example example_of_tokens(const Json& json, std::int64_t vocab_size, const std::string& where) {
  Example example{.tokens = integers(json, "tokens", where), .counts = {}};
  example.position = held_out_position(bytes_of(example.tokens));
  const std::vector<std::int32_t> labels = integers(json, "labels", where);
  if (labels.size() != example.tokens.size()) {
    fail("{}: {} and {}; give one label a token, {} where it does not count", where,
         counted(example.tokens.size(), "token"), counted(labels.size(), "label"), ignored_label);
  }
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::int32_t token = example.tokens[i];
    if (token < 0 || token >= vocab_size)
      fail("{}: token {} is outside the vocabulary of {}", where, token, vocab_size);
    if (labels[i] != token && labels[i] != ignored_label) {
      fail("{}: label {} is {}, which is neither its token {} nor {}", where, i, labels[i], token,
           ignored_label);
    }
    example.counts.push_back(labels[i] != ignored_label);
  }
  return example;
}

Example example_of_text(const Json& json, const Tokenizer& tokenizer, Encode encode,
                        const std::string& where) {
  for (const char* key : {"prompt", "completion"}) {
    if (json.contains(key) && json[key].is_string()) continue;
    fail("{}: has no text \"{}\"; give \"prompt\" and \"completion\", or \"tokens\" and \"labels\"", where,
         key);
  }
  const auto& prompt = json["prompt"].get_ref<const std::string&>();
  const auto& completion = json["completion"].get_ref<const std::string&>();
  Example example;
  std::vector<std::int32_t> of_prompt;
  tokenizer.encode(prompt, of_prompt);
  std::size_t given = of_prompt.size();
  if (encode == Encode::together) {
    tokenizer.encode(prompt + completion, example.tokens);
    // A token across the border has a part of the completion in it, so it counts, and so does what follows.
    const auto differs =
        std::mismatch(of_prompt.begin(), of_prompt.end(), example.tokens.begin(), example.tokens.end());
    given = static_cast<std::size_t>(differs.first - of_prompt.begin());
  } else {
    tokenizer.encode(completion, example.tokens);
    example.tokens.insert(example.tokens.begin(), of_prompt.begin(), of_prompt.end());
  }
  example.tokens.push_back(tokenizer.end_of_text());
  example.counts.assign(example.tokens.size(), true);
  std::fill_n(example.counts.begin(), given, false);
  example.position = held_out_position(prompt + '\0' + completion);
  return example;
}

Example parse_example(const RawDocument& raw, const Tokenizer& tokenizer, Encode encode) {
  const std::string where = fmt::format("{}, line {}", raw.file->path.string(), raw.line);
  Json json;
  try {
    json = parse_json(tame_numbers(raw.bytes));
  } catch (const Json::exception& error) {
    fail("{}: not JSON ({}); {}", where, error.what(), line_advice(raw.bytes));
  }
  if (json.is_array())
    fail("{}: a JSON array, not an object; write one object a line, as `jq -c '.[]'` does", where);
  if (!json.is_object()) fail("{}: a JSON {}, not an object", where, json.type_name());
  return json.contains("tokens") && json.contains("labels")
             ? example_of_tokens(json, tokenizer.vocab_size(), where)
             : example_of_text(json, tokenizer, encode, where);
}

/// Positions of an example in a sample: [0, head), then [tail, end).
struct KeptPositions {
  KeptPositions(std::size_t tokens, std::size_t length, Cut cut) : end(tokens) {
    const std::size_t before_last = tokens - 1;
    if (cut == Cut::middle && before_last >= length) {
      head = (length - 1) / 2;
      tail = before_last - (length - 1 - head);
    } else {
      head = tail = end = std::min(tokens, length);
    }
  }
  std::size_t size() const { return head + end - tail; }
  template <typename F>
  void for_each(F&& f) const {
    for (std::size_t t = 0; t < head; ++t) f(t);
    for (std::size_t t = tail; t < end; ++t) f(t);
  }

  std::size_t head = 0, tail = 0, end;
};

/// Puts examples into the samples of one split, and these into shards.
class SampleWriter {
 public:
  SampleWriter(const SupervisedOptions& options, Split split, const SampleShardInfo& shared,
               const fs::path& directory)
      : pack_(options.pack),
        cut_(options.cut),
        shared_(shared),
        shards_(directory, split, options.shard_samples,
                [shared](const fs::path& file) { return SampleShardWriter(file, shared); }) {
    begin_sample();
  }

  /// False if no position of the example counts within a sample's length.
  bool add(const Example& example) {
    // The last token is no input of its own, but stays as one that predicts nothing, so that examples stand apart.
    const KeptPositions kept(example.tokens.size(), inputs_.size(), cut_);
    const auto predicts = [&](std::size_t t) {
      return t + 1 < example.tokens.size() && example.counts[t + 1];
    };
    bool counts = false;
    kept.for_each([&](std::size_t t) { counts = counts || predicts(t); });
    if (!counts) return false;
    if (at_ > 0 && (!pack_ || at_ + kept.size() > inputs_.size())) write_sample();
    kept.for_each([&](std::size_t t) {
      inputs_[at_] = example.tokens[t];
      if (predicts(t)) labels_[at_] = example.tokens[t + 1];
      ++at_;
    });
    return true;
  }

  std::vector<ManifestShard> finish() {
    if (at_ > 0) write_sample();
    return shards_.finish();
  }

 private:
  void begin_sample() {
    inputs_.assign(static_cast<std::size_t>(shared_.length), static_cast<std::int32_t>(shared_.end_of_text));
    labels_.assign(inputs_.size(), ignored_label);
    at_ = 0;
  }

  void write_sample() {
    shards_.add([&](SampleShardWriter& shard) { shard.add(inputs_, labels_); });
    begin_sample();
  }

  const bool pack_;
  const Cut cut_;
  const SampleShardInfo shared_;
  ShardSeries<SampleShardWriter> shards_;
  std::vector<std::int32_t> inputs_;
  std::vector<std::int32_t> labels_;
  std::size_t at_ = 0;  ///< positions of the sample that are filled
};

void check_options(const SupervisedOptions& options) {
  if (options.output.empty()) fail("no output; name the dataset's directory with --output");
  if (options.tokenizer.empty()) fail("no tokenizer; give the model's with --tokenizer");
  if (options.length < 1)
    fail("--sequence-length {} is not positive; give the inputs a sample (data.sequence_length of the job)",
         options.length);
  if (!(options.validation_fraction > 0 && options.validation_fraction < 1)) {
    fail("--validation-fraction {} is outside (0, 1)", options.validation_fraction);
  }
  require_copyable(options.tokenizer);
}

/// What the lines would have needed of --sequence-length.
struct Needs {
  std::int64_t first_label = 0;  ///< of the line whose first label comes latest
  /// Of the line whose first label comes soonest.
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  std::int64_t all = 0;  ///< of the longest line

  void add(const Example& example) {
    const auto first = std::find(example.counts.begin() + 1, example.counts.end(), true);
    if (first == example.counts.end()) return;
    first_label = std::max<std::int64_t>(first_label, first - example.counts.begin());
    least = std::min<std::int64_t>(least, first - example.counts.begin());
    all = std::max(all, std::ssize(example.tokens) - 1);
  }
};

void check_splits(const SupervisedOptions& options, const SupervisedResult& result, const Needs& needs) {
  const Manifest& manifest = result.manifest;
  const auto samples = manifest.documents(Split::train) + manifest.documents(Split::validation);
  if (samples == 0 && result.lines > 0 && needs.all > 0) {
    fail(
        "--sequence-length {}: no line has a label within {}: the first label needs {} in the shortest "
        "prompt and {} "
        "in the "
        "longest, and the longest line takes {}; --sequence-length {} keeps all lines whole",
        options.length, counted(options.length, "input"), needs.least, needs.first_label, needs.all,
        needs.all);
  }
  for (const Split split : {Split::train, Split::validation}) {
    if (manifest.documents(split) > 0) continue;
    fail("no sample fell in the {} split{}; give more lines, or another --validation-fraction",
         to_string(split),
         result.left_out > 0 ? fmt::format(" ({} had no label within --sequence-length {}, and "
                                           "--sequence-length {} keeps all lines whole)",
                                           counted(result.left_out, "line"), options.length, needs.all)
                             : "");
  }
}

/// A digest of what the samples are made from, as prepare's.
std::string source_fingerprint(const SupervisedOptions& options, const std::vector<TextFile>& files,
                               const SampleShardInfo& shared) {
  Sha256 digest;
  digest.update(fmt::format("samples\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n", shared.tokenizer, shared.end_of_text,
                            options.length, to_string(options.encode), options.pack,
                            options.validation_fraction, options.shard_samples));
  if (options.cut != Cut::end) digest.update(fmt::format("cut {}\n", to_string(options.cut)));
  for (const TextFile& file : files) digest.update(file_mark(file) + "\n");
  return "sha256:" + digest.hex();
}

}  // namespace

const char* to_string(Encode encode) {
  return encode == Encode::together ? "together" : "apart";
}

Encode parse_encode(std::string_view name) {
  for (const Encode encode : {Encode::together, Encode::apart}) {
    if (name == to_string(encode)) return encode;
  }
  fail("--encode {}: prompts and completions are encoded {} or {}", name, to_string(Encode::together),
       to_string(Encode::apart));
}

const char* to_string(Cut cut) {
  return cut == Cut::end ? "end" : "middle";
}

Cut parse_cut(std::string_view name) {
  for (const Cut cut : {Cut::end, Cut::middle}) {
    if (name == to_string(cut)) return cut;
  }
  fail("--cut {}: lines that are too long lose their {} or their {}", name, to_string(Cut::end),
       to_string(Cut::middle));
}

SupervisedResult prepare_supervised(const SupervisedOptions& options,
                                    const std::function<void(std::int64_t)>& report) {
  check_options(options);
  const Tokenizer tokenizer(options.tokenizer, options.end_of_text);
  SupervisedResult result;
  const std::vector<TextFile> files = list_text_files(options.inputs, &result.notes);
  for (const TextFile& file : files) {
    if (file.kind != TextFile::Kind::json_lines)
      fail("{}: supervised samples come from .jsonl files", file.path.string());
  }
  const SampleShardInfo shared{.length = options.length,
                               .vocab_size = tokenizer.vocab_size(),
                               .end_of_text = tokenizer.end_of_text(),
                               .tokenizer = tokenizer.identity()};
  check_replaceable(options.output, tokenizer.file_name(), options.tokenizer, options.force);
  StagedDataset staged(options.output);
  SampleWriter train(options, Split::train, shared, staged.directory());
  SampleWriter validation(options, Split::validation, shared, staged.directory());
  Needs needs;
  TextSource source(whole_files(files), "");
  for (RawDocument raw; source.next(raw); ++result.lines) {
    if (result.lines % 64 == 0) report(result.lines);
    if (repair_utf8(raw.bytes) + repair_half_pairs(raw.bytes) > 0 && result.repaired++ == 0)
      result.first_repaired = to_string(raw);
    const Example example = parse_example(raw, tokenizer, options.encode);
    const std::int64_t whole = options.length + (options.cut == Cut::end ? 1 : 0);
    if (std::ssize(example.tokens) > whole) ++result.cut;
    if (example.tokens.size() > 1) needs.add(example);
    SampleWriter& writer = example.position < options.validation_fraction ? validation : train;
    if (example.tokens.size() < 2 || !writer.add(example)) ++result.left_out;
  }
  report(result.lines);
  result.manifest = {.vocab_size = shared.vocab_size,
                     .end_of_text = shared.end_of_text,
                     .tokenizer = shared.tokenizer,
                     .tokenizer_file = tokenizer.file_name(),
                     .source = source_fingerprint(options, files, shared),
                     .sample_length = options.length,
                     .encode = to_string(options.encode),
                     .train = train.finish(),
                     .validation = validation.finish()};
  check_splits(options, result, needs);
  staged.publish(result.manifest, options.tokenizer);
  return result;
}

}  // namespace ratplus::data
