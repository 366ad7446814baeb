// Tokenizer: text to token ids and back, by SentencePiece or a Hugging Face tokenizer.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::data {

/// Decodes tokens that come one by one, by a kind of tokenizer; no special ones, none outside the vocabulary.
class ModelDecoder {
 public:
  virtual ~ModelDecoder() = default;
  /// The text that no later token changes, after what was given before.
  virtual std::string add(std::int32_t token) = 0;
  /// The rest, where no token follows.
  virtual std::string finish() = 0;
};

/// The interface of a kind of tokenizer. Thread-safe once made.
class TokenizerModel {
 public:
  virtual ~TokenizerModel() = default;
  virtual std::int64_t vocab_size() const = 0;
  /// The id of the end of a text; -1 if the file does not say.
  virtual std::int32_t end_of_text() const = 0;
  /// The id of a piece, by its name; -1 if there is none.
  virtual std::int32_t id_of(const std::string& piece) const = 0;
  virtual void encode(std::string_view text, std::vector<std::int32_t>& out) const = 0;
  virtual std::string decode(std::span<const std::int32_t> tokens) const = 0;
  /// Whether a token marks a place in a text (its beginning, its end) and is no text itself.
  virtual bool is_special(std::int32_t token) const = 0;
  /// The bytes of a token within a text, of which several tokens may make one character; the name of a special token.
  virtual std::string bytes_of(std::int32_t token) const = 0;
  /// The tokenizer outlives it.
  virtual std::unique_ptr<ModelDecoder> make_decoder() const = 0;
};

class TokenDecoder;

class Tokenizer {
 public:
  /// Loads a SentencePiece model (LLaMA-2's tokenizer.model is one) or a tokenizer.json. Throws Error naming the file,
  /// and what of a tokenizer.json is not known here. `end_of_text`: the piece that ends a text, where the file itself
  /// does not name it or another is wanted.
  explicit Tokenizer(const std::filesystem::path& model, const std::string& end_of_text = {});
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  std::int64_t vocab_size() const;
  /// Throws Error naming the file if it has none.
  std::int32_t end_of_text() const;
  /// "sentencepiece:sha256:" or "huggingface:sha256:", and the digest of the file.
  const std::string& identity() const;
  /// The name that its file has beside shards: tokenizer.model or tokenizer.json.
  const char* file_name() const;
  /// Ids of the text, without begin or end tokens. The text is well-formed UTF-8. Thread-safe.
  void encode(std::string_view text, std::vector<std::int32_t>& out) const;
  /// The text of tokens, as well-formed UTF-8. Throws Error for an id outside the vocabulary. Thread-safe.
  std::string decode(std::span<const std::int32_t> tokens) const;
  /// Whether a token marks a place in a text (its beginning, its end) and is no text itself: a control piece, or an added
  /// token of a tokenizer.json that is "special". Throws Error for an id outside the vocabulary.
  bool is_special(std::int32_t token) const;
  /// The bytes of a token within a text, of which several tokens may make one character; the name of a special token.
  /// Throws Error for an id outside the vocabulary.
  std::string bytes_of(std::int32_t token) const;

 private:
  friend class TokenDecoder;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Decodes tokens that come one by one, in time that is linear in their number. The texts together are decode() of the
/// tokens, special ones left out. Each is well-formed UTF-8: a character whose bytes come in several tokens is given with
/// the last of them, and U+FFFD only for bytes that no later token makes a character. The tokenizer outlives it.
class TokenDecoder {
 public:
  explicit TokenDecoder(const Tokenizer& tokenizer);

  /// The text that the token makes certain; often none. Throws Error for an id outside the vocabulary.
  std::string add(std::int32_t token);
  /// The rest, where no token follows; afterwards the next token begins another text.
  std::string finish();

 private:
  const Tokenizer::Impl* tokenizer_;
  std::unique_ptr<ModelDecoder> model_;
};

}  // namespace ratplus::data
