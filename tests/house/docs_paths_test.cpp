// The paths that pages name: links of all pages, and what the guided tour says is where.
#include <doctest/doctest.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

const fs::path source = RATPLUS_SOURCE_DIR;

std::string read(const fs::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// README.md, docs/ and the pages of the rooms and their neighbours.
std::vector<fs::path> pages() {
  std::vector<fs::path> found{source / "README.md"};
  for (const char* top :
       {"docs", "base", "kernels", "parallel", "data", "lib", "apps", "tests", "jobs", "configs"}) {
    if (!fs::exists(source / top)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(source / top)) {
      if (entry.path().extension() == ".md") found.push_back(entry.path());
    }
  }
  return found;
}

/// Pieces of a text between `begin` and `end`, of one line each.
std::vector<std::string> between(const std::string& text, const std::string& begin, const std::string& end) {
  std::vector<std::string> found;
  for (auto at = text.find(begin); at != std::string::npos; at = text.find(begin, at)) {
    at += begin.size();
    const auto stop = text.find(end, at);
    if (stop == std::string::npos) break;
    auto piece = text.substr(at, stop - at);
    at = stop + end.size();
    if (piece.find('\n') == std::string::npos) found.push_back(std::move(piece));
  }
  return found;
}

/// The files of this repository that a page links to, as it writes them, without the place within a page.
std::vector<std::string> links(const std::string& text) {
  std::vector<std::string> found;
  for (auto link : between(text, "](", ")")) {
    if (link.find("://") != std::string::npos) continue;
    link = link.substr(0, link.find('#'));
    if (!link.empty()) found.push_back(link);
  }
  return found;
}

/// All words of the rooms' and the program's sources.
std::set<std::string> words_of_sources() {
  std::set<std::string> words;
  for (const char* top : {"base", "kernels", "parallel", "data", "lib", "apps"}) {
    for (const auto& entry : fs::recursive_directory_iterator(source / top)) {
      if (!entry.is_regular_file()) continue;
      std::string word;
      for (const char c : read(entry.path()) + " ") {
        if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_') {
          word += c;
        } else if (!word.empty()) {
          words.insert(std::move(word));
          word.clear();
        }
      }
    }
  }
  return words;
}

bool is_file_name(const std::string& name) {
  const auto extension = fs::path(name).extension();
  return name.ends_with('/') || extension == ".h" || extension == ".cpp" || extension == ".md";
}

/// What an item of the tour names and is not there; none in a true one. Files in `quotes` are beside those that the item
/// links to, or paths from the root; other words are some of the sources'.
std::vector<std::string> faults_of(const std::string& item, const std::set<std::string>& words) {
  std::vector<std::string> faults;
  std::vector<fs::path> places{source};
  for (const auto& link : links(item)) {
    const auto file = source / "docs" / link;
    if (!fs::exists(file)) faults.push_back(link);
    places.push_back(file.parent_path());
  }
  for (const auto& name : between(item, "`", "`")) {
    if (is_file_name(name)) {
      bool there = false;
      for (const auto& place : places) there = there || fs::exists(place / name);
      if (!there) faults.push_back(name);
      continue;
    }
    std::istringstream parts(name);  // "ratplus plan", "World::agree"
    for (std::string part; parts >> part;) {
      const auto colon = part.rfind(':');
      if (colon != std::string::npos) part = part.substr(colon + 1);
      if (!words.contains(part)) faults.push_back(name);
    }
  }
  return faults;
}

/// The tour's numbered items and paragraphs.
std::vector<std::string> items(const std::string& page) {
  std::vector<std::string> found(1);
  std::istringstream in(page);
  for (std::string line; std::getline(in, line);) {
    const bool numbered =
        line.size() > 2 && std::isdigit(static_cast<unsigned char>(line[0])) != 0 && line[1] == '.';
    if (line.empty() || numbered || line.starts_with("- ")) found.emplace_back();
    found.back() += line + "\n";
  }
  return found;
}

}  // namespace

TEST_CASE("pages: every link leads to a file of this repository") {
  int found = 0;
  for (const auto& page : pages()) {
    for (const auto& link : links(read(page))) {
      INFO(page.string(), " links to ", link);
      CHECK(fs::exists(page.parent_path() / link));
      ++found;
    }
  }
  CHECK(found > 50);
}

TEST_CASE("the guided tour: every file, directory and name that it tells of is there") {
  const auto words = words_of_sources();
  const auto all = items(read(source / "docs/tour.md"));
  CHECK(all.size() > 15);
  for (const auto& item : all) {
    for (const auto& fault : faults_of(item, words)) {
      INFO(fault, " is not there: ", item);
      CHECK(false);
    }
  }
}

TEST_CASE("the guided tour: what is gone is found") {
  const std::set<std::string> words{"Session", "agree", "ratplus", "plan"};
  CHECK(faults_of("1. [x](../kernels/ops.h), `cpu/`, `buffer.h`, `Session`, `World::agree`, `ratplus plan`",
                  words)
            .empty());
  CHECK(faults_of("[x](../kernels/gone.h)", words).size() == 1);
  CHECK(faults_of("[x](../kernels/ops.h), `gone.cpp`", words).size() == 1);
  CHECK(faults_of("`kernels/gone/`", words).size() == 1);
  CHECK(faults_of("`Gone`", words).size() == 1);
  CHECK(faults_of("`World::gone`", words).size() == 1);
}
