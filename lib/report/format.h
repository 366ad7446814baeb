// Numbers as people read them.
#pragma once

#include <fmt/core.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

namespace ratplus::report {

/// "45 s", "3 min 20 s", "2 h 05 min", "2 d 3 h".
inline std::string format_seconds(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
  return fmt::format("{} d {} h", whole / 86400, whole / 3600 % 24);
}

/// Three digits and a unit: "987", "12.3k", "4.56M", "1.47B".
inline std::string format_count(double count) {
  const char* units[] = {"", "k", "M", "B", "T"};
  int unit = 0;
  for (; count >= 999.5 && unit < 4; ++unit) count /= 1000;
  const int decimals = unit == 0 || count >= 99.95 ? 0 : count >= 9.995 ? 1 : 2;
  return fmt::format("{:.{}f}{}", count, decimals, units[unit]);
}

/// "512 B", "3.2 MiB", "14.6 GiB".
inline std::string format_bytes(std::int64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  int unit = 0;
  for (; value >= (unit == 0 ? 1024 : 1023.95) && unit < 4; ++unit) value /= 1024;
  return fmt::format("{:.{}f} {}", value, unit == 0 ? 0 : 1, units[unit]);
}

/// With this many decimals; a value that they would show as 0 has two digits instead: "0.0", "0.1", "0.0031".
inline std::string format_fixed(double value, int decimals) {
  auto text = fmt::format("{:.{}f}", value + 0.0, decimals);  // + 0.0: no "-0.0"
  const bool shown =
      value == 0 || !std::isfinite(value) || text.find_first_of("123456789") != std::string::npos;
  return shown ? text : fmt::format("{:.2g}", value);
}

/// Measured seconds, with two digits or more: "0.12 ms", "22.3 ms", "1.250 s", "61.2 s".
inline std::string format_duration(double seconds) {
  const double size = std::abs(seconds), ms = 1e3 * seconds;
  if (!std::isfinite(seconds)) return "-";
  if (size == 0) return "0 s";
  if (size < 0.0995e-3) return fmt::format("{:.2g} ms", ms);
  if (size < 0.9995) return fmt::format("{:.{}f} ms", ms, size >= 0.09995 ? 0 : size >= 0.009995 ? 1 : 2);
  return fmt::format("{:.{}f} s", seconds, size < 9.9995 ? 3 : 1);
}

/// Three digits of a time however short: "870 ns", "12.3 us", "4.56 ms", "1.23 s"; "-" where not finite.
inline std::string format_interval(double seconds) {
  if (!std::isfinite(seconds)) return "-";
  const char* units[] = {"ns", "us", "ms", "s"};
  double value = seconds * 1e9;
  int unit = 0;
  for (; std::abs(value) >= 999.5 && unit < 3; ++unit) value /= 1000;
  const double size = std::abs(value);
  const int decimals = unit == 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2;
  return fmt::format("{} {}", format_fixed(value, decimals), units[unit]);
}

/// Three digits of what is done a second, with the unit's prefix: "987 B/s", "12.3 GFLOP/s"; "-" where not finite.
inline std::string format_rate(double per_second, std::string_view unit) {
  if (!std::isfinite(per_second)) return "-";
  const char* prefixes[] = {"", "k", "M", "G", "T", "P"};
  int prefix = 0;
  for (; per_second >= 999.5 && prefix < 5; ++prefix) per_second /= 1000;
  const int decimals = per_second == 0 || per_second >= 99.95 ? 0 : per_second >= 9.995 ? 1 : 2;
  return fmt::format("{} {}{}", format_fixed(per_second, decimals), prefixes[prefix], unit);
}

}  // namespace ratplus::report
