// Bytes of the text behind tokens, for bits per byte.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/dataset/manifest.h"

namespace ratplus::data {
class Tokenizer;
}

namespace ratplus::evaluation {

/// The bytes of UTF-8 that each token of a vocabulary stands for within a text.
struct TextBytes {
  static constexpr std::int32_t unknown = -1;

  /// By token: 0 for special ones (the end of a text), `unknown` for the unknown token and beyond the tokenizer's
  /// vocabulary. Empty: no token's bytes are known.
  std::vector<std::int32_t> of_token = {};
  std::string missing = {};  ///< where none are known: the reason, and the way out

  /// Of a vocabulary of `vocab_size` tokens, at least the tokenizer's.
  TextBytes(const data::Tokenizer& tokenizer, std::int64_t vocab_size);
  TextBytes() = default;
};

/// By the tokenizer beside the shards of the dataset. Throws no Error where it cannot be read: `missing` has the message.
TextBytes text_bytes(const std::filesystem::path& dataset, const data::Manifest& manifest);

}  // namespace ratplus::evaluation
