// JinjaTemplate: the part of the Jinja language in which chat templates are written (docs/serving.md lists it), with the blanks as
// Hugging Face's transformers leaves them out: trim_blocks and lstrip_blocks.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

namespace ratplus::serve {

class JinjaTemplate {
 public:
  /// Throws Error "NAME, line N: ..." for a fault, and for a construct, filter, test or function that is not supported.
  JinjaTemplate(const std::string& source, const std::string& name);

  /// The text with these variables. Throws Error where the template raises one, where a value has another type than an operation
  /// takes, and after too many steps.
  std::string render(const nlohmann::ordered_json& variables) const;

  struct Scope;
  using Statement = std::function<void(Scope&)>;

 private:
  Statement all_;
};

}  // namespace ratplus::serve
