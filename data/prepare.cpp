#include "data/prepare.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <future>
#include <limits>
#include <system_error>
#include <utility>

#include "data/held_out.h"
#include "data/pending_file.h"
#include "data/sha256.h"
#include "data/shard.h"
#include "data/text_source.h"
#include "data/token_stream.h"
#include "data/tokenizer.h"
#include "data/train_tokenizer.h"
#include "kernels/error.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;
using Report = std::function<void(const PrepareProgress&)>;

constexpr const char* tokenizer_name = "tokenizer.model";
/// Text that the tokenizer is trained on, at most: more changes its pieces little, but costs memory and time.
constexpr double max_training_bytes = 64.0 * (1 << 20);
/// Text that a thread tokenizes between two writes: about a second's work.
constexpr std::int64_t batch_bytes_a_thread = std::int64_t{2} << 20;

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

void check_options(const PrepareOptions& options) {
  if (options.output.empty()) fail("no output; name the dataset's directory with --output");
  if (options.tokenizer && options.train_vocab_size > 0) {
    fail("both a tokenizer and the training of one are asked for; give --tokenizer or --train-tokenizer");
  }
  if (!options.tokenizer && options.train_vocab_size <= 0) {
    fail("no tokenizer; give one with --tokenizer, or train one on the input with --train-tokenizer");
  }
  if (!(options.validation_fraction >= 0 && options.validation_fraction < 1)) {
    fail("--validation-fraction {} is outside [0, 1)", options.validation_fraction);
  }
  if (options.shard_tokens < 1) fail("--shard-tokens {} is not positive", options.shard_tokens);
  if (options.compression < 0 || options.compression > 9) {
    fail("--compression {} is outside 0 (none) to 9", options.compression);
  }
}

/// A digest of what the dataset is made from: the options, and the inputs' paths, sizes and times of change.
std::string source_fingerprint(const PrepareOptions& options, const std::vector<TextFile>& files) {
  Sha256 digest;
  const std::string tokenizer = options.tokenizer ? sha256_hex(read_whole_file(*options.tokenizer))
                                                  : fmt::format("train {}", options.train_vocab_size);
  digest.update(fmt::format("{}\n{}\n{}\n{}\n{}\n", tokenizer, options.text_key, options.validation_fraction,
                            options.shard_tokens, options.compression));
  for (const TextFile& file : files) {
    const auto changed = fs::last_write_time(file.path).time_since_epoch();
    digest.update(fmt::format("{} {} {}\n", fs::absolute(file.path).lexically_normal().string(), file.bytes,
                              std::chrono::duration_cast<std::chrono::nanoseconds>(changed).count()));
  }
  return "sha256:" + digest.hex();
}

// The output directory.

bool complete(const fs::path& directory, const Manifest& manifest) {
  try {
    TokenStream(directory, manifest, Split::train).check_all();
    TokenStream(directory, manifest, Split::validation).check_all();
  } catch (const Error&) {
    return false;
  }
  return fs::exists(directory / manifest.tokenizer_file);
}

/// The manifest in `directory` if it can be read.
std::optional<Manifest> existing_manifest(const fs::path& directory) {
  try {
    return read_manifest(directory);
  } catch (const Error&) {
    return std::nullopt;
  }
}

/// Shards and manifest, the latter first: from then on the directory is no dataset.
void remove_dataset(const fs::path& directory, const std::optional<Manifest>& manifest) {
  fs::remove(directory / manifest_name);
  if (!manifest) return;
  for (const Split split : {Split::train, Split::validation}) {
    for (const ManifestShard& shard : manifest->shards(split)) fs::remove(directory / shard.file);
  }
}

/// What this run writes, removed again unless kept.
class OutputFiles {
 public:
  OutputFiles() = default;
  ~OutputFiles() {
    std::error_code ignored;  // a directory that something else was put into stays
    for (const fs::path& file : files_) fs::remove(file, ignored);
    for (const fs::path& directory : directories_) fs::remove(directory, ignored);
  }
  OutputFiles(const OutputFiles&) = delete;
  OutputFiles& operator=(const OutputFiles&) = delete;

  const fs::path& add(fs::path file) { return files_.emplace_back(std::move(file)); }
  /// With the directories above it; those that are missing are this run's.
  void make_directory(const fs::path& directory) {
    for (fs::path missing = fs::absolute(directory).lexically_normal(); !fs::exists(missing);
         missing = missing.parent_path()) {
      if (missing.has_filename()) directories_.push_back(missing);
    }
    std::error_code error;
    fs::create_directories(directory, error);
    if (error) fail("cannot make directory {}: {}", directory.string(), error.message());
  }
  void keep() {
    files_.clear();
    directories_.clear();
  }

