#include "data/dataset/shard.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/files/crc32.h"
#include "base/files/hdf5.h"
#include "base/files/pending_file.h"

namespace ratplus::data {
namespace {

constexpr const char* tokens_name = "tokens";
constexpr const char* offsets_name = "document_offsets";

/// The narrowest type that holds every id of the vocabulary.
hdf5::Element token_element(std::int64_t vocab_size) {
  return vocab_size <= 65536 ? hdf5::Element::uint16 : hdf5::Element::uint32;
}

void check_version(const hdf5::File& file) {
  const std::string name = file.file().string();
  if (!file.has_attribute("version") || !file.has(tokens_name) || !file.has(offsets_name)) {
    fail(
        "{} is not a token shard (an HDF5 file, but without the attribute \"version\", \"{}\" or \"{}\"); "
        "make shards with `ratplus prepare`",
        name, tokens_name, offsets_name);
  }
  const std::int64_t version = file.integer_attribute("version");
  if (version != shard_format_version) {
    fail(
        "{} has shard format version {}, but this program reads version {}; prepare the dataset again with "
        "this program",
        name, version, shard_format_version);
  }
}

ShardInfo read_info(const hdf5::File& file) {
  return {.tokens = file.integer_attribute("tokens"),
          .documents = file.integer_attribute("documents"),
          .vocab_size = file.integer_attribute("vocab_size"),
          .end_of_text = file.integer_attribute("end_of_text"),
          .tokenizer = file.string_attribute("tokenizer"),
          .crc32 = hdf5::checksum_attribute(file)};
}

void check_info(const ShardInfo& info, const std::string& where) {
  if (info.vocab_size < 1 || info.vocab_size > std::numeric_limits<std::int32_t>::max()) {
    fail("{}: vocab_size {} is not a vocabulary's size", where, info.vocab_size);
  }
  if (info.end_of_text < 0 || info.end_of_text >= info.vocab_size) {
    fail("{}: end_of_text {} is outside the vocabulary of {}", where, info.end_of_text, info.vocab_size);
  }
}

void check_sizes(const ShardInfo& info, const hdf5::Dataset& tokens, const hdf5::Dataset& offsets) {
  const std::string name = tokens.file().string();
  if (tokens.size() != info.tokens || offsets.size() != info.documents + 1) {
    fail("{}: holds {} tokens and {} offsets, but says {} tokens and {} documents; prepare the dataset again",
         name, tokens.size(), offsets.size(), info.tokens, info.documents);
  }
  if (!tokens.holds_integers() || !offsets.holds_integers()) {
    fail("{}: \"{}\" and \"{}\" must hold integers", name, tokens_name, offsets_name);
  }
}

}  // namespace

struct ShardReader::Impl {
  explicit Impl(const std::filesystem::path& path)
      : file((hdf5::File::open(path))),
        info((check_version(file), read_info(file))),
        tokens(file.dataset(tokens_name)),
        offsets(file.dataset(offsets_name)) {
    check_info(info, path.string());
    check_sizes(info, tokens, offsets);
    narrow = tokens.element_bytes() == sizeof(std::uint16_t);
  }

  hdf5::File file;
  ShardInfo info;
  hdf5::Dataset tokens;
  hdf5::Dataset offsets;
  mutable bool written = false;            ///< known to have all chunks
  bool narrow = false;                     ///< 16-bit tokens: read as they lie, widened here, which is faster
  mutable std::vector<std::uint16_t> raw;  ///< a range of them
};

ShardReader::ShardReader(const std::filesystem::path& file) : impl_(std::make_unique<Impl>(file)) {}
ShardReader::~ShardReader() = default;
ShardReader::ShardReader(ShardReader&&) noexcept = default;
ShardReader& ShardReader::operator=(ShardReader&&) noexcept = default;

const ShardInfo& ShardReader::info() const {
  return impl_->info;
}

void ShardReader::read(std::int64_t begin, std::span<std::int32_t> out) const {
  if (!impl_
           ->written) {  // looked at once, and not by those who read the header alone: it costs the chunks' index
    impl_->tokens.require_written();
    impl_->written = true;
  }
  if (impl_->narrow) {
    impl_->raw.resize(out.size());
    impl_->tokens.read(begin, std::span(impl_->raw));
    std::copy(impl_->raw.begin(), impl_->raw.end(), out.begin());
  } else {
    impl_->tokens.read(begin, out);
  }
  // An id outside the vocabulary would index past the embedding.
  const auto outside = [&](std::int32_t id) { return id < 0 || id >= impl_->info.vocab_size; };
  if (const auto found = std::find_if(out.begin(), out.end(), outside); found != out.end()) {
    fail("{}: token {} is id {}, outside the vocabulary of {}; prepare the dataset again",
         impl_->file.file().string(), begin + (found - out.begin()), *found, impl_->info.vocab_size);
  }
}

std::vector<std::int64_t> ShardReader::document_offsets() const {
  std::vector<std::int64_t> offsets(static_cast<std::size_t>(impl_->offsets.size()));
  impl_->offsets.read(0, std::span(offsets));
  if (offsets.front() != 0 || offsets.back() != impl_->info.tokens ||
      !std::is_sorted(offsets.begin(), offsets.end())) {
    fail("{}: document_offsets do not rise from 0 to {}; prepare the dataset again",
         impl_->file.file().string(), impl_->info.tokens);
  }
  return offsets;
}

void ShardReader::verify(const std::function<void(std::int64_t)>& progress) const {
  const std::string name = impl_->file.file().string();
  const std::vector<std::int64_t> offsets = document_offsets();
  constexpr std::int64_t tokens_at_once = std::int64_t{1} << 20;
  std::vector<std::int32_t> tokens;
  std::uint32_t crc = 0;
  auto end = offsets.begin() + 1;
  for (std::int64_t at = 0; at < info().tokens; at += std::ssize(tokens)) {
    tokens.resize(static_cast<std::size_t>(std::min(tokens_at_once, info().tokens - at)));
    read(at, tokens);
    crc = crc32_of(crc, tokens);
    for (; end != offsets.end() && *end <= at + std::ssize(tokens); ++end) {
      if (*end > at && tokens[static_cast<std::size_t>(*end - 1 - at)] == info().end_of_text) continue;
      fail("{}: document {} does not end with the end-of-text token {}; prepare the dataset again", name,
           end - offsets.begin() - 1, info().end_of_text);
    }
    progress(std::ssize(tokens));
  }
  if (info().crc32 && *info().crc32 != crc) {
    fail(
        "{}: damaged: its tokens' checksum is {:08x}, and {:08x} was written; copy it again, or prepare the "
        "dataset again",
        name, crc, *info().crc32);
  }
}

struct ShardWriter::Impl {
  Impl(const std::filesystem::path& final_name, const ShardInfo& shared, Options chosen)
      : options(chosen),
        pending(final_name),
        info(shared),
        file(hdf5::File::create(pending.path(), final_name)),
        tokens(file.create_dataset(tokens_name, token_element(shared.vocab_size), 0,
                                   {.chunk = options.chunk_tokens,
                                    .compression = options.compression,
                                    .checksum = true,
                                    .growable = true})) {
    info.tokens = 0;
    info.documents = 0;
    info.crc32 = 0;
    buffer.reserve(static_cast<std::size_t>(chunks_at_once * options.chunk_tokens));
  }

