// The program as a user runs it: commands, their output and status, and a small dataset and job to run them on.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lib/checkpoint/manifest.h"
#include "tests/support/messages.h"
#include "tests/support/scratch_directory.h"

namespace ratplus::test {

struct Result {
  int status = 0;      ///< exit status; 128 + n if killed by signal n
  std::string output;  ///< stdout and stderr
  double seconds = 0;
};

/// Runs a shell command; killed after a minute or so, with status 137, since nothing here may hang.
Result shell(const std::string& command);
/// ratplus with these arguments; under mpirun if ranks > 0.
std::string command(const std::string& arguments, int ranks = 0);
Result ratplus(const std::string& arguments, int ranks = 0);

/// The options that a command's --help lists, as "--name", without --help itself.
std::vector<std::string> option_names(const std::string& command);

/// A dataset of made-up text and a job file of a tiny model, made once for all tests of the program.
class Playground {
 public:
  static const Playground& get();

 private:
  Playground();
  ScratchDirectory scratch_;  // first: the others lie in it

 public:
  const std::filesystem::path data;
  const std::filesystem::path job;
};

/// The entries of a run's metrics.jsonl that are of this kind, each as its JSON text without what depends on time.
std::vector<std::string> metrics(const std::filesystem::path& run, const std::string& kind);
/// All losses and gradient norms of a run's steps, in order.
std::vector<double> losses(const std::filesystem::path& run);
/// Every number in the files of a checkpoint, or of a run's newest: weights and moments.
std::vector<float> state_of(const std::filesystem::path& run);
/// Writes the checkpoint `from` once more, into to.directory, as one of to's step, counts and job.
void write_again(const checkpoint::Info& from, checkpoint::Info to);

}  // namespace ratplus::test
