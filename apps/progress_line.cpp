#include "apps/progress_line.h"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "lib/report/terminal_text.h"

namespace ratplus::apps {
namespace {

constexpr double terminal_seconds = 0.1;  ///< between two writings of a terminal's line

bool stderr_is_terminal() {
  if (const char* told = std::getenv("RATPLUS_PROGRESS")) return std::string_view(told) == "terminal";
  const char* terminal = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) != 0 && (terminal == nullptr || std::string_view(terminal) != "dumb");
}

/// Columns of the terminal: a longer line would wrap and could not be written over.
std::size_t terminal_columns() {
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
  if (known) return size.ws_col;
  const char* told = std::getenv("COLUMNS");
  const int columns = told == nullptr ? 0 : std::atoi(told);
  return columns > 20 ? static_cast<std::size_t>(columns) : 80;
}

/// A reader who has left, or a full disk behind the output, is no reason for the work to end.
void put(std::FILE* out, const std::string& text) {
  std::fputs(text.c_str(), out);
  std::fflush(out);
}

}  // namespace

void ignore_lost_readers() {
  std::signal(SIGPIPE, SIG_IGN);
}

ProgressLine::ProgressLine(double log_seconds)
    : terminal_(stderr_is_terminal()),
      interval_(std::chrono::duration_cast<std::chrono::steady_clock::duration>(
          std::chrono::duration<double>(terminal_ ? terminal_seconds : log_seconds))) {}

ProgressLine::~ProgressLine() {
  finish();
}

void ProgressLine::update(const std::string& text, bool force) {
  text_ = text;
  held_back_ = true;
  if (force || std::chrono::steady_clock::now() - shown_at_ >= interval_) show();
}

void ProgressLine::show() {
  if (terminal_) {
    put(stderr,
        fmt::format("\r{}\x1b[K",
                    report::shortened(text_, terminal_columns() - 1)));  // CSI K erases to the line's end
    line_open_ = true;
  } else {
    put(stderr, text_ + '\n');
  }
  shown_at_ = std::chrono::steady_clock::now();
  held_back_ = false;
}

void ProgressLine::finish() {
  if (held_back_) show();
  if (line_open_) put(stderr, "\n");
  line_open_ = false;
}

void ProgressLine::print(const std::string& line) {
  if (line_open_) put(stderr, "\r\x1b[K");
  line_open_ = false;
  held_back_ = false;
  put(stdout, line + '\n');
}

}  // namespace ratplus::apps
