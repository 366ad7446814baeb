#include "data/tokenizer/huggingface_tokenizer.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/error.h"
#include "base/json_dump.h"
#include "base/json_int32.h"
#include "base/parse_json.h"
#include "base/utf8.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/utf8_stream.h"
#include "data/tokenizer/word_cutter.h"

namespace ratplus::data {
namespace {

using Json = nlohmann::json;

constexpr std::string_view blank = "\xE2\x96\x81";  // U+2581, a blank in byte-fallback vocabularies

[[noreturn]] void refuse(const std::string& file, std::string_view what) {
  fail(
      "{}: {}, which this program does not implement; use another tokenizer.json (byte-level or "
      "byte-fallback BPE) or a "
      "SentencePiece model",
      file, what);
}

std::string to_utf8(std::uint32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  if (c < 0x800) return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
  return {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
          static_cast<char>(0x80 | (c & 0x3F))};
}

/// GPT-2's alphabet: each byte as a printable character; those that are none are counted up from U+0100.
std::array<std::string, 256> byte_alphabet() {
  std::array<std::string, 256> alphabet;
  std::uint32_t next = 256;
  for (std::uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    alphabet[byte] = to_utf8(printable ? byte : next++);
  }
  return alphabet;
}

std::size_t character_bytes(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

/// The names that tokenizers give to the end of a text, the usual ones first.
constexpr std::array end_of_text_names = {"<|endoftext|>", "<|end_of_text|>",       "</s>", "<eos>",
                                          "<|eos|>",       "<｜end▁of▁sentence｜>", "<EOT>"};

/// The text with a blank in place of each U+2581.
std::string with_blanks(std::string_view text) {
  std::string result;
  for (std::size_t at = 0; at < text.size();) {
    const bool is_blank = text.substr(at).starts_with(blank);
    result += is_blank ? ' ' : text[at];
    at += is_blank ? blank.size() : 1;
  }
  return result;
}

/// Decodes the bytes that tokens stand for.
class ByteDecoder : public ModelDecoder {
 public:
  /// bytes_of: of a token. blanks_: U+2581 stands for a blank. strips_blank: the blank before a text goes.
  ByteDecoder(std::function<std::string(std::int32_t)> bytes_of, bool blanks, bool strips_blank)
      : bytes_of_(std::move(bytes_of)), blanks_(blanks), strips_blank_(strips_blank) {}

  std::string add(std::int32_t token) override {
    for (const char byte : bytes_of_(token)) bytes_.add(byte);
    return shown(bytes_.take(false));
  }
  std::string finish() override { return shown(bytes_.take(true)); }

 private:
  /// Of whole characters.
  std::string shown(std::string text) {
    if (blanks_) text = with_blanks(text);
    if (!text.empty() && strips_blank_) {
      if (text.front() == ' ') text.erase(0, 1);
      strips_blank_ = false;
    }
    return text;
  }

  std::function<std::string(std::int32_t)> bytes_of_;
  bool blanks_;
  bool strips_blank_;
  Utf8Stream bytes_{Utf8Stream::Replace::together};
};

class HuggingFaceTokenizer : public TokenizerModel {
 public:
  HuggingFaceTokenizer(const Json& json, std::string file);

  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(pieces_.size()); }
  std::int32_t end_of_text() const override;
  std::int32_t id_of(const std::string& piece) const override {
    const auto found = ids_.find(piece);
    return found == ids_.end() ? -1 : found->second;
  }
  void encode(std::string_view text, std::vector<std::int32_t>& out) const override;
  std::string decode(std::span<const std::int32_t> tokens) const override;
  bool is_special(std::int32_t token) const override { return is_special_[static_cast<std::size_t>(token)]; }
  std::string bytes_of(std::int32_t token) const override {
    return byte_level_ ? raw_bytes_of(token) : with_blanks(raw_bytes_of(token));
  }
  std::unique_ptr<ModelDecoder> make_decoder() const override {
    return std::make_unique<ByteDecoder>([this](std::int32_t token) { return raw_bytes_of(token); },
                                         !byte_level_, strips_blank_);
  }

 private:
  void read_model(const Json& model);
  void read_merges(const Json& merges);
  void read_symbols(const Json& model);
  void check_decoder(const Json& decoder) const;
  std::int32_t piece(const std::string& name) const;
  /// The bytes that a token stands for, with U+2581 for a blank where the vocabulary has that.
  std::string raw_bytes_of(std::int32_t token) const;

  void encode_words(std::string_view text, bool at_start, std::vector<std::int32_t>& out) const;
  void encode_pieces_of(std::string_view word, std::vector<std::int32_t>& out) const;
  void encode_word(std::string_view word, std::vector<std::int32_t>& out) const;
  void spell(std::string_view word, std::vector<std::int32_t>& symbols) const;
  WordCache& cache() const;

  std::string file_;
  const std::uint64_t number_;  ///< tells this tokenizer's cached words from those of another
  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<WordCutter> cutter_;
  std::unique_ptr<AddedTokens> added_;
  bool byte_level_ = false;   ///< words are spelt in bytes; else in characters, with bytes for unknown ones
  bool whole_words_ = false;  ///< a word that is a piece is that piece, whatever the merges say
  bool cuts_at_blanks_ = false;  ///< no merge joins a character with a blank after it
  bool strips_blank_ = false;    ///< decoding takes the blank away that encoding put before the text
  std::unordered_map<std::string, std::int32_t> ids_;
  std::vector<std::string> pieces_;  ///< by id
  std::vector<bool> is_added_;       ///< by id: spelt as it is, in text and in pieces
  std::vector<bool> is_special_;     ///< by id: an added token that is no text
  std::unique_ptr<Merges> merges_;
  std::array<std::int32_t, 256> byte_ids_{};             ///< of the byte's own piece; -1: there is none
  std::unordered_map<std::string, std::int32_t> words_;  ///< whole_words_: pieces by their bytes
};

std::uint64_t next_number() {
  static std::atomic<std::uint64_t> last = 0;
  return ++last;
}

HuggingFaceTokenizer::HuggingFaceTokenizer(const Json& json, std::string file)
    : file_(std::move(file)), number_(next_number()) {
  for (const char* key : {"truncation", "padding"}) {
    if (json.contains(key) && !json[key].is_null()) refuse(file_, fmt::format("it has \"{}\"", key));
  }
  if (!json.contains("model")) fail("{}: has no \"model\", so it is no tokenizer.json", file_);
  normalizer_ = make_normalizer(json.value("normalizer", Json()), file_);
  cutter_ = make_word_cutter(json.value("pre_tokenizer", Json()), file_);
  byte_level_ = cutter_ != nullptr && cutter_->byte_level();
  read_model(json["model"]);
  added_ = std::make_unique<AddedTokens>(json.value("added_tokens", Json::array()), normalizer_.get(), file_);
  for (const AddedToken& token : added_->tokens()) {
    ids_[token.content] = token.id;
    const auto id = static_cast<std::size_t>(token.id);
    if (id >= pieces_.size()) pieces_.resize(id + 1);
    pieces_[id] = token.content;
  }
  is_added_.resize(pieces_.size());
  is_special_.resize(pieces_.size());
  for (const AddedToken& token : added_->tokens()) {
    is_added_[static_cast<std::size_t>(token.id)] = true;
    is_special_[static_cast<std::size_t>(token.id)] = token.special;
  }
  check_decoder(json.value("decoder", Json()));
}

void HuggingFaceTokenizer::read_model(const Json& model) {
  const std::string type = model.value("type", "BPE");
  if (type != "BPE") refuse(file_, fmt::format("its model is of the type \"{}\"", type));
  const auto given = [&](const char* key) {
    return model.contains(key) && !model[key].is_null() && model[key] != Json("") && model[key] != false;
  };
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    if (given(key)) refuse(file_, fmt::format("its model has \"{}\"", key));
  }
  std::int64_t size = 0;
  for (const auto& [name, id] : model.at("vocab").items()) {
    const std::optional<std::int32_t> number = int32_of(id);
    if (!number || *number < 0) fail("{}: piece \"{}\" has the id {}", file_, name, json_dump(id));
    ids_[name] = *number;
    size = std::max<std::int64_t>(size, std::int64_t{*number} + 1);
  }
  pieces_.resize(static_cast<std::size_t>(size));
  for (const auto& [name, id] : ids_) pieces_[static_cast<std::size_t>(id)] = name;
  read_merges(model.at("merges"));
  read_symbols(model);
}

std::int32_t HuggingFaceTokenizer::piece(const std::string& name) const {
  const std::int32_t id = id_of(name);
  if (id < 0) fail("{}: a merge makes \"{}\", which its vocabulary lacks; the file is damaged", file_, name);
  return id;
}

void HuggingFaceTokenizer::read_merges(const Json& merges) {
  merges_ = std::make_unique<Merges>(merges.size());
  cuts_at_blanks_ = !byte_level_;
  std::uint32_t rank = 0;
  for (const Json& merge : merges) {
    std::string left;
    std::string right;
    if (merge.is_array() && merge.size() == 2) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else {  // "left right": neither holds a blank
      const auto text = merge.get<std::string>();
      const auto space = text.find(' ');
      if (space == std::string::npos) fail("{}: merge {} is \"{}\", not a pair", file_, rank, text);
      left = text.substr(0, space);
      right = text.substr(space + 1);
    }
    merges_->add(piece(left), piece(right), {.rank = rank++, .merged = piece(left + right)});
    const bool crosses = right.starts_with(blank) && !left.ends_with(blank);
    cuts_at_blanks_ = cuts_at_blanks_ && !crosses;
  }
}

/// What words are spelt with before any merge.
void HuggingFaceTokenizer::read_symbols(const Json& model) {
  whole_words_ = model.value("ignore_merges", false);
  if (byte_level_) {
    const auto alphabet = byte_alphabet();
    std::unordered_map<std::string, char> bytes;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      byte_ids_[byte] = id_of(alphabet[byte]);
      // GPT-NeoX's lacks those that no UTF-8 has; a byte without a piece is left out, as the library does.
      if (byte_ids_[byte] < 0 && !model.value("unk_token", Json()).is_null()) {
        refuse(file_, fmt::format("its vocabulary has no piece \"{}\" for byte {}, but an \"unk_token\"",
                                  alphabet[byte], byte));
      }
      bytes[alphabet[byte]] = static_cast<char>(byte);
    }
    for (std::string& name : pieces_) {  // from here on pieces are kept as the bytes they stand for
      std::string raw;
      for (std::size_t at = 0; at < name.size(); at += character_bytes(name[at])) {
        const auto found = bytes.find(name.substr(at, character_bytes(name[at])));
        if (found == bytes.end()) {
          raw.clear();
          break;
        }
        raw += found->second;
      }
      if (whole_words_ && !raw.empty()) words_[raw] = id_of(name);
      if (!raw.empty()) name = raw;
    }
    return;
  }
  if (!model.value("byte_fallback", false)) {
    refuse(file_, "its model is neither byte-level nor has it byte_fallback");
  }
  for (int byte = 0; byte < 256; ++byte) {
    const std::string name = fmt::format("<0x{:02X}>", byte);
    byte_ids_[static_cast<std::size_t>(byte)] = id_of(name);
    if (id_of(name) < 0)
      refuse(file_, fmt::format("its vocabulary falls back to bytes, but has no piece \"{}\"", name));
  }
  if (whole_words_) words_ = ids_;
}

