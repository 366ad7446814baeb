#include "lib/generate/prompt_template.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/files/pending_file.h"
#include "base/json_dump.h"
#include "base/parse_json.h"
#include "base/utf8.h"

namespace ratplus::generate {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

PromptTemplate::PromptTemplate(std::string text, const std::string& where) : text_(std::move(text)) {
  if (!is_utf8(text_)) fail("{}: the template is no well-formed UTF-8", where);
  std::string plain;
  for (std::size_t i = 0; i < text_.size(); ++i) {
    const char c = text_[i];
    const bool twice = i + 1 < text_.size() && text_[i + 1] == c;
    if ((c == '{' || c == '}') && twice) {
      plain += c;
      ++i;
    } else if (c == '{') {
      const auto end = text_.find('}', i);
      const auto name = end == std::string::npos ? std::string() : text_.substr(i + 1, end - i - 1);
      if (name.empty() || name.find('{') != std::string::npos)
        fail("{}: a {{ of the template begins no field as in {{input}}; write {{{{ for a brace", where);
      parts_.push_back({std::exchange(plain, {}), false});
      parts_.push_back({name, true});
      i = end;
    } else if (c == '}') {
      fail("{}: a }} of the template ends no field; write }}}} for a brace", where);
    } else {
      plain += c;
    }
  }
  parts_.push_back({plain, false});
  if (std::ranges::none_of(parts_, &Part::field))
    fail("{}: the template names no field of a line, as {{input}}, so that all prompts were the same", where);
}

PromptTemplate PromptTemplate::read(const std::string& file_and_key) {
  const auto mark = file_and_key.rfind('#');
  const bool keyed = mark != std::string::npos && !fs::exists(file_and_key);
  const fs::path file = keyed ? file_and_key.substr(0, mark) : file_and_key;
  if (!fs::is_regular_file(file)) fail("{}: there is no such file", file.string());
  auto text = read_whole_file(file);
  if (keyed) {
    const auto key = file_and_key.substr(mark + 1);
    Json json;
    try {
      json = parse_json<Json>(text);
    } catch (const Json::exception& error) {
      fail("{}: not JSON ({}); it is to hold an object of templates by name", file.string(), error.what());
    }
    if (!json.is_object() || !json.contains(key) || !json.at(key).is_string())
      fail("{}: holds no template named \"{}\"", file.string(), key);
    text = json.at(key).get<std::string>();
  } else if (text.ends_with('\n')) {
    text.pop_back();
  }
  return {std::move(text), file_and_key};
}

std::string PromptTemplate::fill(const Json& line, const std::string& where) const {
  std::string prompt;
  for (const auto& [text, field] : parts_) {
    if (!field) {
      prompt += text;
      continue;
    }
    if (!line.contains(text)) fail("{}: has no field \"{}\", which the prompt's template names", where, text);
    const auto& value = line.at(text);
    if (!value.is_string() && !value.is_number())
      fail("{}: \"{}\" is a JSON {}, and the prompt's template takes a text or a number", where, text,
           value.type_name());
    prompt += value.is_string() ? value.get<std::string>() : json_dump(value);
  }
  return prompt;
}

}  // namespace ratplus::generate
