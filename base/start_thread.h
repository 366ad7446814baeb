// Starting of threads, with a message that names the way out where there can be no more of them.
#pragma once

#include <future>
#include <system_error>
#include <thread>
#include <utility>

#include "base/error.h"

namespace ratplus {

[[noreturn]] inline void fail_to_start_thread(const std::system_error& error) {
  fail(
      "cannot start a thread: {}; allow more processes or memory (ulimit -u, ulimit -v, the limits of the "
      "container "
      "or batch job), or give fewer threads",
      error.code().message());
}

/// As Thread(function, arguments...). Throws Error with the reason and the way out.
template <typename Thread = std::jthread, typename... Arguments>
Thread start_thread(Arguments&&... arguments) {
  try {
    return Thread(std::forward<Arguments>(arguments)...);
  } catch (const std::system_error& error) {
    fail_to_start_thread(error);
  }
}

/// As std::async(std::launch::async, function). Throws Error with the reason and the way out.
template <typename Function>
auto start_async(Function&& function) {
  try {
    return std::async(std::launch::async, std::forward<Function>(function));
  } catch (const std::system_error& error) {
    fail_to_start_thread(error);
  }
}

}  // namespace ratplus
