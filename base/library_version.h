// LibraryVersion: a library that a room computes with, as it reports itself at run time.
#pragma once

#include <string>

namespace ratplus {

struct LibraryVersion {
  std::string name;
  std::string version;
};

}  // namespace ratplus
