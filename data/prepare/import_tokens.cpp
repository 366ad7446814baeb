#include "data/prepare/import_tokens.h"

#include <algorithm>
#include <memory>
#include <span>

#include "base/error.h"
#include "base/units.h"
#include "data/dataset/held_out.h"
#include "data/dataset/shard.h"
#include "data/dataset/shard_series.h"
#include "data/dataset/staged_dataset.h"
#include "data/prepare/token_file.h"
#include "data/tokenizer/tokenizer.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t tokens_at_once = std::size_t{1} << 20;
/// A longer one means that the end-of-text token is another one.
constexpr std::size_t max_document_tokens = std::size_t{1} << 28;

TokenFileOptions file_options(const ImportOptions& options, const ShardInfo& shared) {
  return {.bin_bytes = options.bin_bytes, .dataset = options.dataset, .vocab_size = shared.vocab_size};
}

/// What the shards say of the tokens.
ShardInfo describe(const ImportOptions& options) {
  if (!options.tokenizer.empty()) {
    const Tokenizer tokenizer(options.tokenizer, options.end_of_text);
    return {.vocab_size = tokenizer.vocab_size(),
            .end_of_text = tokenizer.end_of_text(),
            .tokenizer = tokenizer.identity()};
  }
  if (options.vocab_size < 2 || options.end_of_text_id < 0 || options.end_of_text_id >= options.vocab_size) {
    fail("give --tokenizer, or --vocab-size and --end-of-text-id (at least 0 and below it)");
  }
  return {.vocab_size = options.vocab_size, .end_of_text = options.end_of_text_id, .tokenizer = "unknown"};
}

void check_options(const ImportOptions& options) {
  if (options.output.empty()) fail("no output; name the dataset's directory with --output");
  if (options.train.empty()) fail("no input; name .bin or .h5 files");
  if (options.bin_bytes != 0 && options.bin_bytes != 2 && options.bin_bytes != 4 && options.bin_bytes != 8)
    fail("--bin-bytes {} is neither 2, 4 nor 8", options.bin_bytes);
  if (!(options.validation_fraction > 0 && options.validation_fraction < 1)) {
    fail("--validation-fraction {} is outside (0, 1)", options.validation_fraction);
  }
  if (options.shard_tokens < 1) fail("--shard-tokens {} is not positive", options.shard_tokens);
  require_copyable(options.tokenizer);
  std::vector<fs::path> inputs = options.train;
  inputs.insert(inputs.end(), options.validation.begin(), options.validation.end());
  for (auto input = inputs.begin(); input != inputs.end(); ++input) {
    std::error_code missing;  // is said when it is opened
    const auto again = std::find_if(
        inputs.begin(), input, [&](const fs::path& other) { return fs::equivalent(other, *input, missing); });
    if (again == input) continue;
    fail("input {} is given twice (as {}), so that its tokens would be there twice{}; give it once",
         input->string(), again->string(),
         input - inputs.begin() < std::ssize(options.train) ? "" : ", or be trained on and held out");
  }
  refuse_inputs_in(options.output, options.train);
  refuse_inputs_in(options.output, options.validation);
}

/// What was seen of a list of files.
struct Seen {
  std::int64_t tokens = 0;
  std::int64_t ends = 0;  ///< end-of-text tokens
  std::int64_t highest = 0;
};

/// Calls add(document), without its end-of-text token, for each document of the files.
template <typename Add, typename Report>
Seen for_each_document(const std::vector<fs::path>& files, const ImportOptions& options,
                       const ShardInfo& shared, const Add& add, const Report& report) {
  std::vector<std::int64_t> tokens(tokens_at_once);
  std::vector<std::int32_t> document;
  Seen seen;
  for (const fs::path& path : files) {
    const auto file = open_tokens(path, file_options(options, shared));
    std::int64_t place = 0;
    while (const std::size_t count = file->read(tokens)) {
      for (std::size_t i = 0; i < count; ++i, ++place) {
        const std::int64_t token = tokens[i];
        if (token == shared.end_of_text) {
          add(document);
          document.clear();
          ++seen.ends;
          continue;
        }
        if (token < 0 || token >= shared.vocab_size) {
          fail("{}: token {} is {}, outside the vocabulary of {}; was it made with another tokenizer{}?",
               path.string(), place, token, shared.vocab_size, file->doubt());
        }
        seen.highest = std::max(seen.highest, token);
        document.push_back(static_cast<std::int32_t>(token));
      }
      if (document.size() > max_document_tokens) {
        fail("{}: no end-of-text token ({}) in {} tokens up to token {}; give the right one", path.string(),
             shared.end_of_text, document.size(), place);
      }
      seen.tokens += static_cast<std::int64_t>(count);
      report(static_cast<std::int64_t>(count));
    }
  }
  if (!document.empty()) add(document);
  return seen;
}

