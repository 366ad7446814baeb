// ChatTemplate: the prompt of a conversation, as a model's own template writes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "lib/generate/model_text.h"
#include "lib/serve/jinja.h"

namespace ratplus::serve {

class ChatTemplate {
 public:
  /// A file with the template, or a tokenizer_config.json with "chat_template". Throws Error naming the file: it cannot be read,
  /// has no template, or one with a construct that is not supported; and where the model has no tokenizer.
  ChatTemplate(const std::filesystem::path& file, const generate::ModelText& text);

  /// Whether a tokenizer_config.json holds a template. Throws Error where it is there and is not JSON.
  static bool is_in(const std::filesystem::path& tokenizer_config);

  /// The text of the conversation: `variables` has messages, add_generation_prompt and what else the template reads, beside
  /// bos_token and eos_token. Throws Error where the template refuses the messages.
  std::string text(nlohmann::ordered_json variables) const;
  /// The tokens of such a text: names of special tokens are those tokens; each text between is encoded by itself.
  std::vector<std::int32_t> tokens(const std::string& text) const;

  /// The template itself.
  const std::string& source() const { return source_; }

 private:
  const generate::ModelText& text_;
  std::string source_;
  std::string begin_of_text_, end_of_text_;
  std::vector<std::pair<std::string, std::int32_t>> special_;  ///< longer names first
  JinjaTemplate template_;
};

}  // namespace ratplus::serve