/// Decoding here is byte-level, or that of SentencePiece-like vocabularies; others would show wrong text.
void HuggingFaceTokenizer::check_decoder(const Json& decoder) const {
  const std::string type = decoder.is_object() ? decoder.value("type", "") : "";
  const bool known =
      byte_level_ ? type == "ByteLevel" || type == "Sequence"
                  : type == "Sequence" || type == "Metaspace" || type == "ByteFallback" || type.empty();
  if (!known && !decoder.is_null()) refuse(file_, fmt::format("its decoder is of the type \"{}\"", type));
  const_cast<HuggingFaceTokenizer*>(this)->strips_blank_ =
      !byte_level_ && (type == "Metaspace" || json_dump(decoder).find("\"Strip\"") != std::string::npos);
}

std::int32_t HuggingFaceTokenizer::end_of_text() const {
  for (const char* name : end_of_text_names) {
    const std::int32_t id = id_of(name);
    if (id >= 0 && is_added_[static_cast<std::size_t>(id)]) return id;
  }
  return -1;
}

// Encoding.

void HuggingFaceTokenizer::encode(std::string_view text, std::vector<std::int32_t>& out) const {
  added_->cut(
      text, [&](std::string_view words, bool at_start) { encode_words(words, at_start, out); },
      [&](std::int32_t id) { out.push_back(id); });
}

