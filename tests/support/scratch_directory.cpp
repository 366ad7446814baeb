#include "tests/support/scratch_directory.h"

#include <cstdlib>
#include <string>

#include "kernels/error.h"

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

}  // namespace ratplus::test
