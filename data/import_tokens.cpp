#include "data/import_tokens.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>

#include "data/byte_stream.h"
#include "data/hdf5.h"
#include "data/held_out.h"
#include "data/output_files.h"
#include "data/pending_file.h"
#include "data/shard.h"
#include "data/shard_series.h"
#include "data/tokenizer.h"
#include "kernels/error.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t tokens_at_once = std::size_t{1} << 20;
/// A longer one means that the end-of-text token is another one.
constexpr std::size_t max_document_tokens = std::size_t{1} << 28;

/// The tokens of one file.
class TokenFile {
 public:
  virtual ~TokenFile() = default;
  virtual std::int64_t tokens() const = 0;
  /// The next tokens; fewer than `out` has room for at the end only.
  virtual std::size_t read(std::span<std::int64_t> out) = 0;
};

class BinFile : public TokenFile {
 public:
  BinFile(const fs::path& file, int bytes)
      : bytes_(static_cast<std::size_t>(bytes)), stream_(open_bytes(file, Packing::none)) {
    const auto size = static_cast<std::int64_t>(fs::file_size(file));
    if (size % bytes != 0)
      fail("{}: its {} bytes are no whole number of {}-byte tokens", file.string(), size, bytes);
    tokens_ = size / bytes;
  }
  std::int64_t tokens() const override { return tokens_; }
  std::size_t read(std::span<std::int64_t> out) override {
    raw_.resize(out.size() * bytes_);
    const std::size_t count = stream_->read(raw_) / bytes_;
    for (std::size_t i = 0; i < count; ++i) {
      std::uint32_t token = 0;  // little-endian, as this program's machines are
      std::memcpy(&token, raw_.data() + i * bytes_, bytes_);
      out[i] = token;
    }
    return count;
  }

 private:
  std::size_t bytes_;
  std::unique_ptr<ByteStream> stream_;
  std::int64_t tokens_ = 0;
  std::vector<char> raw_;
};

class Hdf5File : public TokenFile {
 public:
  Hdf5File(const fs::path& file, const std::string& dataset)
      : file_(hdf5::File::open(file)), dataset_(file_.dataset(dataset.empty() ? only_dataset() : dataset)) {
    if (!dataset_.holds_integers())
      fail("{}: dataset \"{}\" does not hold integers", file.string(), dataset_.name());
  }
  std::int64_t tokens() const override { return dataset_.size(); }
  std::size_t read(std::span<std::int64_t> out) override {
    const auto count =
        static_cast<std::size_t>(std::min<std::int64_t>(dataset_.size() - at_, std::ssize(out)));
    dataset_.read(at_, out.first(count));
    at_ += static_cast<std::int64_t>(count);
    return count;
  }

 private:
  std::string only_dataset() const {
    const std::vector<std::string> names = file_.names();
    if (names.size() == 1) return names.front();
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
    fail("{}: name the dataset with --dataset; there are: {}", file_.file().string(), list);
  }

  hdf5::File file_;
  hdf5::Dataset dataset_;
  std::int64_t at_ = 0;
};

std::unique_ptr<TokenFile> open_tokens(const fs::path& file, const ImportOptions& options) {
  const fs::path kind = file.extension();
  if (kind == ".bin") return std::make_unique<BinFile>(file, options.bin_bytes);
  if (kind == ".h5" || kind == ".hdf5") return std::make_unique<Hdf5File>(file, options.dataset);
  fail("input {} is neither a .bin nor a .h5 file; rename it", file.string());
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
  if (options.bin_bytes != 2 && options.bin_bytes != 4)
    fail("--bin-bytes {} is neither 2 nor 4", options.bin_bytes);
  if (!(options.validation_fraction > 0 && options.validation_fraction < 1)) {
    fail("--validation-fraction {} is outside (0, 1)", options.validation_fraction);
  }
  if (options.shard_tokens < 1) fail("--shard-tokens {} is not positive", options.shard_tokens);
  if (fs::exists(options.output / manifest_name) && !options.force) {
    fail("{} already holds a dataset; replace it with --force, or choose another --output",
         options.output.string());
  }
}

/// Calls add(document), without its end-of-text token, for each document of the files.
template <typename Add, typename Report>
void for_each_document(const std::vector<fs::path>& files, const ImportOptions& options,
                       const ShardInfo& shared, const Add& add, const Report& report) {
  std::vector<std::int64_t> tokens(tokens_at_once);
  std::vector<std::int32_t> document;
  for (const fs::path& path : files) {
    const auto file = open_tokens(path, options);
    std::int64_t place = 0;
    while (const std::size_t count = file->read(tokens)) {
      for (std::size_t i = 0; i < count; ++i, ++place) {
        const std::int64_t token = tokens[i];
        if (token == shared.end_of_text) {
          add(document);
          document.clear();
          continue;
        }
        if (token < 0 || token >= shared.vocab_size) {
          fail("{}: token {} is {}, outside the vocabulary of {}; was it made with another tokenizer?",
               path.string(), place, token, shared.vocab_size);
        }
        document.push_back(static_cast<std::int32_t>(token));
      }
      if (document.size() > max_document_tokens) {
        fail("{}: no end-of-text token ({}) in {} tokens up to token {}; give the right one", path.string(),
             shared.end_of_text, document.size(), place);
      }
      report(static_cast<std::int64_t>(count));
    }
  }
  if (!document.empty()) add(document);
}

}  // namespace

Manifest import_tokens(const ImportOptions& options,
                       const std::function<void(const ImportProgress&)>& report) {
  check_options(options);
  const ShardInfo shared = describe(options);
  ImportProgress progress;
  for (const auto* list : {&options.train, &options.validation}) {
    for (const fs::path& file : *list) progress.tokens_total += open_tokens(file, options)->tokens();
  }
  OutputFiles written;
  written.make_directory(options.output);
  remove_dataset(options.output);
  const auto series = [&](Split split) {
    return ShardSeries<ShardWriter>(options.output, split, options.shard_tokens, written,
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
  for_each_document(options.train, options, shared, by_hash, advance);
  for_each_document(
      options.validation, options, shared, [&](const Document& document) { add_to(validation, document); },
      advance);
  Manifest manifest{.vocab_size = shared.vocab_size,
                    .end_of_text = shared.end_of_text,
                    .tokenizer = shared.tokenizer,
                    .tokenizer_file = {},
                    .source = "import",
                    .sample_length = 0,
                    .train = train.finish(),
                    .validation = validation.finish()};
  for (const Split split : {Split::train, Split::validation}) {
    if (manifest.tokens(split) > 0) continue;
    fail("the {} split is empty; give other files, --validation FILE, or another --validation-fraction",
         to_string(split));
  }
  if (!options.tokenizer.empty()) {
    manifest.tokenizer_file = Tokenizer(options.tokenizer, options.end_of_text).file_name();
    const fs::path model = options.output / manifest.tokenizer_file;
    if (!fs::exists(model) || !fs::equivalent(options.tokenizer, model)) {
      write_whole_file(written.add(model), read_whole_file(options.tokenizer));
    }
  }
  write_manifest(options.output, manifest);
  written.keep();
  return manifest;
}

}  // namespace ratplus::data
