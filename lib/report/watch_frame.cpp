#include "lib/report/watch_frame.h"

#include <fmt/chrono.h>
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <span>
#include <utility>

#include "lib/report/format.h"
#include "lib/report/panels.h"
#include "lib/report/quantity.h"
#include "lib/report/terminal_chart.h"
#include "lib/report/warnings.h"

namespace ratplus::report {
namespace {

// --- The lines above the curves -------------------------------------------------------------------------------

TerminalLine headline(const WatchedRun& watched) {
  const RunMetrics& run = watched.metrics;
  TerminalLine line = {{run.directory.string(), Ink::bold}};
  if (!watched.summary.empty()) line.push_back({watched.summary});
  if (run.last_step) {
    line.push_back({fmt::format("step {}{}", run.last_step->step,
                                run.steps > 0 ? fmt::format(" of {}", run.steps) : "")});
    line.push_back({format_value(Unit::count, static_cast<double>(run.last_step->tokens)) + " tokens"});
  }
  if (run.previous_starts > 0) line.push_back({fmt::format("resumed {}x", run.previous_starts)});
  return line;
}

/// "ends about 14:35", with the day where it is not today.
std::string clock(double now, double seconds) {
  const auto today = fmt::localtime(static_cast<std::time_t>(now));
  const auto end = fmt::localtime(static_cast<std::time_t>(now + seconds));
  const bool same_day = today.tm_yday == end.tm_yday && today.tm_year == end.tm_year;
  return same_day ? fmt::format("{:%H:%M}", end) : fmt::format("{:%b %d %H:%M}", end);
}

TerminalLine progress(const WatchedRun& watched, std::size_t columns, const TerminalStyle& style) {
  const RunMetrics& run = watched.metrics;
  if (!run.last_step) {
    const auto ended = end_in_a_word(run);
    return {{ended.empty() ? "waiting for the run's first line of metrics (log.every)"
                           : ended + " before its first line of metrics"}};
  }
  const double done =
      run.steps > 0 ? std::min(static_cast<double>(run.last_step->step) / static_cast<double>(run.steps), 1.0)
                    : 0;
  const std::size_t length = std::clamp<std::size_t>(columns / 4, 10, 40);
  const auto full = static_cast<std::size_t>(done * static_cast<double>(length));
  std::string bar;
  for (std::size_t i = 0; i < length; ++i) {
    if (style.braille) bar += i < full ? "\xE2\x96\x88" : "\xE2\x96\x91";  // full block, light shade
    if (!style.braille) bar += i < full ? '#' : '.';
  }
  TerminalLine line = {{bar, Ink::line2}, {fmt::format("{:.0f}%", std::floor(100 * done))}};
  const double age = age_of(run, watched.now);
  if (run.finished()) {
    line.push_back({"finished", Ink::bold});
    if (std::isfinite(age)) line.back().text += fmt::format(" {} ago", format_seconds(age));
    return line;
  }
  if (const auto word = end_in_a_word(run); !word.empty()) {  // the line below says more
    line.push_back({fmt::format("{} {} ago", word, format_seconds(age)), Ink::bold});
    return line;
  }
  if (is_silent(run, watched.now)) return line;  // the warning says more
  const double left = run.seconds_left - (std::isfinite(age) ? age : 0);
  if (run.seconds_left >= 0) {
    line.push_back({fmt::format("{} left, ends about {}", format_seconds(std::max(left, 0.0)),
                                clock(watched.now, std::max(left, 0.0)))});
  }
  if (std::isfinite(age))
    line.push_back({fmt::format("(last line {} ago)", format_seconds(age)), Ink::faint});
  return line;
}

/// Throughput and state, a piece each.
TerminalLine values_of(const RunMetrics& run) {
  TerminalLine values;
  const auto add = [&](const char* field, Unit unit, const char* before, const char* after) {
    const double value = run.last(field);
    if (std::isfinite(value)) values.push_back({before + format_value(unit, value) + after});
  };
  add("tokens_per_second", Unit::count, "", " tokens/s");
  if (!values.empty()) {
    values.back().text +=
        fmt::format(" (median {})", format_value(Unit::count, run.median("tokens_per_second")));
  }
  add("step_seconds", Unit::seconds, "", " a step");
  add("share_of_peak", Unit::share, "", " of peak");
  add("data_wait_share", Unit::share, "data wait ", "");
  add("learning_rate", Unit::factor, "learning rate ", "");
  add("memory_bytes", Unit::bytes, "memory ", "");
  if (run.saved_step >= 0) {
    values.push_back({fmt::format("saved at step {}, steps waited {}", run.saved_step,
                                  format_value(Unit::seconds, run.last("checkpoint_stall_seconds")))});
  }
  return values;
}

TerminalLine validation_of(const RunMetrics& run) {
  if (!run.last_validation) return {};
  TerminalLine values = {{fmt::format("validation at step {}", run.last_validation->step)}};
  for (const auto& of : run.last_validation->losses) {
    values.push_back({fmt::format("{} {}", pattern_label(of.pattern), format_value(Unit::nats, of.loss))});
  }
  return values;
}

/// Pieces in lines, none of which is broken unless it is longer than a line: then between its words.
std::vector<TerminalLine> wrap(const TerminalLine& pieces, std::size_t columns) {
  std::vector<TerminalLine> lines;
  std::size_t taken = 0;
  for (const Span& piece : pieces) {
    const auto length = columns_of(piece.text);
    if (!lines.empty() && taken + 2 + length <= columns) {
      lines.back().push_back({"  "});
      lines.back().push_back(piece);
      taken += 2 + length;
      continue;
    }
    for (auto& part : wrap_words(piece.text, columns)) {
      taken = columns_of(part);
      lines.push_back({{std::move(part), piece.ink}});
    }
  }
  return lines;
}

/// A sentence of any length, none of which may be cut off.
void add_wrapped(const std::string& sentence, Ink ink, std::size_t columns,
                 std::vector<TerminalLine>& lines) {
  if (sentence.empty()) return;
  for (auto& line : wrap_words(sentence, columns)) lines.push_back({{std::move(line), ink}});
}

// --- The curves -----------------------------------------------------------------------------------------------

/// The panels that a terminal shows, the most important first.
std::vector<const Panel*> chosen_panels(const std::vector<Panel>& panels) {
  std::vector<const Panel*> chosen;
  for (const char* title : {"Training loss", "Tokens a second", "Validation loss", "Gradient norm"}) {
    for (const Panel& panel : panels) {
      if (panel.title.starts_with(title)) chosen.push_back(&panel);
    }
  }
  return chosen;
}

std::vector<TerminalLine> beside(const std::vector<TerminalLine>& left,
                                 const std::vector<TerminalLine>& right) {
  std::vector<TerminalLine> lines = left;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    lines[i].push_back({"  ", Ink::plain});
    lines[i].insert(lines[i].end(), right[i].begin(), right[i].end());
  }
  return lines;
}

/// As many as fit, in one or two columns and rows.
std::vector<TerminalLine> charts(const std::vector<Panel>& panels, std::size_t columns, std::size_t rows,
                                 const TerminalStyle& style) {
  const auto chosen = chosen_panels(panels);
  if (chosen.empty() || rows < least_chart_rows || columns < least_chart_columns) return {};
  const bool two_columns = chosen.size() > 1 && columns >= 100;
  const std::size_t a_row = two_columns ? 2 : 1;
  const bool two_rows = chosen.size() > a_row && rows >= 2 * least_chart_rows + 6;
  const std::size_t height = two_rows ? rows / 2 : rows;
  std::vector<TerminalLine> lines;
  for (std::size_t i = 0; i < std::min(chosen.size(), two_rows ? 2 * a_row : a_row); i += a_row) {
    const bool pair = two_columns && i + 1 < chosen.size();
    const std::size_t width = pair ? (columns - 2) / 2 : columns;
    auto row = draw_terminal_chart(*chosen[i], width, height, style);
    if (pair) row = beside(row, draw_terminal_chart(*chosen[i + 1], width, height, style));
    lines.insert(lines.end(), row.begin(), row.end());
  }
  return lines;
}

}  // namespace