/// What no stream of a language model's tokens is like.
std::vector<std::string> doubts(const ImportOptions& options, const ShardInfo& shared, const Seen& train,
                                const Seen& validation) {
  std::vector<std::string> warnings;
  for (const auto* list : {&options.train, &options.validation}) {
    for (const fs::path& file : *list) {
      if (options.bin_bytes == 0 || file.extension() != ".bin") continue;
      if (std::string doubt = width_doubt(file, options.bin_bytes); !doubt.empty())
        warnings.push_back(std::move(doubt));
      if (std::string doubt = byte_order_doubt(file, options.bin_bytes); !doubt.empty())
        warnings.push_back(std::move(doubt));
    }
  }
  for (const auto& [seen, what] : {std::pair(&train, "the input"), std::pair(&validation, "--validation")}) {
    if (seen->tokens == 0 || seen->ends > 0) continue;
    warnings.push_back(
        fmt::format("{}: none of its {} is the end-of-text token {}, so that it is one document; is that the "
                    "right one?",
                    what, counted(seen->tokens, "token"), shared.end_of_text));
  }
  constexpr std::int64_t many_tokens = 10'000'000;  // in which a vocabulary's upper half occurs
  if (train.tokens >= many_tokens && train.highest < shared.vocab_size / 2) {
    warnings.push_back(fmt::format(
        "the input: its highest token is {}, of a vocabulary of {}; was it made with another tokenizer?",
        train.highest, shared.vocab_size));
  }
  return warnings;
}

}  // namespace

ImportResult import_tokens(const ImportOptions& options,
                           const std::function<void(const ImportProgress&)>& report) {
  check_options(options);
  const ShardInfo shared = describe(options);
  ImportProgress progress;
  for (const auto* list : {&options.train, &options.validation}) {
    for (const fs::path& file : *list)
      progress.tokens_total += open_tokens(file, file_options(options, shared))->tokens();
  }
  const std::string tokenizer_name =
      options.tokenizer.empty() ? "" : Tokenizer(options.tokenizer, options.end_of_text).file_name();
  check_replaceable(options.output, tokenizer_name, options.tokenizer, options.force);
  StagedDataset staged(options.output);
  const auto series = [&](Split split) {
    return ShardSeries<ShardWriter>(staged.directory(), split, options.shard_tokens,
                                    [&](const fs::path& file) { return ShardWriter(file, shared, {}); });
  };
  auto train = series(Split::train);
  auto validation = series(Split::validation);
  using Document = std::vector<std::int32_t>;
  const auto add_to = [](ShardSeries<ShardWriter>& shards, const Document& document) {
    shards.add([&](ShardWriter& shard) { shard.add_document(document); });
  };
  const auto advance = [&](std::int64_t tokens) {
    progress.tokens += tokens;
    report(progress);
  };
  const auto by_hash = [&](const Document& document) {
    const auto bytes = std::as_bytes(std::span(document));
    const bool held_out = options.validation.empty() && !document.empty() &&
                          held_out_position({reinterpret_cast<const char*>(bytes.data()), bytes.size()}) <
                              options.validation_fraction;
    add_to(held_out ? validation : train, document);
  };
  const Seen seen = for_each_document(options.train, options, shared, by_hash, advance);
  const Seen seen_validation = for_each_document(
      options.validation, options, shared, [&](const Document& document) { add_to(validation, document); },
      advance);
  Manifest manifest{.vocab_size = shared.vocab_size,
                    .end_of_text = shared.end_of_text,
                    .tokenizer = shared.tokenizer,
                    .tokenizer_file = tokenizer_name,
                    .source = "import",
                    .sample_length = 0,
                    .train = train.finish(),
                    .validation = validation.finish()};
  for (const Split split : {Split::train, Split::validation}) {
    if (manifest.tokens(split) > 0) continue;
    std::string why;
    for (const auto& doubt : doubts(options, shared, seen, seen_validation)) why += "\n" + doubt;
    fail("the {} split is empty; give other files, --validation FILE, or another --validation-fraction{}",
         to_string(split), why);
  }
  staged.publish(manifest, options.tokenizer);
  return {std::move(manifest), doubts(options, shared, seen, seen_validation)};
}

}  // namespace ratplus::data
