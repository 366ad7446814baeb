// In the place of parquet.cpp where Apache Arrow was not found.
#include "base/error.h"
#include "data/text/parquet.h"

namespace ratplus::data::parquet {
namespace {

[[noreturn]] void fail_unsupported(const std::filesystem::path& file) {
  fail(
      "{}: this program was built without Parquet; run `bash jobs/setup.sh --parquet` (or install Apache "
      "Arrow's "
      "libparquet-dev) and build it again, or convert the file to .jsonl",
      file.string());
}

}  // namespace

struct Texts::Impl {};

std::vector<std::int64_t> row_group_bytes(const std::filesystem::path& file) {
  fail_unsupported(file);
}
Texts::Texts(const std::filesystem::path& file, const std::string&, std::int64_t, std::int64_t) {
  fail_unsupported(file);
}
Texts::~Texts() = default;
bool Texts::next(std::string&) {
  return false;
}
std::int64_t Texts::row() const {
  return 0;
}
std::int64_t Texts::row_groups_done() const {
  return 0;
}

}  // namespace ratplus::data::parquet