std::vector<TerminalLine> make_watch_frame(const WatchedRun& watched, std::size_t columns, std::size_t rows,
                                           const TerminalStyle& style) {
  const RunMetrics& run = watched.metrics;
  std::vector<TerminalLine> lines;
  for (const auto& pieces :
       {headline(watched), progress(watched, columns, style), values_of(run), validation_of(run)}) {
    for (TerminalLine& line : wrap(pieces, columns)) lines.push_back(std::move(line));
  }
  add_wrapped(describe_end(run),
              run.end && run.end->how == run::RunEnd::How::stopped ? Ink::bold : Ink::warning, columns,
              lines);
  for (const auto& warning : find_warnings(run, watched.now))
    add_wrapped("warning: " + warning, Ink::warning, columns, lines);
  const std::size_t log_lines = std::min<std::size_t>(watched.log.size(), rows >= 20   ? 3
                                                                          : rows >= 14 ? 1
                                                                                       : 0);
  const std::size_t below = log_lines > 0 ? log_lines + 1 : 0;
  if (lines.size() + below + 1 < rows) {
    lines.push_back({});
    const auto panels = make_panels(std::span(&run, 1), 4 * columns);
    for (auto& line : charts(panels, columns, rows - lines.size() - below, style))
      lines.push_back(std::move(line));
    if (log_lines > 0) lines.push_back({{"log.txt", Ink::bold}});
    for (std::size_t i = watched.log.size() - log_lines; i < watched.log.size(); ++i) {
      lines.push_back({{watched.log[i], Ink::faint}});
    }
  }
  if (lines.size() > rows) lines.resize(rows);
  for (TerminalLine& line : lines) line = fit(std::move(line), columns, style.mark());
  return lines;
}

}  // namespace ratplus::report
