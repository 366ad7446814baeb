#include "lib/serve/chat_template.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <optional>

#include "base/error.h"
#include "base/parse_json.h"
#include "base/utf8.h"

namespace ratplus::serve {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string contents(const fs::path& file) {
  std::ifstream stream(file, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (!stream.good() && !stream.eof()) fail("{}: cannot be read", file.string());
  return text;
}

/// The template of a tokenizer_config.json: a text, or that named "default" of several.
std::optional<std::string> template_of(const Json& config) {
  if (!config.is_object() || !config.contains("chat_template")) return std::nullopt;
  const auto& value = config.at("chat_template");
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return std::nullopt;
  for (const auto& each : value) {
    if (each.is_object() && each.value("name", "") == "default" && each.contains("template") &&
        each.at("template").is_string())
      return each.at("template").get<std::string>();
  }
  return std::nullopt;
}

/// The name of a special token: a text, or an object with "content".
std::string token_name(const Json& config, const char* key) {
  if (!config.contains(key)) return {};
  const auto& value = config.at(key);
  if (value.is_string()) return value.get<std::string>();
  return value.is_object() && value.contains("content") && value.at("content").is_string()
             ? value.at("content").get<std::string>()
             : std::string();
}

}  // namespace

bool ChatTemplate::is_in(const fs::path& tokenizer_config) {
  if (!fs::is_regular_file(tokenizer_config)) return false;
  try {
    return template_of(parse_json<Json>(contents(tokenizer_config))).has_value();
  } catch (const Json::exception& error) {
    fail("{}: not JSON ({}); correct it, or name a template by --chat-template", tokenizer_config.string(),
         error.what());
  }
}

ChatTemplate::ChatTemplate(const fs::path& file, const generate::ModelText& text)
    : text_(text), template_("", "") {
  if (!fs::is_regular_file(file)) fail("{}: there is no such file", file.string());
  if (!text.tokenizer) fail("{}: a chat template needs a tokenizer: {}", file.string(), text.missing);
  const auto& tokenizer = *text.tokenizer;
  if (text.end_of_text >= 0 && text.end_of_text < tokenizer.vocab_size())
    end_of_text_ = tokenizer.bytes_of(text.end_of_text);
  for (std::int32_t token = 0; token < tokenizer.vocab_size(); ++token) {
    if (!tokenizer.is_special(token) || tokenizer.bytes_of(token).empty()) continue;
    special_.emplace_back(tokenizer.bytes_of(token), token);
    if (special_.back().first == "<s>") begin_of_text_ = "<s>";
  }
  std::ranges::stable_sort(special_,
                           [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  source_ = contents(file);
  if (file.extension() == ".json") {
    Json config;
    try {
      config = parse_json<Json>(source_);
    } catch (const Json::exception& error) {
      fail("{}: not JSON ({})", file.string(), error.what());
    }
    const auto found = template_of(config);
    if (!found) fail("{}: has no \"chat_template\"; give a file with the template itself", file.string());
    source_ = *found;
    if (const auto name = token_name(config, "bos_token"); !name.empty()) begin_of_text_ = name;
    if (const auto name = token_name(config, "eos_token"); !name.empty()) end_of_text_ = name;
  }
  if (!is_utf8(source_)) fail("{}: the template is no well-formed UTF-8", file.string());
  template_ = JinjaTemplate(source_, file.string());
}

std::string ChatTemplate::text(Json variables) const {
  variables["bos_token"] = begin_of_text_;
  variables["eos_token"] = end_of_text_;
  return template_.render(variables);
}

std::vector<std::int32_t> ChatTemplate::tokens(const std::string& text) const {
  std::vector<std::int32_t> tokens;
  std::size_t begin = 0;
  const auto encode = [&](std::size_t end) {
    if (end == begin) return;
    std::vector<std::int32_t> part;
    text_.tokenizer->encode(std::string_view(text).substr(begin, end - begin), part);
    tokens.insert(tokens.end(), part.begin(), part.end());
  };
  for (std::size_t at = 0; at < text.size();) {
    const auto found = std::ranges::find_if(
        special_, [&](const auto& each) { return text.compare(at, each.first.size(), each.first) == 0; });
    if (found == special_.end()) {
      ++at;
      continue;
    }
    encode(at);
    tokens.push_back(found->second);
    at += found->first.size();
    begin = at;
  }
  encode(text.size());
  return tokens;
}

}  // namespace ratplus::serve
