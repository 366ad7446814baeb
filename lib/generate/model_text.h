// ModelText: the tokenizer of a model's weights, and the token that ends its texts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer/tokenizer.h"
#include "lib/checkpoint/manifest.h"

namespace ratplus::generate {

struct ModelText {
  std::optional<data::Tokenizer> tokenizer = {};
  std::int32_t end_of_text = -1;  ///< -1: not known
  std::int64_t model_tokens = 0;  ///< of the model's vocabulary: at least the tokenizer's
  std::string missing = {};       ///< why there is no tokenizer, with the way out; empty where there is one

  /// Throws Error with `missing` where there is none.
  const data::Tokenizer& required() const;
  /// The text of a prompt's tokens, without special ones and those of the model that the tokenizer lacks. There is a tokenizer,
  /// and no token is negative.
  std::string text_of(std::vector<std::int32_t> tokens) const;
};

/// The tokenizer at `given` (a file, a dataset, a checkpoint or a run; --tokenizer), else that of the dataset on which the
/// weights were trained; there may be none. `end_of_text` names the piece that ends a text (--end-of-text); empty: as the
/// dataset or the tokenizer's file says. Throws Error for a given one that cannot be read, for another one than the
/// weights name, and for one with more tokens than the model.
ModelText find_text(const checkpoint::Info& info, const std::filesystem::path& given,
                    const std::string& end_of_text);

}  // namespace ratplus::generate
