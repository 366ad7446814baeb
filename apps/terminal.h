// Terminal: a screen of the user's terminal, for as long as a program shows something live.
#pragma once

#include <signal.h>
#include <termios.h>

#include <array>
#include <cstddef>
#include <string>

namespace ratplus::apps {

struct TerminalSize {
  std::size_t columns = 80;
  std::size_t rows = 24;
};
/// The size of stdout's terminal; 80 x 24, or COLUMNS and LINES, if stdout is none.
TerminalSize terminal_size();

/// Takes the terminal's other screen, hides the cursor and the echo of keys, and gives all back as it was when
/// destroyed: after Ctrl-C, SIGTERM or SIGHUP too, which only end wait(), and while the program is stopped by Ctrl-Z.
/// One at a time.
class Terminal {
 public:
  Terminal();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// Replaces what the screen shows; lines end in '\n'.
  void show(const std::string& text);
  enum class Event { time_passed, resized, quit };
  /// Until so many seconds have passed, the size has changed, or the user has had enough (a signal, or the key q).
  Event wait(double seconds);

 private:
  void enter();
  void leave();
  Event stop();
  bool quit_pressed() const;

  static constexpr std::array signals_ = {SIGINT, SIGTERM, SIGHUP, SIGWINCH, SIGTSTP};
  std::array<struct sigaction, signals_.size()> old_actions_{};
  sigset_t old_mask_{};
  termios old_input_{};
  bool keyboard_ = false;  ///< stdin is a terminal
};

}  // namespace ratplus::apps