  void add(std::span<const std::int32_t> ids) {
    const auto full = static_cast<std::size_t>(chunks_at_once * options.chunk_tokens);
    while (!ids.empty()) {
      const std::size_t part = std::min(ids.size(), full - buffer.size());
      buffer.insert(buffer.end(), ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(part));
      ids = ids.subspan(part);
      if (buffer.size() == full) flush();
    }
  }

  /// Appends the buffer to the dataset: whole chunks, but for the last.
  void flush() {
    info.crc32 = crc32_of(*info.crc32, buffer);
    const std::int64_t written = tokens.size();
    tokens.resize(written + std::ssize(buffer));
    if (token_element(info.vocab_size) ==
        hdf5::Element::uint16) {  // narrowed here, which is faster than HDF5's way
      narrow.assign(buffer.begin(), buffer.end());
      tokens.write(written, std::span<const std::uint16_t>(narrow));
    } else {
      tokens.write(written, std::span<const std::int32_t>(buffer));
    }
    buffer.clear();
  }

  void write_header() {
    file.set_attribute("version", std::int64_t{shard_format_version});
    file.set_attribute("vocab_size", info.vocab_size);
    file.set_attribute("end_of_text", info.end_of_text);
    file.set_attribute("tokenizer", info.tokenizer);
    file.set_attribute("tokens", info.tokens);
    file.set_attribute("documents", info.documents);
    file.set_attribute("crc32", std::int64_t{*info.crc32});
  }

  Options options;
  PendingFile
      pending;  // before the file: destroyed after it, so the partial file is closed when it is removed
  ShardInfo info;
  hdf5::File file;
  hdf5::Dataset tokens;
  static constexpr std::int64_t chunks_at_once = 4;  ///< written
  std::vector<std::int32_t> buffer;                  ///< tokens that are not written yet
  std::vector<std::uint16_t> narrow;
  std::vector<std::int64_t> offsets{0};  ///< of the documents added, and the end
};

ShardWriter::ShardWriter(const std::filesystem::path& file, const ShardInfo& shared, Options options) {
  check_info(shared, file.string());
  if (options.compression < 0 || options.compression > 9) {
    fail("{}: compression level {} is outside 0 (none) to 9", file.string(), options.compression);
  }
  require(options.chunk_tokens > 0, "chunk_tokens is {}", options.chunk_tokens);
  impl_ = std::make_unique<Impl>(file, shared, options);
}
ShardWriter::~ShardWriter() = default;
ShardWriter::ShardWriter(ShardWriter&&) noexcept = default;
ShardWriter& ShardWriter::operator=(ShardWriter&&) noexcept = default;

void ShardWriter::add_document(std::span<const std::int32_t> tokens) {
  ShardInfo& info = impl_->info;
  for (const std::int32_t id : tokens) {
    require(id >= 0 && id < info.vocab_size, "token id {} is outside the vocabulary of {}", id,
            info.vocab_size);
  }
  impl_->add(tokens);
  const auto end_of_text = static_cast<std::int32_t>(info.end_of_text);
  impl_->add({&end_of_text, 1});
  info.tokens += std::ssize(tokens) + 1;
  info.documents += 1;
  impl_->offsets.push_back(info.tokens);
}

std::int64_t ShardWriter::tokens() const {
  return impl_->info.tokens;
}

ShardInfo ShardWriter::finish() {
  impl_->flush();
  {
    hdf5::Dataset offsets = impl_->file.create_dataset(
        offsets_name, hdf5::Element::int64, std::ssize(impl_->offsets),
        {.chunk = 8192, .compression = impl_->options.compression, .checksum = true, .growable = false});
    offsets.write(0, std::span<const std::int64_t>(impl_->offsets));
  }
  impl_->write_header();
  impl_->file.close();
  impl_->pending.commit();
  ShardInfo written = impl_->info;
  impl_.reset();
  return written;
}

}  // namespace ratplus::data
