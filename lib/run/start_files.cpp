#include "lib/run/start_files.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <string>
#include <string_view>
#include <system_error>

namespace ratplus::run {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view start_prefix = "start-";
constexpr std::string_view end_prefix = "end-";
constexpr std::string_view suffix = ".json";

/// The number in "start-0003.json"; 0 of other names.
int number_in(const std::string& name) {
  if (!name.starts_with(start_prefix) || !name.ends_with(suffix)) return 0;
  const char* digits = name.data() + start_prefix.size();
  const char* end = name.data() + name.size() - suffix.size();
  int number = 0;
  const auto read = std::from_chars(digits, end, number);
  return read.ec == std::errc{} && read.ptr == end ? number : 0;
}

/// The numbers of the records, the largest first.
std::vector<int> numbers_in(const fs::path& run) {
  std::vector<int> numbers;
  std::error_code ignored;  // none there yet
  for (auto entry = fs::directory_iterator(run / "starts", ignored); entry != fs::directory_iterator();
       entry.increment(ignored)) {
    if (const int number = number_in(entry->path().filename().string()); number > 0)
      numbers.push_back(number);
  }
  std::ranges::sort(numbers, std::greater());
  return numbers;
}

fs::path start_file(const fs::path& run, int number) {
  return run / "starts" / fmt::format("{}{:04}{}", start_prefix, number, suffix);
}

}  // namespace

fs::path next_start_file(const fs::path& run) {
  const auto numbers = numbers_in(run);
  return start_file(run, numbers.empty() ? 1 : numbers.front() + 1);
}

std::optional<fs::path> newest_start_file(const fs::path& run) {
  const auto numbers = numbers_in(run);
  if (numbers.empty()) return std::nullopt;
  return start_file(run, numbers.front());
}

std::vector<fs::path> start_files(const fs::path& run) {
  std::vector<fs::path> files;
  for (const int number : numbers_in(run)) files.push_back(start_file(run, number));
  return files;
}

fs::path end_file(const fs::path& start_file) {
  const auto name = start_file.filename().string();
  return start_file.parent_path() / (std::string(end_prefix) + name.substr(start_prefix.size()));
}

}  // namespace ratplus::run
