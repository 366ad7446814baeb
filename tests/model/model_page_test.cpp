// The page of formulas (docs, model.md) beside the code: the sections that comments cite, and the numbers it states.
#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/pattern.h"
#include "lib/model/parameters.h"

namespace fs = std::filesystem;
using namespace ratplus;

namespace {

const fs::path source = RATPLUS_SOURCE_DIR;
const fs::path page = source / "docs" / "model.md";

std::string text_of(const fs::path& file) {
  std::ifstream stream(file);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Titles of the page's sections by their numbers.
std::map<int, std::string> headings() {
  std::map<int, std::string> found;
  std::istringstream lines(text_of(page));
  const std::regex heading(R"(## (\d+)\. (.+))");
  for (std::string line; std::getline(lines, line);) {
    std::smatch parts;
    if (std::regex_match(line, parts, heading)) {
      CHECK_MESSAGE(found.emplace(std::stoi(parts[1]), parts[2]).second, "twice: " << line);
    }
  }
  return found;
}

/// The anchor that GitHub gives a heading.
std::string anchor(const std::string& heading) {
  std::string result;
  for (const unsigned char c : heading) {
    if (std::isalnum(c) != 0 || c == '-') result += static_cast<char>(std::tolower(c));
    if (c == ' ') result += '-';
  }
  return result;
}

/// Every text of the repository that people write.
std::vector<fs::path> texts() {
  const std::set<std::string> kinds = {".h",    ".cpp", ".cu", ".cuh",   ".in", ".md",
                                       ".toml", ".sh",  ".py", ".cmake", ".txt"};
  std::vector<fs::path> found = {source / "README.md", source / "CMakeLists.txt"};
  for (const char* room :
       {"apps", "cmake", "configs", "data", "docs", "jobs", "kernels", "lib", "parallel", "tests"}) {
    for (const auto& entry : fs::recursive_directory_iterator(source / room)) {
      if (entry.is_regular_file() && kinds.contains(entry.path().extension().string()))
        found.push_back(entry.path());
    }
  }
  return found;
}

/// A text on one line: what a comment's line breaks part stands together.
std::string joined(const std::string& text) {
  std::string result;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != '\n') {
      result += text[at];
      continue;
    }
    at = std::min(text.find_first_not_of(" \t\n/#", at), text.size()) - 1;
    result += ' ';
  }
  return result;
}

/// The number at the text's beginning; -1 where there is none.
int number_of(std::string_view text) {
  int number = -1;
  for (std::size_t i = 0; i < text.size() && std::isdigit(static_cast<unsigned char>(text[i])) != 0; ++i)
    number = std::max(number, 0) * 10 + (text[i] - '0');
  return number;
}

std::string with_commas(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<std::size_t>(at), ",");
  return digits;
}

}  // namespace

TEST_CASE(
    "the page of formulas: sections are numbered without a gap, listed, and refer to each other rightly") {
  const auto sections = headings();
  const std::string text = text_of(page);
  REQUIRE(sections.size() > 15);
  CHECK(sections.rbegin()->first == std::ssize(sections));
  for (const auto& [number, title] : sections) {
    const auto entry =
        fmt::format("\n{}. [{}](#{})\n", number, title, anchor(fmt::format("{}. {}", number, title)));
    CHECK_MESSAGE(contains(text, entry), "the list of sections lacks" << entry);
  }
  const std::regex reference(R"(\bsections? (\d+)(?: (?:to|and) (\d+))?)");
  for (std::sregex_iterator at(text.begin(), text.end(), reference), end; at != end; ++at) {
    for (const int part : {1, 2}) {
      if ((*at)[part].matched)
        CHECK_MESSAGE(sections.contains(std::stoi((*at)[part])), "no such section: " << at->str());
    }
  }
}

TEST_CASE("every section of the page of formulas that the repository cites is there") {
  const auto sections = headings();
  const std::string name = fmt::format("docs/{}", page.filename().string()), before = ", section ";
  std::set<int> cited;
  for (const fs::path& file : texts()) {
    CAPTURE(file);
    const std::string text = joined(text_of(file));
    for (auto at = text.find(name); at != std::string::npos; at = text.find(name, at + 1)) {
      const std::string_view rest = std::string_view(text).substr(at + name.size());
      const std::string around = text.substr(at, 60);
      CAPTURE(around);
      if (rest.starts_with(before)) {
        const int number = number_of(rest.substr(before.size()));
        CHECK_MESSAGE(sections.contains(number), "no such section");
        cited.insert(number);
      } else if (rest.starts_with('#')) {
        const int number = number_of(rest.substr(1));
        REQUIRE_MESSAGE(sections.contains(number), "no such section");
        const auto linked = anchor(fmt::format("{}. {}", number, sections.at(number)));
        CHECK_MESSAGE(rest.substr(1).starts_with(linked + ")"), "the heading is now " << linked);
      } else {
        CHECK_MESSAGE(file.extension() == ".md", "a citation names its section");
      }
    }
  }
  CHECK(cited.size() > 12);
}

TEST_CASE("no text cites a description that is not in the repository") {
  for (const fs::path& file : texts()) {
    const std::string text = joined(text_of(file));
    for (const char* gone : {R"(\b[Ss]pec,? (section )?[0-9])", R"(\b[Tt]he specification\b(?! of))",
                             R"(\bratplus\.md\b)", R"(\bshared/spec\b)"}) {
      std::smatch found;
      const bool cites = std::regex_search(text, found, std::regex(gone));
      CHECK_MESSAGE(!cites, file << " cites \"" << found.str() << "\"; cite a section of " << page);
    }
  }
}

TEST_CASE("the page of formulas states the parameters and the attended keys that the code counts") {
  const std::string text = text_of(page);
  struct Size {
    const char* name;
    std::int64_t layers, width;
  };
  for (const Size& size : {Size{"1b", 24, 2048}, Size{"3b", 28, 2560}, Size{"7b", 32, 4096}}) {
    model::ModelConfig config{.layers = size.layers, .width = size.width};
    const auto with = model::parameter_count(config);
    config.mixers = {{model::MixerKind::gated_attention}};
    const auto row =
        fmt::format("\n| {} | {} | {} | {} | {} | {} |\n", size.name, size.layers, size.width, config.heads(),
                    with_commas(with), with_commas(model::parameter_count(config)));
    CHECK_MESSAGE(contains(text, row), "the page lacks" << row);
  }
  constexpr std::int64_t tokens = 4096;
  for (const char* written : {"dense", "16,0,4", "64,0,0", "64,0,4", "16,256,4", "none,64,0"}) {
    const double pairs = attended_pairs(parse_pattern(written), tokens);
    const auto row = fmt::format("\n| {} | {} | {:.1f} |\n", written,
                                 with_commas(static_cast<std::int64_t>(pairs)), pairs / tokens);
    CHECK_MESSAGE(contains(text, row), "the page lacks" << row);
  }
}

TEST_CASE("the page of formulas states how many positions a cache holds") {
  const std::string text = joined(text_of(page));
  constexpr std::int64_t t = 4096;
  for (const Pattern& pattern : {Pattern{16, 0, 4}, Pattern{16, 256, 4}, Pattern{64, 0, 4}}) {
    const auto [d, w, i] = pattern;
    std::int64_t held = 0;
    for (std::int64_t s = 0; s < t; ++s) held += pattern.attends(t, s) ? 1 : 0;
    CHECK((t - w) / d + i - i / d + w == held);
    const auto statement = fmt::format("{} for ({}, {}, {})", held, d, w, i);
    CHECK_MESSAGE(contains(text, statement), "the page lacks: " << statement);
  }
}
