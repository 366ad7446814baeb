#include "data/prepare/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/files/byte_stream.h"
#include "base/files/foreign_file.h"
#include "base/files/hdf5.h"
#include "base/units.h"
#include "base/utf8.h"

namespace ratplus::data {
namespace {

namespace fs = std::filesystem;

constexpr int default_bin_bytes = 2;

std::string first_bytes(const fs::path& file, std::size_t most) {
  std::string bytes(most, '\0');
  bytes.resize(open_bytes(file, Packing::none)->read(bytes));
  return bytes;
}

/// Whether the bytes are text: none of them is a control character, as nearly every token has in one of its bytes.
bool is_text(std::string_view bytes) {
  constexpr std::size_t enough = 64;
  if (bytes.size() < enough) return false;
  const auto control = [](char c) {
    const auto code = static_cast<unsigned char>(c);
    return (code < 0x20 && c != '\n' && c != '\r' && c != '\t') || code == 0x7f;
  };
  if (std::any_of(bytes.begin(), bytes.end(), control)) return false;
  std::string text(bytes);
  const std::int64_t ill_formed = repair_utf8(text);
  return ill_formed == 0 || (ill_formed == 1 && text.ends_with("\xEF\xBF\xBD"));  // cut within a character
}

void refuse_foreign(const fs::path& file, Wanted wanted) {
  const std::string head = first_bytes(file, 4096);
  if (const std::string kind = foreign_kind(head, wanted); !kind.empty())
    fail("{}: is {}", file.string(), kind);
  if (is_text(head))
    fail("{}: is text, not tokens; make a dataset of it with `ratplus prepare`", file.string());
}

/// Throws Error where the vocabulary has ids that the numbers cannot hold: such a stream was cut to its low bits.
void check_holds(std::int64_t vocab_size, int bits, const std::string& numbers) {
  if (bits >= 63 || vocab_size <= std::int64_t{1} << bits) return;
  fail(
      "{}, which cannot hold the ids of a vocabulary of {}; write the tokens with more bytes, or give the "
      "vocabulary that they were made with",
      numbers, vocab_size);
}

class BinFile : public TokenFile {
 public:
  BinFile(const fs::path& file, const TokenFileOptions& options)
      : bytes_(static_cast<std::size_t>(options.bin_bytes == 0 ? default_bin_bytes : options.bin_bytes)),
        stream_(open_bytes(file, Packing::none)) {
    refuse_foreign(file, Wanted::tokens);
    const auto size = static_cast<std::int64_t>(fs::file_size(file));
    const auto bytes = static_cast<std::int64_t>(bytes_);
    if (size % bytes != 0)
      fail("{}: its {} bytes are no whole number of {}-byte tokens", file.string(), size, bytes);
    if (const std::string doubt = width_doubt(file, static_cast<int>(bytes_));
        !doubt.empty() && options.bin_bytes == 0) {
      fail("{}; if its tokens have {} bytes all the same, say so with --bin-bytes {}", doubt, bytes, bytes);
    }
    if (const std::string doubt = byte_order_doubt(file, static_cast<int>(bytes_));
        !doubt.empty() && options.bin_bytes == 0) {
      fail("{}; if they are little-endian all the same, say --bin-bytes {}", doubt, bytes);
    }
    check_holds(options.vocab_size, static_cast<int>(8 * bytes),
                fmt::format("{}: read as tokens of {} bytes (--bin-bytes)", file.string(), bytes));
    tokens_ = size / bytes;
  }
  std::int64_t tokens() const override { return tokens_; }
  std::size_t read(std::span<std::int64_t> out) override {
    raw_.resize(out.size() * bytes_);
    const std::size_t count = stream_->read(raw_) / bytes_;
    for (std::size_t i = 0; i < count; ++i) {
      std::uint64_t token = 0;  // little-endian, as this program's machines are
      std::memcpy(&token, raw_.data() + i * bytes_, bytes_);
      out[i] = static_cast<std::int64_t>(token);  // of 8 bytes with a sign: negative
    }
    return count;
  }
  const char* doubt() const override {
    return ", or are its tokens of another width (--bin-bytes) or big-endian";
  }

 private:
  std::size_t bytes_;
  std::unique_ptr<ByteStream> stream_;
  std::int64_t tokens_ = 0;
  std::vector<char> raw_;
};

class Hdf5File : public TokenFile {
 public:
  Hdf5File(const fs::path& file, const TokenFileOptions& options)
      : file_(open(file)),
        dataset_(file_.dataset(options.dataset.empty() ? only_dataset() : options.dataset)) {
    const std::string name = fmt::format("{}: dataset \"{}\"", file.string(), dataset_.name());
    if (!dataset_.holds_integers()) fail("{} does not hold integers", name);
    dataset_.require_written();
    const auto bits = static_cast<int>(8 * dataset_.element_bytes());
    check_holds(options.vocab_size, dataset_.holds_unsigned() ? bits : bits - 1,
                fmt::format("{} holds {} numbers of {} bits", name,
                            dataset_.holds_unsigned() ? "unsigned" : "signed", bits));
  }
  std::int64_t tokens() const override { return dataset_.size(); }
  std::size_t read(std::span<std::int64_t> out) override {
    const auto count =
        static_cast<std::size_t>(std::min<std::int64_t>(dataset_.size() - at_, std::ssize(out)));
    dataset_.read(at_, out.first(count));
    at_ += static_cast<std::int64_t>(count);
    return count;
  }
  const char* doubt() const override { return ""; }

