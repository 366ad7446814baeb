// A strict reader of markup: what XML calls well-formed, as far as a page needs it.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ratplus::report {

/// How often `part` occurs in `text`.
inline int count(std::string_view text, std::string_view part) {
  int found = 0;
  for (auto at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

/// Why this is not well-formed; empty if it is. Every element is closed, in order; attributes are quoted and none comes
/// twice; "&" begins one of the five entities of XML; "<" begins a tag; no character that XML forbids. A document type
/// and CDATA sections are passed over.
inline std::string xml_error(std::string_view xml) {
  std::vector<std::string> open;
  const auto where = [&](const char* what, std::size_t at) {
    return what + std::string(": ") + std::string(xml.substr(at, 60));
  };
  const auto bad_text = [](std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto c = static_cast<unsigned char>(text[i]);
      if (c < 0x20 && c != '\n' && c != '\t') return true;
      if (c == '<') return true;
      if (c != '&') continue;
      const auto entity = text.substr(i, text.find(';', i) - i);
      if (entity != "&amp" && entity != "&lt" && entity != "&gt" && entity != "&quot" && entity != "&apos")
        return true;
    }
    return false;
  };
  std::size_t at = 0;
  bool rooted = false;
  while (at < xml.size()) {
    const auto tag = xml.find('<', at);
    const auto text = xml.substr(at, tag == std::string_view::npos ? tag : tag - at);
    if (bad_text(text)) return where("text", at);
    const bool blank =
        std::ranges::all_of(text, [](char c) { return std::isspace(static_cast<unsigned char>(c)); });
    if (open.empty() && !blank) return where("text outside", at);
    if (tag == std::string_view::npos) break;
    if (xml.substr(tag, 9) == "<![CDATA[") {
      const auto end = xml.find("]]>", tag);
      if (end == std::string_view::npos || open.empty()) return where("CDATA", tag);
      at = end + 3;
      continue;
    }
    const auto end = xml.find('>', tag);
    if (end == std::string_view::npos) return where("a tag without end", tag);
    std::string_view inside = xml.substr(tag + 1, end - tag - 1);
    at = end + 1;
    if (inside.starts_with("!DOCTYPE")) {
      if (rooted) return where("document type", tag);
      continue;
    }
    if (inside.starts_with("/")) {
      if (open.empty() || open.back() != inside.substr(1)) return where("closes another element", tag);
      open.pop_back();
      continue;
    }
    const bool empty = inside.ends_with("/");
    if (empty) inside.remove_suffix(1);
    const auto name_end = std::min(inside.find_first_of(" \n"), inside.size());
    const std::string name(inside.substr(0, name_end));
    if (name.empty() || !std::ranges::all_of(name, [](unsigned char c) { return std::isalnum(c); })) {
      return where("a name", tag);
    }
    std::vector<std::string> attributes;
    for (std::string_view rest = inside.substr(name_end); !rest.empty();) {
      const auto begin = rest.find_first_not_of(" \n");
      if (begin == std::string_view::npos) break;
      if (begin == 0) return where("attributes without a space", tag);
      const auto equals = rest.find("=\"", begin);
      const auto close = equals == std::string_view::npos ? equals : rest.find('"', equals + 2);
      if (close == std::string_view::npos) return where("an attribute", tag);
      const std::string attribute(rest.substr(begin, equals - begin));
      if (std::ranges::find(attributes, attribute) != attributes.end()) return where("twice", tag);
      if (bad_text(rest.substr(equals + 2, close - equals - 2))) return where("an attribute's value", tag);
      attributes.push_back(attribute);
      rest.remove_prefix(close + 1);
    }
    if (open.empty() && rooted) return where("a second root", tag);
    rooted = true;
    if (!empty) open.push_back(name);
  }
  if (!open.empty()) return "not closed: " + open.back();
  return rooted ? "" : "no element";
}

}  // namespace ratplus::report
