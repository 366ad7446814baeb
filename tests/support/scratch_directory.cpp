#include "tests/support/scratch_directory.h"

#include <algorithm>
#include <cstdlib>
#include <string>

#include "base/error.h"

namespace ratplus::test {

ScratchDirectory::ScratchDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "ratplus-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) fail("{}: cannot be made", name);
  path_ = name;
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> ScratchDirectory::files() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace ratplus::test