 private:
  static hdf5::File open(const fs::path& file) {
    if (fs::is_regular_file(file)) refuse_foreign(file, Wanted::hdf5_tokens);
    return hdf5::File::open(file);
  }
  std::string only_dataset() const {
    const std::vector<std::string> names = file_.datasets();
    if (names.size() == 1) return names.front();
    if (names.empty()) fail("{}: holds no dataset", file_.file().string());
    fail("{}: name the dataset with --dataset; there are: {}", file_.file().string(), fmt::join(names, ", "));
  }

  hdf5::File file_;
  hdf5::Dataset dataset_;
  std::int64_t at_ = 0;
};

/// Whether all numbers of a lane of `period` lanes are at most `most`.
template <typename Number>
bool lane_at_most(const std::vector<Number>& numbers, std::size_t period, std::size_t lane, Number most) {
  for (std::size_t i = lane; i < numbers.size(); i += period) {
    if (numbers[i] > most) return false;
  }
  return true;
}

template <typename Number>
std::vector<Number> numbers_in(const std::string& bytes) {
  std::vector<Number> numbers(bytes.size() / sizeof(Number));
  if (!numbers.empty()) std::memcpy(numbers.data(), bytes.data(), numbers.size() * sizeof(Number));
  return numbers;
}

}  // namespace

std::string width_doubt(const fs::path& file, int bytes) {
  constexpr std::size_t looked_at = std::size_t{1} << 18;
  constexpr std::size_t enough = 512;           // bytes
  constexpr std::uint16_t most_high_half = 15;  // of ids below 1,048,576
  const std::string raw = first_bytes(file, looked_at);
  if (raw.size() < enough || bytes == 8) return "";
  const auto say = [&](const char* each, int wide) {
    return fmt::format(
        "{}: read as {}-byte tokens, {} of its first {} is next to 0; its tokens seem to have {} "
        "bytes, so give --bin-bytes {}",
        file.string(), bytes, each, raw.size() / static_cast<std::size_t>(bytes), wide, wide);
  };
  if (bytes == 4) {
    const auto numbers = numbers_in<std::uint32_t>(raw);
    const bool wider = lane_at_most(numbers, 2, 1, 0U) && !lane_at_most(numbers, 2, 0, 0U);
    return wider ? say("every second", 8) : "";
  }
  const auto numbers = numbers_in<std::uint16_t>(raw);
  const auto low = [&](std::size_t period, std::size_t lane, std::uint16_t most) {
    return lane_at_most<std::uint16_t>(numbers, period, lane, most);
  };
  if (!low(2, 1, most_high_half) || low(2, 0, most_high_half)) return "";
  return low(4, 2, 0) && low(4, 3, 0) ? say("three of four", 8) : say("every second", 4);
}

std::string byte_order_doubt(const fs::path& file, int bytes) {
  constexpr std::size_t looked_at = std::size_t{1} << 18;  // bytes
  constexpr std::size_t enough = 2048;                     // bytes
  constexpr std::uint16_t small = 4096;  // below it are most of a text's tokens, whatever the vocabulary
  if (bytes != 2) return "";
  const auto numbers = numbers_in<std::uint16_t>(first_bytes(file, looked_at));
  if (numbers.size() * sizeof(std::uint16_t) < enough) return "";
  const auto as_read = std::ranges::count_if(numbers, [&](std::uint16_t n) { return n < small; });
  const auto swapped = std::ranges::count_if(
      numbers, [&](std::uint16_t n) { return static_cast<std::uint16_t>(n << 8 | n >> 8) < small; });
  if (2 * swapped < std::ssize(numbers) || swapped < 2 * as_read) return "";
  return fmt::format(
      "{}: seems to be big-endian: of its first {} tokens {} are below {} as they are read, little-endian, "
      "and {} "
      "with their bytes swapped; swap them (`dd conv=swab if={} of=NEW.bin`)",
      file.string(), numbers.size(), as_read, small, swapped, file.string());
}

std::unique_ptr<TokenFile> open_tokens(const fs::path& file, const TokenFileOptions& options) {
  const fs::path kind = file.extension();
  if (kind == ".bin") return std::make_unique<BinFile>(file, options);
  if (kind == ".h5" || kind == ".hdf5") return std::make_unique<Hdf5File>(file, options);
  if (fs::is_regular_file(file)) {
    refuse_foreign(file, Wanted::tokens);
    fail("input {} is neither a .bin nor a .h5 file; rename it to .bin if it holds raw tokens",
         file.string());
  }
  fail("input {} is neither a .bin nor a .h5 file; give raw tokens or an HDF5 file", file.string());
}

}  // namespace ratplus::data
