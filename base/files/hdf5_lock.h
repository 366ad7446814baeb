// The process-wide lock of base/files/hdf5.h and how files are opened, for its own source files alone.
#pragma once

#include <hdf5.h>

#include <mutex>

#include "base/files/hdf5.h"

namespace ratplus::hdf5 {

/// Holds the process-wide lock. Recursive, since owners of temporary handles close them under it.
class Lock {
 public:
  Lock() : guard_(mutex()) {
    // Failures are thrown, not printed. In a thread-safe build of HDF5 (Debian's) each thread has its own
    // setting.
    [[maybe_unused]] thread_local const herr_t silenced = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }

 private:
  static std::recursive_mutex& mutex() {
    static std::recursive_mutex instance;
    [[maybe_unused]] static const bool initialised = [] {
      // A file that could not be flushed (disk full) cannot be closed either, and HDF5's own clean-up at exit
      // would try again and again. Whatever matters here is closed explicitly before.
      H5dont_atexit();
      return true;
    }();
    return instance;
  }
  std::lock_guard<std::recursive_mutex> guard_;
};

/// The properties that every file is opened with: without locks.
Handle file_access();

}  // namespace ratplus::hdf5
