// The form of tests/: one naming rule for all test files, and a ctest for every directory of them.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace {

namespace fs = std::filesystem;

const fs::path tests = fs::path(RATPLUS_SOURCE_DIR) / "tests";

std::string read(const fs::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

bool has_cases(const std::string& text) {
  return text.starts_with("TEST_CASE(") || text.find("\nTEST_CASE(") != std::string::npos;
}

}  // namespace

TEST_CASE("tests: sources with test cases are called x_test.cpp, and no others are") {
  int files = 0;
  for (const auto& entry : fs::recursive_directory_iterator(tests)) {
    const auto name = entry.path().filename().string();
    if (entry.path().extension() != ".cpp" && entry.path().extension() != ".cu") continue;
    ++files;
    INFO(entry.path().string());
    CHECK(name.ends_with("_test.cpp") == has_cases(read(entry.path())));
    CHECK_FALSE(name.starts_with("test_"));
  }
  CHECK(files > 100);
}

TEST_CASE(
    "tests: every x_test.cpp is compiled into a test of its directory, which tests/CMakeLists.txt adds") {
  const auto all = read(tests / "CMakeLists.txt");
  for (const auto& entry : fs::recursive_directory_iterator(tests)) {
    const auto name = entry.path().filename().string();
    if (!name.ends_with("_test.cpp")) continue;
    INFO(entry.path().string());
    const auto directory = entry.path().parent_path();
    const auto list = read(directory / "CMakeLists.txt");
    std::set<std::string> words;
    std::istringstream in(list);
    for (std::string word; in >> word;) words.insert(word.substr(0, word.find(')')));
    CHECK(words.contains(name));
    CHECK(all.find("add_subdirectory(" + directory.filename().string() + ")") != std::string::npos);
  }
}
