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
};

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
  std::string decode(std::span<const std::int32_t> tokens) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ratplus::data
