// RunEnd: how a start of a run ended, as those read it who look at the run later.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace ratplus::run {

struct RunEnd {
  enum class How {
    finished,    ///< all steps are done and saved
    stopped,     ///< a signal asked for it: the step was finished and saved
    not_finite,  ///< an update was not finite: the state before it was saved
    failed,      ///< any other end that the program could record
  };
  How how = How::finished;
  std::optional<std::int64_t> step = std::nullopt;  ///< steps done; none if the reporting rank does not know
  std::string signal{};                             ///< "SIGTERM", of stopped
  std::string checkpoint{};                         ///< that was saved last thing; empty of failed
  std::string message{};                            ///< of not_finite and failed
  double time = 0;                                  ///< seconds since 1970
};

/// Writes starts/end-0003.json beside the start's record (start_files.h), with the present time: durable, and whole or
/// not at all. By any rank; later ones of the same start take its place. Throws Error.
void write_run_end(const std::filesystem::path& start_file, const RunEnd& end);

/// The end of the run's newest start. None while it runs, or if its end was not recorded (SIGKILL, a host that went
/// down), and where that cannot be read.
std::optional<RunEnd> read_run_end(const std::filesystem::path& run);

/// Step of the save with which the newest start ended whose end names one: a start that fails in its set-up saves nothing. 0
/// where none does.
std::int64_t step_saved_at_end(const std::filesystem::path& run);

}  // namespace ratplus::run
