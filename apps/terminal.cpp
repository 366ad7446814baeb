#include "apps/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <string_view>

namespace ratplus::apps {
namespace {

volatile std::sig_atomic_t ended = 0, resized = 0, stopped = 0;

void on_signal(int signal) {
  if (signal == SIGWINCH) {
    resized = 1;
  } else if (signal == SIGTSTP) {
    stopped = 1;
  } else {
    ended = 1;
  }
}

/// All of it, as far as the terminal still takes something.
void write_out(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      ended = 1;  // the terminal is gone
      return;
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

std::size_t number_of(const char* variable, std::size_t otherwise) {
  const char* told = std::getenv(variable);
  const int number = told == nullptr ? 0 : std::atoi(told);
  return number > 0 && number < 10'000 ? static_cast<std::size_t>(number) : otherwise;
}

}  // namespace

TerminalSize terminal_size() {
  winsize size{};
  const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
  if (known) return {size.ws_col, size.ws_row};
  return {number_of("COLUMNS", 80), number_of("LINES", 24)};
}

Terminal::Terminal() : keyboard_(::isatty(STDIN_FILENO) != 0) {
  ended = 0;
  resized = 0;
  stopped = 0;
  // Signals come only while wait() waits: none is lost between a look at the flags and the wait.
  sigset_t mask;
  sigemptyset(&mask);
  struct sigaction action {};
  action.sa_handler = on_signal;
  for (std::size_t i = 0; i < signals_.size(); ++i) sigaddset(&mask, signals_[i]);
  sigprocmask(SIG_BLOCK, &mask, &old_mask_);
  for (std::size_t i = 0; i < signals_.size(); ++i) sigaction(signals_[i], &action, &old_actions_[i]);
  if (keyboard_) ::tcgetattr(STDIN_FILENO, &old_input_);
  enter();
}

Terminal::~Terminal() {
  leave();
  for (std::size_t i = 0; i < signals_.size(); ++i) sigaction(signals_[i], &old_actions_[i], nullptr);
  sigprocmask(SIG_SETMASK, &old_mask_, nullptr);
}

void Terminal::enter() {
  if (keyboard_) {
    termios input = old_input_;
    input.c_lflag &= ~static_cast<tcflag_t>(ECHO | ICANON);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &input);
  }
  write_out("\x1b[?1049h\x1b[?25l\x1b[2J");  // the other screen, no cursor, cleared
}

void Terminal::leave() {
  if (keyboard_) ::tcsetattr(STDIN_FILENO, TCSANOW, &old_input_);
  write_out("\x1b[?25h\x1b[?1049l");
}

void Terminal::show(const std::string& text) {
  std::string out = "\x1b[?2026h\x1b[H";  // shown at once, where the terminal can; from the top left
  for (const char c : text) out += c == '\n' ? std::string("\x1b[K\r\n") : std::string(1, c);
  // No newline after the last line: it would scroll a full screen.
  if (text.ends_with('\n')) out.resize(out.size() - 2);
  write_out(out + "\x1b[J\x1b[?2026l");
}

/// Ctrl-Z: the shell gets its terminal as it was; fg takes it again.
Terminal::Event Terminal::stop() {
  stopped = 0;
  leave();
  ::raise(SIGSTOP);
  enter();
  return Event::resized;
}

bool Terminal::quit_pressed() const {
  char key = 0;
  const ssize_t got = ::read(STDIN_FILENO, &key, 1);
  return got == 0 || (got == 1 && (key == 'q' || key == 'Q'));
}

Terminal::Event Terminal::wait(double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::duration<double>(seconds);
  sigset_t open = old_mask_;
  for (const int signal : signals_) sigdelset(&open, signal);
  double left = seconds;
  do {  // once at least: signals come nowhere else
    const timespec timeout{static_cast<time_t>(left), static_cast<long>(std::fmod(left, 1.0) * 1e9)};
    pollfd input{STDIN_FILENO, POLLIN, 0};
    const int ready = ::ppoll(&input, keyboard_ ? 1 : 0, &timeout, &open);
    if (ended) return Event::quit;
    if (stopped) return stop();
    if (resized) {
      resized = 0;
      return Event::resized;
    }
    if (ready > 0 && quit_pressed()) return Event::quit;
    left = std::chrono::duration<double>(until - Clock::now()).count();
  } while (left > 0);
  return Event::time_passed;
}

}  // namespace ratplus::apps