void HuggingFaceTokenizer::encode_words(std::string_view text, bool at_start,
                                        std::vector<std::int32_t>& out) const {
  if (cutter_ == nullptr) {
    encode_pieces_of(text, out);
  } else {
    cutter_->cut(text, at_start, [&](std::string_view word) { encode_pieces_of(word, out); });
  }
}

/// A word of the cutter; where no merge crosses the beginning of a blank, its parts from blank to blank, which are short
/// and recur.
void HuggingFaceTokenizer::encode_pieces_of(std::string_view word, std::vector<std::int32_t>& out) const {
  if (!cuts_at_blanks_ || whole_words_) {
    encode_word(word, out);
    return;
  }
  std::size_t begin = 0;
  for (std::size_t at = word.find(blank); at != std::string_view::npos;) {
    // The blanks that stand together, and what follows them up to the next.
    if (at > begin) encode_word(word.substr(begin, at - begin), out);
    begin = at;
    while (word.substr(at).starts_with(blank)) at += blank.size();
    at = word.find(blank, at);
  }
  encode_word(word.substr(begin), out);
}

void HuggingFaceTokenizer::encode_word(std::string_view word, std::vector<std::int32_t>& out) const {
  if (word.empty()) return;
  WordCache& known = cache();
  if (known.find(word, out)) return;
  if (whole_words_) {
    if (const auto found = words_.find(std::string(word)); found != words_.end()) {
      out.push_back(found->second);
      return;
    }
  }
  thread_local std::vector<std::int32_t> symbols;
  symbols.clear();
  spell(word, symbols);
  merges_->apply(symbols);
  out.insert(out.end(), symbols.begin(), symbols.end());
  known.keep(word, symbols);
}

