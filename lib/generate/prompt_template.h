// PromptTemplate: a prompt with places for a line's fields: "Question: {input}\nAnswer:".
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace ratplus::generate {

class PromptTemplate {
 public:
  /// {NAME} is the field of that name, {{ and }} are braces. Throws Error, beginning with `where`, for another brace and where no
  /// field is named.
  PromptTemplate(std::string text, const std::string& where);
  /// Of FILE, without its last line end, or of FILE.json#KEY: the text under the key of a JSON object. Throws Error naming the
  /// file.
  static PromptTemplate read(const std::string& file_and_key);

  /// The prompt of a line. Throws Error, beginning with `where`, for a field that is missing, and for one that is neither a text
  /// nor a number.
  std::string fill(const nlohmann::ordered_json& line, const std::string& where) const;
  const std::string& text() const { return text_; }

 private:
  struct Part {
    std::string text;
    bool field = false;
  };

  std::string text_;
  std::vector<Part> parts_;
};

}  // namespace ratplus::generate
