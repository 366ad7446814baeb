// ProgressLine: one line that says how far the work has come.
#pragma once

#include <chrono>
#include <string>

namespace ratplus::apps {

/// For commands whose results are files: that nobody reads their output any more (`| less`, quit) ends none of them. What
/// of standard output is lost is found by check_output.
void ignore_lost_readers();

/// On a terminal, one line of stderr that is written over; in a log, a plain line every few seconds. Under mpirun
/// no rank sees the terminal: RATPLUS_PROGRESS=terminal or =log chooses the form, COLUMNS the width.
class ProgressLine {
 public:
  /// log_seconds: the least time between two lines of a log.
  explicit ProgressLine(double log_seconds = 10);
  /// Finishes the line, so that what is printed next (an error, too) begins on its own.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// Shows `text` (one line, no newline), unless the last one is too recent; `force` shows it in any case.
  void update(const std::string& text, bool force = false);
  /// Shows the last text if it was held back, and ends the line.
  void finish();
  /// Prints a line that stays, on stdout, in place of the one that is written over.
  void print(const std::string& line);

  /// Whether there is a terminal, and so one line that is written over.
  bool interactive() const { return terminal_; }

 private:
  void show();

  bool terminal_;
  std::chrono::steady_clock::duration interval_;
  std::chrono::steady_clock::time_point shown_at_{};
  std::string text_;
  bool held_back_ = false;  ///< text_ is newer than what is shown
  bool line_open_ = false;  ///< the cursor stands in the line
};

}  // namespace ratplus::apps
