// Tokenizer: text to token ids and back, by SentencePiece.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::data {

class Tokenizer {
 public:
  /// Loads a SentencePiece model (LLaMA-2's tokenizer.model is one). Throws Error naming the file.
  explicit Tokenizer(const std::filesystem::path& model);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  std::int64_t vocab_size() const;
  std::int32_t end_of_text() const;  ///< the model's eos id
  /// "sentencepiece:sha256:" and the digest of the model file.
  const std::string& identity() const;
  /// Ids of the text, without begin or end tokens.
  void encode(std::string_view text, std::vector<std::int32_t>& out) const;
  std::string decode(std::span<const std::int32_t> tokens) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ratplus::data
