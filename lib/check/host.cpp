#include "lib/check/host.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <system_error>
#include <vector>

#include "base/files/descriptor.h"

namespace ratplus::check {
namespace {

namespace fs = std::filesystem;

/// A number alone on a line; none for "[N/A]" and the like.
std::optional<double> number_in(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end == text.c_str()) return std::nullopt;
  return value;
}

std::string trimmed(const std::string& text) {
  const auto begin = text.find_first_not_of(" \t\r");
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

/// The hexadecimal digits of "GPU-00112233-...".
std::string digits_of(const std::string& uuid) {
  std::string digits;
  const auto begin = uuid.starts_with("GPU-") ? 4U : 0U;
  for (const char c : uuid.substr(begin)) {
    if (c != '-') digits += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return digits;
}

}  // namespace

double locked_memory_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return HUGE_VAL;
  return static_cast<double>(limit.rlim_cur);
}

MemoryErrors host_memory_errors(const fs::path& root) {
  MemoryErrors errors;
  std::error_code none;
  for (fs::directory_iterator entry(root / "sys/devices/system/edac/mc", none), end; !none && entry != end;
       entry.increment(none)) {
    const auto add = [&](const char* file, std::optional<double>& sum) {
      std::ifstream in(entry->path() / file);
      std::string line;
      if (!std::getline(in, line)) return;
      if (const auto value = number_in(line)) sum = sum.value_or(0) + *value;
    };
    add("ce_count", errors.corrected);
    add("ue_count", errors.uncorrected);
  }
  return errors;
}

std::string ask_nvidia_smi() {
  const char* command =
      "timeout 20 nvidia-smi --query-gpu=uuid,driver_version,ecc.errors.corrected.volatile.total,"
      "ecc.errors.uncorrected.volatile.total --format=csv,noheader,nounits 2>/dev/null";
  const auto close = [](std::FILE* pipe) { ::pclose(pipe); };
  const std::unique_ptr<std::FILE, decltype(close)> pipe(::popen(command, "r"), close);
  if (!pipe) return "";
  std::string output;
  std::array<char, 4096> buffer{};
  while (const auto count = std::fread(buffer.data(), 1, buffer.size(), pipe.get()))
    output.append(buffer.data(), count);
  return output;
}

std::optional<GpuFacts> parse_nvidia_smi(std::string_view output, std::string_view id) {
  std::istringstream lines{std::string(output)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::vector<std::string> cells;
    for (std::string cell; std::getline(words, cell, ',');) cells.push_back(trimmed(cell));
    if (cells.size() < 4 || digits_of(cells[0]) != id) continue;
    return GpuFacts{cells[1], {number_in(cells[2]), number_in(cells[3])}};
  }
  return std::nullopt;
}

std::optional<double> count_xid_errors(const fs::path& messages) {
  const Descriptor file(messages, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (!file.ok()) return std::nullopt;
  constexpr std::string_view wanted = "NVRM: Xid";
  double found = 0;
  std::string text;
  std::array<char, 8192> record{};  // the kernel's longest; each read gives one
  while (true) {
    const auto count = ::read(file.get(), record.data(), record.size());
    if (count < 0 && (errno == EPIPE || errno == EINTR)) continue;  // it was overwritten: the next one
    if (count <= 0) break;
    text.assign(record.data(), static_cast<std::size_t>(count));
    for (auto at = text.find(wanted); at != std::string::npos; at = text.find(wanted, at + 1)) ++found;
  }
  return found;
}

}  // namespace ratplus::check