 private:
  std::vector<fs::path> files_;
  std::vector<fs::path> directories_;  ///< the innermost first
};

// The tokenizer.

/// The model's bytes, trained on the input without its held-out documents. The training runs on a thread of
/// its own, so that this one can report meanwhile.
std::string trained_model(const PrepareOptions& options, const std::vector<TextFile>& files,
                          const Report& report) {
  TextSource source(whole_files(files), options.text_key);
  const std::int64_t bytes_total = source.bytes_total();
  std::atomic<std::int64_t> bytes_done = 0;
  std::atomic<std::int64_t> documents = 0;
  std::atomic<bool> interrupted = false;
  const auto next_document = [&](std::string& text) {
    for (RawDocument raw; source.next(raw);) {
      if (interrupted) fail("interrupted");
      text = parse_document(std::move(raw), options.text_key).text;
      bytes_done = source.bytes_done();
      ++documents;
      if (held_out_position(text) >= options.validation_fraction) return true;
    }
    return false;
  };
  const TokenizerTraining training{
      .vocab_size = options.train_vocab_size,
      .line_share =
          std::min(1.0, max_training_bytes / static_cast<double>(std::max<std::int64_t>(bytes_total, 1)))};
  const Stopwatch stopwatch;
  std::future<std::string> model =
      std::async(std::launch::async, [&] { return train_tokenizer(training, next_document); });
  try {
    while (model.wait_for(std::chrono::milliseconds(200)) != std::future_status::ready) {
      const bool reading = bytes_done < bytes_total;
      report({.phase = reading ? "read text for the tokenizer" : "train the tokenizer",
              .documents = documents,
              .bytes_done = bytes_done,
              .bytes_total = reading ? bytes_total : 0,
              .seconds = stopwatch.seconds()});
    }
  } catch (...) {
    interrupted = true;
    throw;
  }
  return model.get();
}

// Tokens to shards.

/// The shards of one split, each closed at the document that reaches shard_tokens.
class SplitWriter {
 public:
  SplitWriter(const PrepareOptions& options, Split split, ShardInfo shared, OutputFiles& files)
      : options_(options), split_(split), shared_(std::move(shared)), files_(files) {}

  void add(std::span<const std::int32_t> document) {
    if (!shard_) begin_shard();
    shard_->add_document(document);
    if (shard_->tokens() >= options_.shard_tokens) finish_shard();
  }

  std::vector<ManifestShard> finish() {
    if (shard_) finish_shard();
    return std::move(written_);
  }

 private:
  void begin_shard() {
    name_ = fmt::format("{}-{:05}.h5", to_string(split_), written_.size());
    shard_.emplace(files_.add(options_.output / name_), shared_,
                   ShardWriter::Options{.compression = options_.compression});
  }

  void finish_shard() {
    const ShardInfo info = shard_->finish();
    shard_.reset();
    written_.push_back({name_, info.tokens, info.documents});
  }

  const PrepareOptions& options_;
  const Split split_;
  const ShardInfo shared_;
  OutputFiles& files_;
  std::string name_;
  std::optional<ShardWriter> shard_;
  std::vector<ManifestShard> written_;
};

/// A document on its way from file to shard.
struct Work {
  RawDocument raw;
  std::vector<std::int32_t> tokens;
  double position = 0;  ///< held_out_position of its text
  std::int64_t repaired = 0;
  bool empty = false;
  std::exception_ptr error;
};

/// Reads documents into `batch` until they have `bytes` bytes; returns how many, 0 at the end of the text.
std::size_t read_batch(TextSource& source, std::vector<Work>& batch, std::int64_t bytes) {
  std::size_t count = 0;
  for (std::int64_t read = 0; read < bytes; ++count) {
    if (count == batch.size()) batch.emplace_back();
    if (!source.next(batch[count].raw)) break;
    read += std::ssize(batch[count].raw.bytes) + 64;  // a document's own cost, so that empty ones end, too
  }
  return count;
}

void tokenize(const PrepareOptions& options, const Tokenizer& tokenizer, Work& work) try {
  const Document document = parse_document(std::move(work.raw), options.text_key);
  work.error = nullptr;
  work.repaired = document.repaired;
  work.empty = document.text.empty();
  work.position = held_out_position(document.text);
  tokenizer.encode(document.text, work.tokens);
} catch (...) {
  work.error = std::current_exception();
}

/// Text to shards: batches are read in order, tokenized by all threads, and written in order.
class Tokenization {
 public:
  Tokenization(const PrepareOptions& options, const Tokenizer& tokenizer, OutputFiles& files)
      : options_(options),
        tokenizer_(tokenizer),
        shared_{.vocab_size = tokenizer.vocab_size(),
                .end_of_text = tokenizer.end_of_text(),
                .tokenizer = tokenizer.identity()},
        train_(options, Split::train, shared_, files),
        validation_(options, Split::validation, shared_, files) {}