void HuggingFaceTokenizer::spell(std::string_view word, std::vector<std::int32_t>& symbols) const {
  if (byte_level_) {
    for (const char c : word) {
      if (const std::int32_t id = byte_ids_[static_cast<unsigned char>(c)]; id >= 0) symbols.push_back(id);
    }
    return;
  }
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t bytes = character_bytes(word[at]);
    const auto character = word.substr(at, bytes);
    at += bytes;
    if (const std::int32_t id = id_of(std::string(character)); id >= 0) {
      symbols.push_back(id);
    } else {
      for (const char c : character) symbols.push_back(byte_ids_[static_cast<unsigned char>(c)]);
    }
  }
}

/// This thread's; emptied when it last served another tokenizer.
WordCache& HuggingFaceTokenizer::cache() const {
  thread_local WordCache words;
  thread_local std::uint64_t owner = 0;
  if (owner != number_) {
    words = WordCache();
    owner = number_;
  }
  return words;
}

// Decoding.

std::string HuggingFaceTokenizer::raw_bytes_of(std::int32_t token) const {
  const std::string& name = pieces_[static_cast<std::size_t>(token)];
  const bool is_byte = !byte_level_ && name.size() == 6 && name.starts_with("<0x");
  return is_byte ? std::string(1, static_cast<char>(std::stoi(name.substr(3, 2), nullptr, 16))) : name;
}

std::string HuggingFaceTokenizer::decode(std::span<const std::int32_t> tokens) const {
  std::string text;
  for (const std::int32_t id : tokens) text += raw_bytes_of(id);
  if (!byte_level_) {
    text = with_blanks(text);
    if (strips_blank_ && text.starts_with(' ')) text.erase(0, 1);
  }
  repair_utf8(text);  // a range of tokens may begin or end inside a character
  return text;
}

}  // namespace

std::unique_ptr<TokenizerModel> huggingface_tokenizer(const std::string& text, const std::string& file) {
  try {
    return std::make_unique<HuggingFaceTokenizer>(parse_json(text), file);
  } catch (const Json::exception& error) {
    fail("{}: not a sound tokenizer.json ({})", file, error.what());
  }
}

}  // namespace ratplus::data
