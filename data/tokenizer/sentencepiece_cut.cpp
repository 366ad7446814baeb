#include "data/tokenizer/sentencepiece_cut.h"

#include <cstdint>
#include <optional>

namespace ratplus::data {
namespace {

/// The fields of a message in protobuf's wire format, which has four kinds of values.
class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}

  /// The next field; false at the end, and where the bytes are none of the format.
  bool next() {
    const auto key = varint();
    if (!key) return false;
    number = *key >> 3;
    value = 0;
    bytes = {};
    std::optional<std::uint64_t> size;
    switch (*key & 7) {
      case 0: {
        const auto read = varint();
        value = read.value_or(0);
        return read.has_value();
      }
      case 1:
        size = 8;
        break;
      case 2:
        size = varint();
        break;
      case 5:
        size = 4;
        break;
      default:
        break;
    }
    if (!size || *size > rest_.size()) return false;
    bytes = rest_.substr(0, *size);
    rest_.remove_prefix(*size);
    return true;
  }
  bool at_end() const { return rest_.empty(); }

  std::uint64_t number = 0;
  std::uint64_t value = 0;
  std::string_view bytes;

 private:
  std::optional<std::uint64_t> varint() {
    std::uint64_t read = 0;
    for (unsigned shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      read |= std::uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return read;
    }
    return std::nullopt;
  }

  std::string_view rest_;
};

/// The numbers and defaults are those of sentencepiece_model.proto.
struct Model {
  bool sound = true;
  bool is_bpe = false;
  bool blank_behind = false;  ///< treat_whitespace_as_suffix
  bool replaces = false;      ///< precompiled_charsmap
  bool adds_blank = true;     ///< add_dummy_prefix
  bool removes_blanks = true;
  bool escapes_blanks = true;
  bool rewrites = false;   ///< precompiled_charsmap of the denormalizer
  bool has_blank = false;  ///< the blank alone is a piece
  bool blanks_lead = true;

  void read_piece(std::string_view bytes) {
    Fields field(bytes);
    while (field.next()) {
      if (field.number != 1) continue;
      std::string_view piece = field.bytes;
      if (piece == sentencepiece_blank) has_blank = true;
      while (piece.starts_with(sentencepiece_blank)) piece.remove_prefix(sentencepiece_blank.size());
      if (piece.find(sentencepiece_blank) != std::string_view::npos ||
          piece.find(' ') != std::string_view::npos)
        blanks_lead = false;
    }
    sound = sound && field.at_end();
  }

  void read_trainer(std::string_view bytes) {
    constexpr std::uint64_t bpe = 2;
    Fields field(bytes);
    while (field.next()) {
      if (field.number == 3) is_bpe = field.value == bpe;
      if (field.number == 24) blank_behind = field.value != 0;
    }
    sound = sound && field.at_end();
  }

  void read_normalizer(std::string_view bytes) {
    Fields field(bytes);
    while (field.next()) {
      if (field.number == 2) replaces = !field.bytes.empty();
      if (field.number == 3) adds_blank = field.value != 0;
      if (field.number == 4) removes_blanks = field.value != 0;
      if (field.number == 5) escapes_blanks = field.value != 0;
    }
    sound = sound && field.at_end();
  }

  void read_denormalizer(std::string_view bytes) {
    Fields field(bytes);
    while (field.next()) {
      if (field.number == 2) rewrites = !field.bytes.empty();
    }
    sound = sound && field.at_end();
  }
};

}  // namespace

SentencePieceCut sentencepiece_cut(std::string_view bytes) {
  Model model;
  Fields field(bytes);
  while (field.next()) {
    if (field.number == 1) model.read_piece(field.bytes);
    if (field.number == 2) model.read_trainer(field.bytes);
    if (field.number == 3) model.read_normalizer(field.bytes);
    if (field.number == 5) model.read_denormalizer(field.bytes);
  }
  model.sound = model.sound && field.at_end();
  // A part that begins with the blank of the cut loses it where the model removes blanks at the beginning.
  const bool keeps_blank = model.adds_blank || !model.removes_blanks;
  return {.allowed = model.sound && model.is_bpe && !model.blank_behind && !model.replaces &&
                     model.escapes_blanks && model.has_blank && model.blanks_lead && keeps_blank,
          .adds_blank = model.adds_blank,
          .removes_blanks = model.removes_blanks,
          .rewrites_text = model.rewrites || !model.sound};
}

}  // namespace ratplus::data