  PrepareResult run(TextSource& source, const Report& report) {
    const Stopwatch stopwatch;
    const int threads = options_.threads > 0 ? options_.threads : omp_get_max_threads();
    std::vector<Work> batch;
    while (const std::size_t count = read_batch(source, batch, batch_bytes_a_thread * threads)) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
      for (std::size_t i = 0; i < count; ++i) tokenize(options_, tokenizer_, batch[i]);
      for (std::size_t i = 0; i < count; ++i) write(batch[i]);
      report({.phase = "tokenize",
              .documents = documents_,
              .tokens = tokens_,
              .bytes_done = source.bytes_done(),
              .bytes_total = source.bytes_total(),
              .seconds = stopwatch.seconds()});
    }
    result_.manifest = {.vocab_size = shared_.vocab_size,
                        .end_of_text = shared_.end_of_text,
                        .tokenizer = shared_.tokenizer,
                        .tokenizer_file = tokenizer_name,
                        .source = {},
                        .train = train_.finish(),
                        .validation = validation_.finish()};
    check_splits();
    return std::move(result_);
  }

 private:
  void write(const Work& work) {
    if (work.error) std::rethrow_exception(work.error);
    result_.repaired += work.repaired;
    if (work.empty) {
      ++result_.left_out_empty;
      return;
    }
    const bool held_out = work.position < options_.validation_fraction;
    (held_out ? validation_ : train_).add(work.tokens);
    lowest_position_ = std::min(lowest_position_, work.position);
    highest_position_ = std::max(highest_position_, work.position);
    tokens_ += std::ssize(work.tokens) + 1;
    ++documents_;
  }

  void check_splits() const {
    if (documents_ == 0) fail("the input holds no text");
    if (options_.validation_fraction == 0) return;
    if (documents_ == 1) {
      fail(
          "the input has one document, so none can be held out; give more documents, or "
          "--validation-fraction 0");
    }
    if (result_.manifest.validation.empty()) {
      fail(
          "no document fell in the held-out part ({} documents); raise --validation-fraction from {} to "
          "{:.4f} or more",
          documents_, options_.validation_fraction, lowest_position_ + 1e-4);
    }
    if (result_.manifest.train.empty()) {
      fail(
          "every document fell in the held-out part ({} documents); lower --validation-fraction from {} to "
          "below {:.4f}",
          documents_, options_.validation_fraction, highest_position_);
    }
  }

  const PrepareOptions& options_;
  const Tokenizer& tokenizer_;
  const ShardInfo shared_;
  SplitWriter train_;
  SplitWriter validation_;
  PrepareResult result_;
  std::int64_t documents_ = 0;
  std::int64_t tokens_ = 0;
  double lowest_position_ = 1;
  double highest_position_ = 0;
};

}  // namespace

PrepareResult prepare(const PrepareOptions& options, const Report& report) {
  check_options(options);
  std::optional<Tokenizer> tokenizer;
  if (options.tokenizer) tokenizer.emplace(*options.tokenizer);
  const std::vector<TextFile> files = list_text_files(options.inputs);
  const std::string source_id = source_fingerprint(options, files);

  if (fs::exists(options.output / manifest_name)) {
    const std::optional<Manifest> existing = existing_manifest(options.output);
    const bool same = existing && existing->source == source_id;
    if (same && !options.force && complete(options.output, *existing)) return {*existing, true, 0, 0};
    if (!same && !options.force) {
      fail(
          "{} already holds a dataset of other inputs or options; replace it with --force, or choose another "
          "--output",
          options.output.string());
    }
  }

  const std::string model =
      options.tokenizer ? read_whole_file(*options.tokenizer) : trained_model(options, files, report);
  OutputFiles written;
  written.make_directory(options.output);
  if (fs::exists(options.output / manifest_name)) {
    remove_dataset(options.output, existing_manifest(options.output));
  }
  const fs::path model_file = options.output / tokenizer_name;
  // A model that is used from where it would be copied to stays as it is, whatever happens.
  if (!options.tokenizer || !fs::exists(model_file) || !fs::equivalent(*options.tokenizer, model_file)) {
    write_whole_file(written.add(model_file), model);
  }
  if (!tokenizer) tokenizer.emplace(model_file);
  TextSource source(whole_files(files), options.text_key);
  PrepareResult result = Tokenization(options, *tokenizer, written).run(source, report);
  result.manifest.source = source_id;
  write_manifest(options.output, result.manifest);
  written.keep();
  return result;
}

}  // namespace ratplus::data
