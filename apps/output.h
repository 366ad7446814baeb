// A command's output: messages that cannot fail, and a standard output whose failure is reported.
#pragma once

#include <string>

namespace ratplus::apps {

/// "ratplus: MESSAGE" on standard error, or "ratplus COMMAND: MESSAGE". Where that cannot be written, nothing happens: there is nobody to report to.
void print_error(const std::string& message, const std::string& command = {}) noexcept;

/// Opens descriptors 0 to 2 that the caller closed, so that no file of ours takes their numbers; what is written to a
/// closed standard output is then found by check_output. First thing in main.
void open_standard_streams();

/// The exit status of a command that ends with `status`: another one, with a message, where its output could not be
/// written (a full disk, a closed descriptor).
int check_output(int status);

/// For a command whose results are files: that its output could not be written is no failure.
void forget_output();

}  // namespace ratplus::apps
