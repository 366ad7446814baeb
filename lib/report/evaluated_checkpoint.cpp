#include "lib/report/evaluated_checkpoint.h"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>

#include "base/files/pending_file.h"
#include "base/files/sha256.h"
#include "base/files/whole_path.h"
#include "lib/report/job_settings.h"

namespace ratplus::report {
namespace {

/// The lines of a run's first moments, which hold their times: no other run has them.
std::string first_lines(const std::filesystem::path& run) {
  std::string head(std::size_t{1} << 14, '\0');
  std::ifstream in(run / "metrics.jsonl", std::ios::binary);
  in.read(head.data(), static_cast<std::streamsize>(head.size()));
  head.resize(static_cast<std::size_t>(in.gcount()));
  return head;
}

/// Whether a run is there that is not this one, nor a copy of it.
bool is_another_run(const std::filesystem::path& there, const std::filesystem::path& run) {
  std::error_code error;
  if (!std::filesystem::exists(there / "metrics.jsonl", error)) return false;
  if (std::filesystem::equivalent(there, run, error)) return false;
  const auto a = first_lines(there), b = first_lines(run);
  const auto shared = std::min(a.size(), b.size());
  return a.compare(0, shared, b, 0, shared) != 0;
}

}  // namespace

std::string not_of_run(const EvaluatedCheckpoint& evaluated, const std::filesystem::path& run,
                       std::int64_t reached) {
  const auto& path = evaluated.path;
  const bool of_a_run = path.parent_path().filename() == "checkpoints";
  if (!of_a_run) return {};  // weights, which may be an export of the run
  const auto own = run / "checkpoints" / path.filename() / "manifest.json";
  std::error_code error;
  if (!evaluated.manifest_sha256.empty() && std::filesystem::is_regular_file(own, error)) {
    if (sha256_hex(read_whole_file(own)) == evaluated.manifest_sha256) return {};
    return fmt::format("is of {}, which is not this run's {}", path.string(), path.filename().string());
  }
  if (evaluated.step > reached)
    return fmt::format("is of step {}, and the run's last is {}", evaluated.step, reached);
  const auto trained = path.parent_path().parent_path();
  // Where the run itself was trained, another may have been since it was moved.
  const std::filesystem::path home = unquoted(read_job_settings(run).value_of("job.directory"));
  if (trained.empty() || whole_path(trained) == whole_path(home)) return {};
  if (home.is_relative() && whole_path(trained).string().ends_with("/" + home.lexically_normal().string()))
    return {};
  for (const auto& there : {trained, whole_path(run).parent_path() / trained.filename()}) {
    if (is_another_run(there, run)) return fmt::format("is of {}, another run", path.string());
  }
  return {};
}

}  // namespace ratplus::report
