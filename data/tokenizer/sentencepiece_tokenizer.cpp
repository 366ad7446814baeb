#include "data/tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <algorithm>

#include "base/error.h"
#include "data/tokenizer/sentencepiece_cut.h"
#include "data/tokenizer/sentencepiece_words.h"
#include "data/tokenizer/utf8_stream.h"

namespace ratplus::data {
namespace {

/// Longer texts are encoded in parts of about this many bytes: SentencePiece's merging takes some 100 bytes
/// of memory for each byte of text, and slows down when that leaves the caches.
constexpr std::size_t part_bytes = std::size_t{64} << 10;

/// A part without such an end takes up to 150 bytes of memory for each of its own: beyond this, there is a message
/// rather than a process that is killed.
constexpr std::size_t most_bytes = std::size_t{128} << 20;

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/// Of the piece <0x0A>.
char byte_of(const std::string& piece) {
  return static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16));
}

/// Where the first part of `text` ends: at a single blank between two words at or after `part_bytes`, or at
/// the end.
std::size_t part_end(std::string_view text) {
  for (std::size_t at = part_bytes; at + 1 < text.size(); ++at) {
    if (text[at] != ' ' || is_space(text[at - 1]) || is_space(text[at + 1])) continue;
    // The text may hold the character that stands for a blank.
    if (!text.substr(0, at).ends_with(sentencepiece_blank) &&
        !text.substr(at + 1).starts_with(sentencepiece_blank))
      return at;
  }
  return text.size();
}

/// Follows the library's decoding: U+2581 becomes a blank, a text's first blanks go where the model adds or removes such,
/// and each byte that is no part of a character becomes U+FFFD.
class SentencePieceDecoder : public ModelDecoder {
 public:
  SentencePieceDecoder(const sentencepiece::SentencePieceProcessor& model, const SentencePieceCut& blanks)
      : model_(model), blanks_(blanks) {}

  std::string add(std::int32_t token) override {
    if (model_.IsByte(token)) {
      bytes_.add(byte_of(model_.IdToPiece(token)));
      return kept(bytes_.take(false));
    }
    std::string text = kept(bytes_.take(true));
    std::string_view piece = model_.IdToPiece(token);
    if (model_.IsUnknown(token)) {
      model_.Decode(std::vector<int>{token}, &unknown_).IgnoreError();
      return text + kept(unknown_);
    }
    if (at_start_ && (blanks_.adds_blank || blanks_.removes_blanks) &&
        piece.starts_with(sentencepiece_blank)) {
      piece.remove_prefix(sentencepiece_blank.size());
      if (!blanks_.removes_blanks) at_start_ = false;
    }
    for (std::size_t at = piece.find(sentencepiece_blank); at != std::string_view::npos;
         at = piece.find(sentencepiece_blank)) {
      text.append(piece.substr(0, at)) += ' ';
      piece.remove_prefix(at + sentencepiece_blank.size());
    }
    return kept(text.append(piece));
  }
  std::string finish() override { return kept(bytes_.take(true)); }

 private:
  std::string kept(std::string text) {
    if (!text.empty()) at_start_ = false;
    return text;
  }

  const sentencepiece::SentencePieceProcessor& model_;
  SentencePieceCut blanks_;
  bool at_start_ = true;  ///< a blank to come goes
  std::string unknown_;
  Utf8Stream bytes_{Utf8Stream::Replace::each_byte};
};

/// For models that rewrite a whole text: all of it comes at the end.
class WholeTextDecoder : public ModelDecoder {
 public:
  explicit WholeTextDecoder(const TokenizerModel& model) : model_(model) {}
  std::string add(std::int32_t token) override {
    tokens_.push_back(token);
    return {};
  }
  std::string finish() override { return model_.decode(tokens_); }

 private:
  const TokenizerModel& model_;
  std::vector<std::int32_t> tokens_;
};

class SentencePieceTokenizer : public TokenizerModel {
 public:
  SentencePieceTokenizer(const std::string& bytes, std::string file) : file_(std::move(file)) {
    const auto status = model_.LoadFromSerializedProto(bytes);
    if (!status.ok()) {  // its words are the source line and condition that failed
      fail(
          "{} is neither a SentencePiece model nor a tokenizer.json; give a tokenizer.model, or train one "
          "with "
          "--train-tokenizer",
          file_);
    }
    cut_ = sentencepiece_cut(bytes);
  }

  std::int64_t vocab_size() const override { return model_.GetPieceSize(); }
  std::int32_t end_of_text() const override { return model_.eos_id(); }
  std::int32_t id_of(const std::string& piece) const override {
    const int id = model_.PieceToId(piece);
    return model_.IdToPiece(id) == piece ? id : -1;
  }

  void encode(std::string_view text, std::vector<std::int32_t>& out) const override {
    std::vector<int> ids;
    while (!text.empty()) {
      // Where cutting is allowed, a piece holds blanks only at its beginning, so no merge crosses the cut, and the
      // parts give the tokens of the whole. The blank at the cut is the one that the model puts before
      // a text, if it does that, and stays with the next part otherwise.
      const std::size_t end = cut_.allowed ? part_end(text) : text.size();
      if (end > most_bytes) {
        fail("{} MB of a text {}; cut it into documents, or leave it out", end >> 20,
             cut_.allowed ? "have no single blank between two words"
                          : "cannot be encoded in parts with this SentencePiece model");
      }
      const auto status = model_.Encode(text.substr(0, end), &ids);
      if (!status.ok()) fail("{}: cannot encode a text: {}", file_, plain_words(status.message()));
      out.insert(out.end(), ids.begin(), ids.end());
      text.remove_prefix(std::min(text.size(), end + (cut_.adds_blank ? 1 : 0)));
    }
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    const auto status = model_.Decode(std::vector<int>(tokens.begin(), tokens.end()), &text);
    if (!status.ok()) fail("{}: cannot decode: {}", file_, plain_words(status.message()));
    return text;
  }
  bool is_special(std::int32_t token) const override { return model_.IsControl(token); }
  std::string bytes_of(std::int32_t token) const override {
    std::string piece = model_.IdToPiece(token);
    if (model_.IsControl(token)) return piece;
    if (model_.IsByte(token)) return std::string(1, byte_of(piece));
    for (auto at = piece.find(sentencepiece_blank); at != std::string::npos;
         at = piece.find(sentencepiece_blank))
      piece.replace(at, sentencepiece_blank.size(), " ");
    return piece;
  }
  std::unique_ptr<ModelDecoder> make_decoder() const override {
    if (cut_.rewrites_text) return std::make_unique<WholeTextDecoder>(*this);
    return std::make_unique<SentencePieceDecoder>(model_, cut_);
  }

 private:
  sentencepiece::SentencePieceProcessor model_;
  std::string file_;
  SentencePieceCut cut_;
};

}  // namespace

std::unique_ptr<TokenizerModel> sentencepiece_tokenizer(const std::string& bytes, const std::string& file) {
  return std::make_unique<SentencePieceTokenizer>(bytes, file);
}

}  // namespace ratplus::data
